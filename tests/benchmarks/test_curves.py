"""The file, the table and the curves of benchmarks/time_to_quality.py, on scores made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.timing.curves import Key, append, curves, first, plot, reaches, read, reference, set_seconds, table

IMAGES = ("a", "b", "c")


def write(path: Path, task: str, solver: str, steps: int, psnr: float, lpips: float, seconds: float, vjps: int = 0) -> None:
    shared = {"lpips": lpips, "forwards": float(steps), "vjps": vjps, "seconds": seconds, "machine": "one; core"}
    append(path, Key(task, solver, steps), [{"image": name, "psnr": psnr + i - 1} | shared for i, name in enumerate(IMAGES)])


@pytest.fixture
def points(tmp_path):
    """DPS reaches (27, 0.10) in 1000 steps; another solver is faster by one score each, and by both with more evaluations."""
    path = tmp_path / "points.csv"
    write(path, "box", "dps", 10, 20.0, 0.40, 1.0, vjps=10)
    write(path, "box", "dps", 1000, 27.0, 0.10, 90.0, vjps=1000)
    write(path, "box", "ddrm", 10, 28.0, 0.20, 0.5)
    write(path, "box", "diffpir", 20, 26.0, 0.10, 0.8)
    write(path, "box", "diffpir", 50, 27.0, 0.09, 2.0)
    write(path, "box", "pigdm", 20, 27.5, 0.08, 3.0, vjps=20)
    write(path, "sr4", "ddrm", 10, 40.0, 0.01, 0.1)
    return list(read(path).values())


def test_what_is_written_is_read_again(points):
    (point,) = (point for point in points if point.key == ("box", "pigdm", 20))
    assert point.nfe == 40.0 and point.seconds == 3.0 and point.machine == "one; core"
    assert point.scores == {"psnr": [26.5, 27.5, 28.5], "lpips": [0.08, 0.08, 0.08]} and point.mean("psnr") == 27.5


def test_seconds_measured_later_are_those_of_an_evaluation_times_their_number(tmp_path, points):
    each = {("box", "dps"): 0.5, ("box", "ddrm"): 2.0, ("box", "diffpir"): 1.0, ("box", "pigdm"): 0.25, ("sr4", "ddrm"): 3.0}
    set_seconds(tmp_path / "points.csv", each, "idle")
    found = read(tmp_path / "points.csv")
    assert (
        found["box", "dps", 1000].seconds == 1000.0
        and found["box", "pigdm", 20].seconds == 10.0
        and found["sr4", "ddrm", 10].seconds == 30.0
    )
    for point in points:
        assert found[point.key].machine == "idle" and (found[point.key].scores, found[point.key].nfe) == (point.scores, point.nfe)


def test_no_file_has_no_points(tmp_path):
    assert read(tmp_path / "points.csv") == {}


@pytest.mark.parametrize(
    ("scores", "fewest", "fastest"),
    [
        (["psnr"], ("ddrm", 10), ("ddrm", 10)),
        (["lpips"], ("diffpir", 20), ("diffpir", 20)),
        (["psnr", "lpips"], ("pigdm", 20), ("diffpir", 50)),
    ],
)
def test_the_cheapest_point_that_is_as_good_on_the_same_task(points, scores, fewest, fastest):
    goal = reference(points, "box")
    assert goal.key == ("box", "dps", 1000)
    assert first(points, goal, scores, lambda point: point.nfe).key[1:] == fewest
    assert first(points, goal, scores, lambda point: point.seconds).key[1:] == fastest
    assert not reaches(next(point for point in points if point.key == ("box", "dps", 10)), goal, scores)


def test_the_table_names_them_and_leaves_out_a_task_without_dps(points):
    rows = table(points).splitlines()[2:]
    assert len(rows) == 3 and all("| box" in row for row in rows)
    assert "`pigdm`, 20 steps: 40 NFE, 3.00 s (27.50, 0.0800)" in rows[2] and "| 45.0 " in rows[2]


def test_without_lpips_the_table_has_psnr_alone(tmp_path):
    write(tmp_path / "points.csv", "box", "dps", 10, 20.0, float("nan"), 1.0)
    points = list(read(tmp_path / "points.csv").values())
    assert len(table(points).splitlines()) == 3
    assert [path.name for path in plot(points, tmp_path)] == ["box-psnr-nfe.png", "box-psnr-seconds.png"]


def test_a_curve_goes_through_the_means_in_the_order_of_the_cost(points):
    dps = next(curve for curve in curves(points, "box", "psnr", "nfe") if curve.solver == "dps")
    assert dps.costs == [20.0, 2000.0] and dps.means == [20.0, 27.0]
