"""The recipe's `model:` to a network, and weights into it in place. One file for each model library."""
