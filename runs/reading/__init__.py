"""What a run keeps in its folder, read as a stranger's: plain values, PNGs, and records."""
