"""The words of the command line to what they mean: the recipe, its sets, the gates."""
