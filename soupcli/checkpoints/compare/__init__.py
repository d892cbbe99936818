"""Do checkpoints agree: tensors, settings, differences."""
