"""A restoration and its ground truth → numbers."""
