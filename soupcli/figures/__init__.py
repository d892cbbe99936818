"""Figures of a report: described once (figure.py), drawn as SVG by us (svg.py) or by matplotlib (matplotlib.py).

reports = read([path])
figure = KINDS["scores"](reports)                         # raises UsageError if the reports lack what it needs
text = svg.drawn(figure)                                  # one <svg>, coloured by the CSS classes of palette.py
"""
