"""The engine, in the folders of the engine."""
