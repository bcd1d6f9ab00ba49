"""Image files ↔ tensors."""
