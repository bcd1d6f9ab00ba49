"""Diffusion priors: noise levels, schedules, grids, transitions, denoisers, networks and checkpoints."""
