"""One file per checkpoint format, and their table."""
