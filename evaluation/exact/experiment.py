"""One solver on one problem whose posterior is known exactly: what it samples, and how far that is from the truth."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
import torch
from numpy import ndarray

from diffusion_priors.diffusion.analytic.laws import Law
from diffusion_priors.diffusion.analytic.priors import law_of
from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.grids import Grid
from diffusion_priors.diffusion.image_random import ImageRandom, image_generator
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.transitions import Transition
from diffusion_priors.evaluation.exact.distances import Reference, figures, unit_directions
from diffusion_priors.evaluation.exact.mixtures import FlatMixture
from diffusion_priors.evaluation.exact.posterior import Posterior, matrix_of
from diffusion_priors.evaluation.exact.problem import ExactProblem
from diffusion_priors.evaluation.exact.sbc import histogram, quantities, ranks, uniformity
from diffusion_priors.operators.base import Operator
from diffusion_priors.operators.noise_models import NoiseModel
from diffusion_priors.solvers.base import Problem, Solver

BINS = 10


@dataclass(frozen=True)
class Drawn:
    """What samples were drawn: row i is sample `rows[i][1]` of measurement `rows[i][0]`; `x` (N, D), NaN where a run failed."""

    rows: list[tuple[int, int]]
    x: ndarray

    def of(self, measurement: int) -> ndarray:
        """The samples of one measurement that did not fail."""
        x = self.x[[m == measurement for m, _ in self.rows]]
        return x[np.isfinite(x).all(1)]


@dataclass(frozen=True)
class Cost:
    """What the solver spent on all rows: `seconds`, and the network evaluations of each, forward and backward; `failed` rows."""

    seconds: float
    nfe_forward: int
    nfe_vjp: int
    failed: int


@dataclass(kw_only=True)
class ExactExperiment:
    """`solver` on the measurements of one problem, beside samples of the posterior itself.

    The problem is made of `prior` (whose law must be known), a linear `operator`, drawn once, and Gaussian `noise_model`;
    truths are drawn from the prior. A sample is a function of (configuration, seed, measurement, sample number).
    Everything runs on the CPU, in float32 as any run; what is exact is in double precision.
    """

    prior: Prior
    operator: Operator
    noise_model: NoiseModel
    solver: Solver
    grid: Grid
    transition: Transition
    exact_problem: ExactProblem
    seed: int = 0
    batch_size: int = 8
    law: Law = field(init=False)

    def check(self) -> None:
        """Raises ValueError, in one line, for parts whose posterior is not known or that do not go together."""
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}; set batch_size")
        self.law = law_of(self.prior)
        sigma = getattr(self.noise_model, "std", None)
        if sigma is None:
            raise ValueError("the exact posterior is known for Gaussian noise; set noise_model=gaussian")
        self.levels = self.solver.levels(self.grid, self.prior.levels)
        self.transition.check(learned_variance=False)
        self._draw(torch.float64)
        self.matrix, self.measured = matrix_of(self.operator, self.law.shape)
        self.posterior = Posterior(self.law, self.matrix, sigma)

    def _draw(self, dtype: torch.dtype) -> None:
        """The operator's random parts, the same for every image of the problem."""
        self.operator.draw(torch.zeros(1, *self.law.shape, dtype=dtype), [image_generator(self.seed, "truth", "operator")])

    def run(self) -> Outcome:
        """Draw the measurements, the solver's samples and the exact ones, and compare.

        With one thread: arrays are so small that others would only be waited for.
        """
        torch.set_num_threads(1)
        self._measure()
        posteriors = [self.posterior.given(self.seen[m]) for m in range(self.exact_problem.total)]
        solved, cost = self._solve()
        return Outcome(self, posteriors, solved, self._exactly(posteriors), cost)

    def _measure(self) -> None:
        """x0 ~ p(x0) and y of every measurement; `seen` (M, M') are the entries of y that were measured."""
        self._draw(torch.float32)
        generators = [image_generator(self.seed, "truth", m) for m in range(self.exact_problem.total)]
        self.truth = self.law.draw(generators)
        self.measurement = self.noise_model.measure(self.operator, self.truth.float(), generators)
        self.seen = self.measurement.y.flatten(1).double().numpy()[:, self.measured]

    def _solve(self) -> tuple[Drawn, Cost]:
        rows, denoiser = self.exact_problem.rows(), Denoiser(self.prior)
        found, seconds, forwards, vjps = [], 0.0, 0, 0
        for first in range(0, len(rows), self.batch_size):
            some = rows[first : first + self.batch_size]
            started = perf_counter()
            solution = self.solver.solve(self._problem(denoiser, some), self.levels)
            seconds += perf_counter() - started
            forwards, vjps = solution.forwards, solution.vjps
            x = solution.x0.flatten(1).double()
            x[[failed is not None for failed in solution.failed_at]] = torch.nan
            found.append(x.numpy())
        x = np.concatenate(found)
        return Drawn(rows, x), Cost(seconds, forwards, vjps, int(np.isnan(x).any(1).sum()))

    def _problem(self, denoiser: Denoiser, rows: list[tuple[int, int]]) -> Problem:
        which = [m for m, _ in rows]
        return Problem(
            denoiser=denoiser,
            transition=self.transition,
            operator=self.operator,
            y=self.measurement.y[which],
            sigma_y=self.measurement.sigma_y[which],
            blank=torch.zeros(len(rows), *self.law.shape),
            rng=ImageRandom([image_generator(self.seed, "truth", m, s, "sampling") for m, s in rows]),
        )

    def _exactly(self, posteriors: list[FlatMixture]) -> Drawn:
        """As many samples of the posteriors themselves."""
        rows = self.exact_problem.rows()
        counts = np.bincount([m for m, _ in rows])
        generators = [image_generator(self.seed, "truth", m, "exact") for m in range(len(counts))]
        drawn = [p.sample(count, g) for p, count, g in zip(posteriors, counts, generators, strict=True)]
        return Drawn(rows, np.concatenate(drawn))


