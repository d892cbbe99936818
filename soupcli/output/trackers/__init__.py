"""Experiment trackers that a run is reported to: one file each, and their table."""
