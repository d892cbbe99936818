"""The code that commands share: from options to a recipe, checkpoints, evaluators and a report."""
