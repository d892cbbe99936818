"""What the paper describes (Wortsman et al. 2022, arXiv:2203.05482), readable beside it: rank, uniform, greedy.

Each is a function from ingredients and an `evaluate` to a result; none knows files, argv or printing.
"""
