"""Restoring pictures at scale: the module, metrics, records, pictures and progress."""
