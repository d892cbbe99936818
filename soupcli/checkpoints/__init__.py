"""Bytes on disk: find checkpoints, open them (headers only), read tensors, mix them, write a soup.

One file for each format; `opening.py` recognises which. Everything else speaks `Checkpoint`.
"""
