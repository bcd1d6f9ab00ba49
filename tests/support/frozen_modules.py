"""Loaded last by the server of forks: the objects of all modules are left out of the garbage collection of its children."""

import gc

gc.collect()
gc.freeze()
