"""One solver on one problem with a known posterior: the samples it draws, and how far they are from the posterior."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import prod
from time import perf_counter

import numpy as np
import torch
from numpy import ndarray

from diffusion_priors.diffusion.analytic.laws import Law
from diffusion_priors.diffusion.analytic.priors import law_of
from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.image_random import ImageRandom, image_generator
from diffusion_priors.evaluation.exact.distances import Reference, distances, unit_directions
from diffusion_priors.evaluation.exact.known_law import KnownLaw
from diffusion_priors.evaluation.exact.posterior import Given, posterior_of
from diffusion_priors.evaluation.exact.problem import ExactProblem
from diffusion_priors.evaluation.exact.sbc import histogram, quantities, ranks, uniformity
from diffusion_priors.operators.measurement import Measurement
from diffusion_priors.solvers.base import Problem
from diffusion_priors.solvers.method import Method

BINS = 10


@dataclass(frozen=True)
class DrawnSamples:
    """Row i of `x` (N, D) is sample `rows[i][1]` of measurement `rows[i][0]`. It is NaN if the solver failed."""

    rows: list[tuple[int, int]]
    x: ndarray

    def of(self, measurement: int) -> ndarray:
        """The samples of one measurement, without the failed ones."""
        x = self.x[[m == measurement for m, _ in self.rows]]
        return x[np.isfinite(x).all(1)]


@dataclass(frozen=True)
class Cost:
    """What the solver spent: the `seconds` for all samples, the network evaluations per sample, and the `failed` samples."""

    seconds: float
    nfe_forward: int
    nfe_vjp: int
    failed: int


@dataclass(kw_only=True)
class ExactExperiment:
    """Run the solver of `method` on the measurements of one problem, and draw as many samples from the exact posteriors.

    The method's prior must have a known law. With its operator, drawn once, and its noise the posterior must be known too:
    see `posterior_of`. The ground truths are drawn from the prior. A sample is a function of (configuration, seed,
    measurement, sample number). Everything runs on the CPU. The solver computes in float32, as in every run; exact
    quantities are in double precision.
    """

    method: Method
    exact_problem: ExactProblem
    seed: int = 0
    batch_size: int = 8
    law: Law = field(init=False)
    given: Given = field(init=False)

    def check(self) -> None:
        """Raises a one-line ValueError if the posterior is not known, or if the components do not fit together."""
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}; set batch_size")
        self.law = law_of(self.method.prior)
        self.method.solver.check(self.method.operator, self.method.noise_model, self.method.sampler)
        self.method.sampler.check(learned_variance=False)
        self.plan = self.method.plan()
        self._draw_operator(torch.float64)
        self.given = posterior_of(self.law, self.method.operator, self.method.noise_model)

    def _draw_operator(self, dtype: torch.dtype) -> None:
        """Draw the random parts of the operator, the same for every image of the problem."""
        self.method.operator.draw(torch.zeros(1, *self.law.shape, dtype=dtype), [image_generator(self.seed, "truth", "operator")])

    def run(self) -> Outcome:
        """Draw the measurements, the solver's samples and exact samples, and compare them.

        One thread is enough: with arrays as small as these, more threads only wait for each other.
        """
        torch.set_num_threads(1)
        self._measure()
        posteriors = [self.given(y[None]) for y in self.measurement.y]
        solved, cost = self._solve()
        return Outcome(self, posteriors, solved, self._sample_exactly(posteriors), cost)

    def _measure(self) -> None:
        """Draw x0 ~ p(x0) and y for every measurement."""
        self._draw_operator(torch.float32)
        generators = [image_generator(self.seed, "truth", m) for m in range(self.exact_problem.total)]
        self.truth = self.law.draw(generators)
        self.measurement = Measurement.of(self.method.operator, self.method.noise_model, self.truth.float(), generators)

    def measured(self, which: list[int]) -> Measurement:
        """The measurements with these numbers, one per row."""
        return replace(self.measurement, y=self.measurement.y[which], sigma_y=self.measurement.sigma_y[which])

    def quantities(self, x: ndarray, axes: ndarray) -> ndarray:
        """The ranked quantities (M, L, Q) of L images of each measurement, x (M, L, D)."""
        count, each, _ = x.shape
        measurement = self.measured([m for m in range(count) for _ in range(each)])
        images = torch.from_numpy(x).float().view(-1, *self.law.shape)
        return quantities(x, measurement.norm(images).square().double().numpy().reshape(count, each), axes)

    def _solve(self) -> tuple[DrawnSamples, Cost]:
        rows, denoiser = self.exact_problem.rows(), Denoiser(self.method.prior)
        found, seconds, forwards, vjps = [], 0.0, 0, 0
        for first in range(0, len(rows), self.batch_size):
            batch = rows[first : first + self.batch_size]
            started = perf_counter()
            solution = self.method.solver.solve(self._problem(denoiser, batch), self.plan)
            seconds += perf_counter() - started
            forwards, vjps = solution.forwards, solution.vjps
            x = solution.x0.flatten(1).double()
            x[[failed is not None for failed in solution.failed_at]] = torch.nan
            found.append(x.numpy())
        x = np.concatenate(found)
        return DrawnSamples(rows, x), Cost(seconds, forwards, vjps, int(np.isnan(x).any(1).sum()))

    def _problem(self, denoiser: Denoiser, rows: list[tuple[int, int]]) -> Problem:
        return Problem(
            denoiser=denoiser,
            measurement=self.measured([m for m, _ in rows]) if self.method.solver.uses_measurement else None,
            sampler=self.method.sampler,
            rng=ImageRandom([image_generator(self.seed, "truth", m, s, "sampling") for m, s in rows]),
            like=torch.zeros(len(rows), *self.law.shape),
        )

    def _sample_exactly(self, posteriors: list[KnownLaw]) -> DrawnSamples:
        """As many samples as the solver drew, from the posteriors themselves."""
        rows = self.exact_problem.rows()
        counts = np.bincount([m for m, _ in rows])
        generators = [image_generator(self.seed, "truth", m, "exact") for m in range(len(counts))]
        drawn = [p.sample(count, g) for p, count, g in zip(posteriors, counts, generators, strict=True)]
        return DrawnSamples(rows, np.concatenate(drawn))


class Outcome:
    """`distances` of the solver's samples, and the `floor`: those of as many exact samples. Both are means over the posteriors."""

    def __init__(
        self, experiment: ExactExperiment, posteriors: list[KnownLaw], solved: DrawnSamples, exact: DrawnSamples, cost: Cost
    ) -> None:
        self.experiment, self.posteriors, self.solved, self.exact, self.cost = experiment, posteriors, solved, exact, cost
        problem, seed = experiment.exact_problem, experiment.seed
        generators = [image_generator(seed, "truth", m, "reference") for m in range(problem.posteriors)]
        self.references = [Reference.of(posteriors[m], problem.samples, problem.axes, g) for m, g in enumerate(generators)]
        self.directions = unit_directions(prod(experiment.law.shape), problem.directions, image_generator(seed, "truth", "directions"))
        self.distances = self._compare(solved)
        self.floor = self._compare(exact)

    def _compare(self, drawn: DrawnSamples) -> dict[str, float | None]:
        clouds = [drawn.of(m) for m in range(len(self.references))]
        comparable = [(cloud, reference) for cloud, reference in zip(clouds, self.references, strict=True) if len(cloud) > 1]
        found = [distances(cloud, reference, self.directions) for cloud, reference in comparable]
        means = {key: float(np.mean([one[key] for one in found])) for key in found[0]} if found else {}
        ranked = self.ranked(drawn) if found else None
        return means | {"ranks": None if ranked is None else uniformity(ranked, self.experiment.exact_problem.ranks, BINS)}

    def ranked(self, drawn: DrawnSamples) -> ndarray | None:
        """Ranks (M, Q) of the ground truths among the first samples of each measurement; None if there are too few measurements."""
        experiment, problem = self.experiment, self.experiment.exact_problem
        if not problem.ranked:
            return None
        x = np.stack([drawn.x[i] for i, (_, s) in enumerate(drawn.rows) if s < problem.ranks]).reshape(problem.total, problem.ranks, -1)
        axes, truth = self.references[0].axes[:, :2], experiment.truth.flatten(1).numpy()[:, None]
        of_samples = np.nan_to_num(experiment.quantities(x, axes), nan=np.inf)
        return ranks(experiment.quantities(truth, axes)[:, 0], of_samples, image_generator(experiment.seed, "truth", "ties"))

    def histograms(self, drawn: DrawnSamples) -> list[list[int]] | None:
        """Counts of the ranks in equal bins, one list per quantity."""
        found = self.ranked(drawn)
        return None if found is None else histogram(found, self.experiment.exact_problem.ranks, BINS).T.tolist()
