"""Measurement operators and measurement noise."""
