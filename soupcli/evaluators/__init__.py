"""What evaluates mixtures on the sets of a run: scores that are kept, one network, examples that are made once."""
