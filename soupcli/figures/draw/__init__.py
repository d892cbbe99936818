"""A Figure to SVG or, through matplotlib, to PNG."""
