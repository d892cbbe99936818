"""Pickles, read as plain containers and inert stand-ins: nothing in them is run."""
