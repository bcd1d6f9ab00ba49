"""Solvers compared with posteriors that are known in closed form."""
