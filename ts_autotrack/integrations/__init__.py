"""Integrations: one module per framework, made of the public package only."""
