"""The ingredients of `soup demo digits|text|images`: data, a shared start and a family of fine-tuned runs."""
