"""The leaderboard that several tests read: it is written once."""

from __future__ import annotations

import pytest
from swept_jobs import WITH_REPORT, fill

from diffusion_priors.evaluation.sweeps.leaderboard import write_leaderboard
from diffusion_priors.evaluation.sweeps.ranking import Leaderboard


@pytest.fixture(scope="session")
def board(tmp_path_factory) -> Leaderboard:
    """The leaderboard of the sweep of `fill`, with its files; one job has a report."""
    root = tmp_path_factory.mktemp("sweep")
    fill(root)
    (root / WITH_REPORT / "report.html").write_text("x")
    return write_leaderboard(root)
