"""A set of the recipe to examples as a network takes them. One file per kind of set."""
