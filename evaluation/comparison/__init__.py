"""Two finished runs → differences. Reads files only: no torch."""
