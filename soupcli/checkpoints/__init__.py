"""Checkpoints: find them, open them by the header, read tensors one at a time.

One file for each format in `formats/`; `open.py` recognises which. Everything else speaks `Checkpoint`.
"""
