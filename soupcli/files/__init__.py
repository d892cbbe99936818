"""Bytes on disk: reading at positions, writing whole files, locks, JSON."""
