"""A Mixture to tensors to a soup folder: the mean, and the files it is written to."""
