"""What the library costs, beside what could not cost less."""
