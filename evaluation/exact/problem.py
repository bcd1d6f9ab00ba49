"""How many measurements and samples an exact comparison takes."""

from __future__ import annotations

MOST = 1_000_000
"""Samples of one problem. They are held in memory."""


class ExactProblem:
    """`posteriors` measurements get `samples` samples each; all further ones, up to `measurements` in total, get `ranks` samples each.

    The first are compared with exact samples, all of them enter the ranks. `axes` is the largest number of directions for
    regions and ranks, `directions` the number for the sliced Wasserstein distance. `name` is the problem's name in tables
    and in conf/tuned. Raises ValueError for numbers that leave nothing to compare.
    """

    def __init__(
        self, name: str, posteriors: int, samples: int, measurements: int, ranks: int, axes: int = 8, directions: int = 100
    ) -> None:
        values = {"posteriors": posteriors, "samples": samples, "measurements": measurements, "ranks": ranks, "axes": axes}
        values["directions"] = directions
        least = {"posteriors": 1, "samples": 20, "measurements": 0, "ranks": 9, "axes": 1, "directions": 1}
        for key, value in values.items():
            if not least[key] <= value <= MOST:
                raise ValueError(f"exact_problem.{key} must be {least[key]} to {MOST}, got {value}; set exact_problem.{key}")
        if posteriors * samples > MOST or measurements * ranks > MOST:
            raise ValueError(
                f"an exact problem draws at most {MOST} samples; set exact_problem.posteriors, .samples or .measurements lower"
            )
        if (ranks + 1) % 10:
            raise ValueError(f"the ranks of {ranks} samples do not fall into 10 equal bins; set exact_problem.ranks to 9, 19, 29, …")
        if samples < ranks:
            raise ValueError(f"exact_problem.samples={samples} is less than exact_problem.ranks={ranks}; raise exact_problem.samples")
        self.name, self.posteriors, self.samples, self.measurements, self.ranks = name, posteriors, samples, measurements, ranks
        self.axes, self.directions = axes, directions

    @property
    def ranked(self) -> bool:
        """Whether the measurements suffice for ten bins of ranks. Otherwise only the first posteriors are compared."""
        return self.measurements >= 50

    @property
    def total(self) -> int:
        return max(self.measurements, self.posteriors) if self.ranked else self.posteriors

    def rows(self) -> list[tuple[int, int]]:
        """(measurement, sample) of every sample that a solver draws, the first `posteriors` measurements before the others."""
        counts = [self.samples if m < self.posteriors else self.ranks for m in range(self.total)]
        return [(m, s) for m, count in enumerate(counts) for s in range(count)]
