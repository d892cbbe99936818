"""Learned soups: coefficients fitted by gradient, or searched for; which step is kept."""
