"""One file per kind of figure: a report to a Figure."""
