"""A model and a validation set in, a Score out: data sets, batching, metrics, kept scores.

One file for each kind of set; each gives an `Evaluate`.
"""
