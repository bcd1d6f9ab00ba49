"""The plots of a sweep over exact problems: nothing is cut off, axes have names, and every sample is seen or counted."""

from __future__ import annotations

import re

import matplotlib
import numpy as np
import pytest

from diffusion_priors.evaluation.exact import plots
from diffusion_priors.evaluation.exact.overview import overview
from diffusion_priors.evaluation.reporting.charts import PAGE_COLOURS, STYLE, inline_svg


@pytest.fixture(autouse=True)
def style():
    with matplotlib.rc_context(STYLE):
        yield


EXACT = np.random.default_rng(0).normal(size=(200, 2))
FAR = {"near": 1.0, "wide": 2.0, "diverged": 1e15}


def labelled(count: int) -> list[tuple[str, float]]:
    names = [f"solver_{k} zeta=0.{k} gamma=0.3 scale=1.0" for k in range(count)]
    return list(zip(names, [*FAR.values(), *[1.0] * count], strict=False))


def drawn(kind: str, count: int):
    rng = np.random.default_rng(1)
    if kind == "clouds":
        return plots.clouds(
            "random_16", [(label, {"exact": EXACT, "samples": far * rng.normal(size=(50, 2))}) for label, far in labelled(count)]
        )
    if kind == "ranks":
        return plots.ranks("random_16", [(label, rng.integers(0, 9, (3, 10)).tolist()) for label, _ in labelled(count)])
    image = rng.uniform(size=(3, 64)).astype(np.float32)
    arrays = {"shape": np.array([1, 8, 8]), "y": image[0], "truth": image[0], "mean": image[1], "std": image[2]}
    arrays |= {"sample": image[:1], "solved_mean": image[1], "solved_std": image[2]}
    return plots.maps("box", [(label, arrays) for label, _ in labelled(count)])


@pytest.mark.parametrize("count", [1, 2, 4, 5, 9])
@pytest.mark.parametrize("kind", ["clouds", "ranks", "maps"])
def test_all_text_of_a_figure_lies_within_it_and_the_legend_on_nothing_else(kind, count):
    figure = drawn(kind, count)
    figure.draw_without_rendering()
    whole = figure.bbox
    legend = [one.get_window_extent() for one in figure.legends]
    texts = [figure._suptitle, *(text for axes in figure.axes for text in (axes.title, axes.xaxis.label, axes.yaxis.label))]
    for text in (text for text in texts if text.get_text()):
        box = text.get_window_extent()
        assert whole.x0 <= box.x0 <= box.x1 <= whole.x1 and whole.y0 <= box.y0 <= box.y1 <= whole.y1, text.get_text()
        assert not any(box.overlaps(other) for other in legend), text.get_text()


@pytest.mark.parametrize(
    ("kind", "names"), [("clouds", ("first axis", "second axis")), ("ranks", ("rank of the truth", "share of measurements"))]
)
def test_axes_have_names_at_the_edges_of_the_sheet(kind, names):
    axes = drawn(kind, 6).axes
    assert [panel.get_xlabel() for panel in axes] == ["", "", names[0], names[0], names[0], names[0]]
    assert [panel.get_ylabel() for panel in axes] == [names[1], "", "", "", names[1], ""]


@pytest.mark.parametrize("count", [1, 5, 6, 12, 28])
def test_maps_of_many_solvers_fit_a_page_in_the_order_of_the_table(count):
    """At most seven columns of three images side by side, with `measured` and `truth and exact` first; no panel is empty but those of y."""
    figure = drawn("maps", count)
    titles = [axes.get_title().split("\n")[0] for axes in figure.axes if axes.get_title()]
    assert titles == ["measured", "truth and exact", *(f"solver_{k}" for k in range(count))]
    assert figure.get_figwidth() <= 11.0
    assert sum(len(axes.images) for axes in figure.axes) == 3 * (count + 2) - 2
    assert len(figure.axes) == 3 * (count + 2)
    rows = {round(axes.get_subplotspec().rowspan.start) for axes in figure.axes}
    assert rows == {*range(3 * -(-(count + 2) // 7))}


def test_every_sample_is_within_the_axes_and_those_beyond_are_counted():
    figure = drawn("clouds", 3)
    for axes, name in zip(figure.axes, FAR, strict=True):
        (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
        points = np.concatenate([found.get_offsets() for found in axes.collections])
        assert len(points) == len(EXACT) + 50
        assert ((points >= (x0, y0)) & (points <= (x1, y1))).all()
        counted = re.search(r"(\d+) samples? beyond the frame", axes.get_title())
        assert (counted is not None and int(counted[1]) > 45) == (name == "diverged")
    assert len({axes.get_xlim() for axes in figure.axes}) == 1


def test_samples_that_are_not_finite_are_left_out():
    samples = np.array([[0.0, 0.0], [np.nan, 0.0], [np.inf, 1.0]])
    figure = plots.clouds("random_2", [("dps", {"exact": EXACT, "samples": samples})])
    assert sum(len(found.get_offsets()) for found in figure.axes[0].collections) == len(EXACT) + 1


def test_on_a_page_text_and_axes_follow_its_colours():
    for kind in ("clouds", "ranks", "maps"):
        text = str(inline_svg(drawn(kind, 2), kind))
        assert "var(--soft)" in text and "fill: #ffffff" not in text
        assert not [colour for colour in PAGE_COLOURS if f"stroke: {colour}" in text or f"fill: {colour}" in text]


def run(solver: str, problem: str, w2: float | None, spread: float | None = 1.0) -> dict:
    return {"solver": solver, "problem": problem, "distances": {"w2": w2, "spread": spread}, "floor": {"w2": 0.2}}


def test_the_overview_ranks_solvers_by_their_distances_and_takes_the_best_run_of_each():
    runs = [run("far", "box", 4.0), run("near", "box", 0.3, 0.9), run("near", "box", 0.4, 0.7), run("lost", "box", None, None)]
    runs += [run("lost", "blur", None, None), run("far", "blur", 40.0, 1.5), run("near", "blur", 0.2)]
    figure = overview(sorted(runs, key=lambda one: (one["problem"], one["distances"]["w2"] or float("inf"))))
    left, right = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["near", "far", "lost"]
    assert [label.get_text() for label in left.get_xticklabels()] == ["blur", "box"]
    cells = [{text.get_position(): text.get_text() for text in axes.texts} for axes in (left, right)]
    assert cells[0] == {(0, 0): "1.0", (1, 0): "1.5", (0, 1): "> 100", (1, 1): "20.0"}
    assert cells[1] == {(0, 0): "1.00", (1, 0): "0.90", (0, 1): "1.50", (1, 1): "1.00"}


@pytest.mark.parametrize("problems", [1, 2, 8])
def test_no_title_of_the_overview_covers_another(problems):
    figure = overview([run(f"solver_{k}", f"problem_{p}", 0.2 + k) for p in range(problems) for k in range(28)])
    figure.draw_without_rendering()
    boxes = [figure._suptitle.get_window_extent(), *(axes.title.get_window_extent() for axes in figure.axes)]
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)
    assert not any(one.overlaps(other) for k, one in enumerate(boxes) for other in boxes[:k])
