"""Files of priors: what one is and whether its settings are right, conversion, export, and the hub."""
