"""A report to people and machines: the terminal, CI formats."""
