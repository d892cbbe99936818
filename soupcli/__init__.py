"""Model soups: one better model from many fine-tuned ones."""

__version__ = "0.1.0"
