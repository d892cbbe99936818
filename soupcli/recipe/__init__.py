"""soup.yaml to frozen models: every problem at once, each with file:line:column.

recipe = load_recipe(Path("soup.yaml"), settings={"greedy.min_delta": "0.001"}, flags={"metric": "nll"})

`recipe.py` has the top keys, `networks.py` and `sets.py` what is under `model:` and `val:`, `methods.py` the
sections that say how a soup is made, `values.py` what a single value may be.
"""
