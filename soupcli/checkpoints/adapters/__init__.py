"""LoRA adapters of PEFT as checkpoints."""
