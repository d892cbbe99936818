"""Every option of every command: one frozen dataclass for each command, and what they share."""
