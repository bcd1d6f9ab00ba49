"""A dashboard that only records what a run sends to it."""

from __future__ import annotations

from diffusion_priors.runs.loggers import Dashboard


class Recorder(Dashboard):
    """Records all calls; is its own logger."""

    def __init__(self) -> None:
        self.rows, self.published, self.codes = [], [], []

    def __call__(self, folder, config, restart=False):
        return []

    def log_metrics(self, values, step):
        self.rows.append((step, values))

    def publish(self, loggers, folder, summary, records):
        self.published.append((summary, list(records)))

    def finish(self, code):
        self.codes.append(code)
