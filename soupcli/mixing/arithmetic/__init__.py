"""How numbers are summed and rounded. Tensors only: nothing here knows checkpoints or files."""
