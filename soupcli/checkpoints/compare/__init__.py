"""Compares checkpoints: tensors, settings, meanings of rows, differences."""
