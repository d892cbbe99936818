"""One file for each command: words in, exit code out."""
