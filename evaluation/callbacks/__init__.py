"""Lightning callbacks of restoration runs; yours go here or anywhere: +callbacks.mine._target_=package.module.Class."""
