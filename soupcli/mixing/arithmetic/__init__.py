"""Exact sums and rounding. It works on tensors only, and knows no checkpoints or files."""