class Outcome:
    """`figures` of the solver's samples, and the `floor`: those of as many exact ones. A mean over the posteriors looked at."""

    def __init__(self, truth: ExactExperiment, posteriors: list[FlatMixture], solved: Drawn, exact: Drawn, cost: Cost) -> None:
        self.truth, self.posteriors, self.solved, self.exact, self.cost = truth, posteriors, solved, exact, cost
        design = truth.exact_problem
        generators = [image_generator(truth.seed, "truth", m, "reference") for m in range(design.posteriors)]
        self.references = [Reference.of(posteriors[m], design.samples, design.axes, g) for m, g in enumerate(generators)]
        side = truth.matrix.shape[1]
        self.directions = unit_directions(side, design.directions, image_generator(truth.seed, "truth", "directions"))
        self.figures = self._figures(solved)
        self.floor = self._figures(exact)

    def _figures(self, drawn: Drawn) -> dict[str, float | None]:
        clouds = [drawn.of(m) for m in range(len(self.references))]
        enough = [(cloud, reference) for cloud, reference in zip(clouds, self.references, strict=True) if len(cloud) > 1]
        found = [figures(cloud, reference, self.directions) for cloud, reference in enough]
        means = {key: float(np.mean([one[key] for one in found])) for key in found[0]} if found else {}
        ranked = self.ranked(drawn) if found else None
        return means | {"ranks": None if ranked is None else uniformity(ranked, self.truth.exact_problem.ranks, BINS)}

    def ranked(self, drawn: Drawn) -> ndarray | None:
        """Ranks (M, Q) of the truths among the first samples of each measurement; None where there are too few measurements."""
        design, truth = self.truth.exact_problem, self.truth
        if not design.ranked:
            return None
        x = np.stack([drawn.x[i] for i, (_, s) in enumerate(drawn.rows) if s < design.ranks]).reshape(design.total, design.ranks, -1)
        axes, y = self.references[0].axes[:, :2], truth.seen
        own = quantities(truth.truth.flatten(1).numpy(), y, truth.matrix, axes)
        return ranks(own, np.nan_to_num(quantities(x, y[:, None], truth.matrix, axes), nan=np.inf))

    def histograms(self, drawn: Drawn) -> list[list[int]] | None:
        """Counts of the ranks in equal bins, one list per quantity."""
        found = self.ranked(drawn)
        return None if found is None else histogram(found, self.truth.exact_problem.ranks, BINS).T.tolist()
