"""A mixture and a set to a Score: the evaluators of a run, the loop over batches, what is kept between runs."""
