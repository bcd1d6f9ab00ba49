"""Priors: what a denoiser is made from, and one loader a file for each kind of checkpoint."""
