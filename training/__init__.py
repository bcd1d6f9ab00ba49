"""From images to a prior: module, data, callbacks, checkpoints, export."""
