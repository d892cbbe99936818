"""One file per model library: the recipe's `model:` to a network of that library."""
