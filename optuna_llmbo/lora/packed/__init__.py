"""Several trials of a LoRA study at once, on one device and one frozen model."""
