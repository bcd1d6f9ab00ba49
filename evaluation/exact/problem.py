"""How much of a problem is looked at."""

from __future__ import annotations


class ExactProblem:
    """`posteriors` measurements get `samples` samples each; `measurements` in all, the others `ranks` samples each.

    The first are compared with exact samples, all are ranked. `axes` bounds the directions that regions and ranks look
    along, `directions` is how many the sliced Wasserstein distance takes. `name` is what tables call the problem.
    `tuned` holds what was found for solvers on problems like this one: {"dps": {"zeta": 0.3}}; a solver that is not in
    it, and whatever is set on the command line, is as it is. Raises ValueError for numbers that leave nothing to compare.
    """

    def __init__(
        self,
        name: str,
        posteriors: int,
        samples: int,
        measurements: int,
        ranks: int,
        axes: int = 8,
        directions: int = 100,
        tuned: dict[str, dict[str, float | int]] | None = None,
    ) -> None:
        least = {"posteriors": 1, "samples": 20, "measurements": 0, "ranks": 9, "axes": 1, "directions": 1}
        given = {"posteriors": posteriors, "samples": samples, "measurements": measurements, "ranks": ranks, "axes": axes}
        given["directions"] = directions
        for key, value in given.items():
            if value < least[key]:
                raise ValueError(f"exact_problem.{key} must be at least {least[key]}, got {value}; set exact_problem.{key}")
        if (ranks + 1) % 10:
            raise ValueError(f"the ranks of {ranks} samples do not fall into 10 equal bins; set exact_problem.ranks to 9, 19, 29, …")
        if samples < ranks:
            raise ValueError(f"exact_problem.samples={samples} is less than exact_problem.ranks={ranks}; raise exact_problem.samples")
        self.name, self.posteriors, self.samples, self.measurements, self.ranks = name, posteriors, samples, measurements, ranks
        self.axes, self.directions, self.tuned = axes, directions, tuned or {}

    @property
    def ranked(self) -> bool:
        """Whether there are enough measurements for ten bins; otherwise only the posteriors are looked at."""
        return self.measurements >= 50

    @property
    def total(self) -> int:
        return max(self.measurements, self.posteriors) if self.ranked else self.posteriors

    def rows(self) -> list[tuple[int, int]]:
        """(measurement, sample) of every run of a solver, the first `posteriors` measurements before the others."""
        counts = [self.samples if m < self.posteriors else self.ranks for m in range(self.total)]
        return [(m, s) for m, count in enumerate(counts) for s in range(count)]
