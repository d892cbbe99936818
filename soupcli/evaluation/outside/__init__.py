"""Evaluations that others do: a user's function, a command, lm-evaluation-harness."""
