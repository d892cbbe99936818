"""Metrics: what each example contributes, and the value of the whole."""
