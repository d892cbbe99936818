"""Formats that are folders: shards, parts, torch distributed checkpoints, and libraries with layouts of their own."""
