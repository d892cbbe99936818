"""The live network as a function of its coefficients: what the learned soup needs."""
