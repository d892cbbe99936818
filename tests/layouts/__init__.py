"""Folders of real libraries that are too heavy for every run: `make layouts` installs and runs them."""
