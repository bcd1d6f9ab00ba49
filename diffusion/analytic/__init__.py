"""Priors whose score is known in closed form: laws of x0, and the exact network of each."""
