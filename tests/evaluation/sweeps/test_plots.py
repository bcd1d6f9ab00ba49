"""The charts of a sweep."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
from html_page import HtmlPage
from matplotlib.transforms import Bbox
from PIL import Image
from sweep_folder import records_of
from swept_jobs import dps, ranked

from diffusion_priors.evaluation.reporting.charts import PAGE_COLOURS, inline_svg, png
from diffusion_priors.evaluation.statistics import Estimate
from diffusion_priors.evaluation.sweeps.leaderboard import draw_plots
from diffusion_priors.evaluation.sweeps.plots import Line, Point, _covered, metric_plot, pareto_plot, pareto_set


def dominates(a, b) -> bool:
    return a != b and a[0] <= b[0] and a[1] <= b[1]


@pytest.mark.parametrize("seed", range(30))
def test_pareto_set_is_what_nothing_dominates(seed):
    rng = random.Random(seed)
    points = [(rng.randrange(8), rng.randrange(8)) for _ in range(rng.randrange(1, 20))]
    found = pareto_set(points)
    assert sorted(found) == [i for i, point in enumerate(points) if not any(dominates(other, point) for other in points)]
    assert [points[i][0] for i in found] == sorted(points[i][0] for i in found)


def test_pareto_plot_prefers_high_psnr_low_lpips_and_little_time(tmp_path):
    for name, psnr, lpips, seconds in (("a", 20.0, 0.1, 1.0), ("b", 30.0, 0.3, 2.0), ("c", 10.0, 0.05, 30.0), ("d", 40.0, 0.2, 40.0)):
        dps(tmp_path / name, ord(name), records_of([psnr], [lpips], seconds=seconds))
    axes = draw_plots(ranked(tmp_path))["pareto"].axes[0]
    assert [text.get_text() for text in axes.texts] == ["zeta 97", "zeta 99"] and axes.get_xscale() == "log"
    for path in tmp_path.glob("*/summary.json"):
        summary = json.loads(path.read_text())
        summary["statistics"]["single"]["lpips"] = None
        path.write_text(json.dumps(summary))
    axes = draw_plots(ranked(tmp_path))["pareto"].axes[0]
    assert [text.get_text() for text in axes.texts] == ["zeta 97", "zeta 98", "zeta 100"]


def drawn(figure) -> dict[str, tuple[list, list, list]]:
    """Line's label → x, mean and the ends of its interval, as drawn."""
    found = {}
    for bars in figure.axes[0].containers:
        ends = [segment[:, 1].tolist() for segment in bars.lines[2][0].get_segments()]
        found[bars.get_label()] = (bars.lines[0].get_xdata().tolist(), bars.lines[0].get_ydata().tolist(), ends)
    return found


def test_a_plot_has_a_line_for_each_combination_of_the_other_parameters(board):
    plots = draw_plots(board)
    assert [name for name in plots if name.startswith("psnr")] == ["psnr-by-zeta", "psnr-by-steps"]  # t_star never varied
    by_zeta = drawn(plots["psnr-by-zeta"])
    assert list(by_zeta) == ["steps 50", "steps 1000"] and plots["psnr-by-zeta"].axes[0].get_title(loc="left") == "PSNR (dB) ↑ by zeta: dps"
    assert list(drawn(plots["psnr-by-steps"])) == ["dps, zeta 0.1", "dps, zeta 1", "dps, zeta 3", "sdedit"]
    jobs = [job for job in board.jobs if job.summary and job.config["grid.steps"] == 50 and "solver.zeta" in job.config]
    for x, mean, ends in zip(*by_zeta["steps 50"], strict=True):
        found = next(job for job in jobs if job.config["solver.zeta"] == x).estimate("single", "psnr")
        assert mean == pytest.approx(found.mean) and ends == pytest.approx([found.low, found.high])
    assert by_zeta["steps 50"][0] == [0.1, 1.0, 3.0]
    figure = plots["psnr-by-zeta"]
    figure.draw_without_rendering()
    low, high = figure.axes[0].get_ylim()
    assert all(low < end < high for line in by_zeta.values() for pair in line[2] for end in pair)


@pytest.mark.parametrize(
    ("values", "scale"),
    [((1, 10), "linear"), ((1, 10.5), "log"), ((0, 5), "linear"), ((0, 1, 20), "symlog"), ((-1, 1, 20), "linear"), ((0.001, 0.1), "log")],
)
def test_the_axis_is_logarithmic_beyond_a_decade(values, scale):
    estimates = [Estimate(float(i), 0.1, i - 0.2, i + 0.2, 4) for i, _ in enumerate(values)]
    axes = metric_plot([Line("", values, estimates)], "x", "y", "z").axes[0]
    assert axes.get_xscale() == scale
    assert axes.get_xlim()[0] < min(values) and axes.get_xlim()[1] > max(values)
    assert axes.get_xticks().tolist() == list(values)
    points = [Point("", x + 2, found, True) for x, found in zip(values, estimates, strict=True)]
    assert pareto_plot(points, "x", "y", "z").axes[0].get_xscale() in ("linear", "log")


def test_labels_do_not_overlap_and_stay_inside_the_frame():
    points = [Point(f"a job with a name {i}", 1.0 + i / 50, Estimate(20.0 + i / 50, None, None, None, 1), True) for i in range(4)]
    figure = pareto_plot([*points, Point("", 5.0, Estimate(15.0, 1.0, 13.0, 17.0, 3), False)], "x", "y", "z")
    axes = figure.axes[0]
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts]
    frame = axes.get_window_extent()
    assert len(boxes) == 4 and all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_what_a_label_hides_is_the_area_it_shares_with_others_and_its_area_outside_the_frame():
    """Against matplotlib's own intersection of two boxes."""
    draw = np.random.default_rng(0)

    def drawn(count: int) -> np.ndarray:
        corners = draw.uniform(0, 100, (count, 2))
        return np.hstack([corners, corners + draw.uniform(0, 40, (count, 2))])

    def shared(a: np.ndarray, b: np.ndarray) -> float:
        found = Bbox.intersection(Bbox.from_extents(*a), Bbox.from_extents(*b))
        return 0.0 if found is None else found.width * found.height

    boxes, others, frame = drawn(20), drawn(30), np.array([10.0, 10.0, 90.0, 90.0])
    expected = [sum(shared(box, other) for other in others) + 10 * (shared(box, box) - shared(box, frame)) for box in boxes]
    np.testing.assert_allclose(_covered(boxes, others, frame), expected, atol=1e-9)


def test_a_plot_becomes_a_png_file_or_an_svg_element(tmp_path):
    figure = metric_plot([Line("a < b & c", [1, 2], [Estimate(1.0, None, None, None, 1)] * 2)] * 2, "x", "y", "z")
    (tmp_path / "a.png").write_bytes(png(figure))
    assert Image.open(tmp_path / "a.png").size[0] > 900
    text = inline_svg(figure, "name")
    assert text.startswith("<svg") and text.rstrip().endswith("</svg>") and "a &lt; b &amp; c" in text
    assert not any(colour in text for colour in PAGE_COLOURS)
    other = inline_svg(figure, "another name")
    assert HtmlPage(text).ids and not set(HtmlPage(text).ids) & set(HtmlPage(other).ids)
