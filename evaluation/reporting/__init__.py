"""One finished run's folder → text, charts, HTML. Reads files only: no torch."""
