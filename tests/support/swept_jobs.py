"""Sweeps over DPS and SDEdit, written by hand, and their leaderboard."""

from __future__ import annotations

import csv
import io
import random

from sweep_folder import base_choices, base_config, node, records_of, write_job

from diffusion_priors.evaluation.sweeps.jobs import read_jobs
from diffusion_priors.evaluation.sweeps.ranking import Leaderboard

DPS, SDEDIT = "diffusion_priors.solvers.dps.DPS", "diffusion_priors.solvers.sdedit.SDEdit"


def dps(folder, zeta, records=(), **changes):
    return write_job(folder, records, base_config(solver=node(DPS, zeta=zeta), **changes))


def sdedit(folder, t_star, records=(), **changes):
    return write_job(folder, records, base_config(solver=node(SDEDIT, t_star=t_star), **changes), base_choices(solver="sdedit"))


def csv_rows(text: str) -> list[dict]:
    return list(csv.DictReader(io.StringIO(text)))


def ranked(root, objective: str = "psnr") -> Leaderboard:
    """The leaderboard without its files."""
    return Leaderboard(root, read_jobs(root), objective)


WITH_REPORT = "steps=50,zeta=3.0"


def fill(root) -> None:
    """A sweep over two solvers, their parameters and the number of steps, and a failed job."""
    rng = random.Random(1)
    for steps in (50, 1000):
        grid = node("g.Linspace", steps=steps)
        for zeta in (0.1, 1.0, 3.0):
            psnr = [rng.gauss(25 + zeta, 1) for _ in range(4)]
            records = records_of(psnr, [0.3 - zeta / 20 + rng.random() / 50 for _ in psnr], seconds=steps / 50 + rng.random())
            dps(root / f"steps={steps},zeta={zeta}", zeta, records, grid=grid)
        sdedit(root / f"steps={steps},t_star=500", 500, records_of([20.0, 21.0], [0.4, 0.5], seconds=0.1 * steps), grid=grid)
    failed = dps(root / "zeta=a b#%|c", 9.0, grid=node("g.Linspace", steps=50))
    (failed / "error.txt").write_text("RuntimeError: <b>a | b</b> *now*\n")
