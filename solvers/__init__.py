"""Solvers: one class per method."""
