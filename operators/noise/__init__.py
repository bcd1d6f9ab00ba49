"""Laws of measurement noise beyond Gaussian and Poisson noise: one file per law."""
