"""A table of real LoRA runs to race samplers on; see README.md in this folder."""
