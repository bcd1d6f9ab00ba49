"""ExactExperiment: solvers against posteriors that are known exactly."""
