"""Restoring images at scale: the module, metrics, records, images and progress."""
