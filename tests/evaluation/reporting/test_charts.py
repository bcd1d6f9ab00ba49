"""Charts as SVG elements of a page."""

from __future__ import annotations

import re

import pytest
from html_page import HtmlPage

from diffusion_priors.evaluation.reporting import charts as plots


def heights(drawn: str, colour: str) -> list[float]:
    """Heights of the bars of a colour in a histogram's SVG, those of no height left out."""
    found = []
    for path in re.findall(rf'<path d="([^"]*)" clip-path[^>]*fill: var\(--{colour}\)', drawn):
        numbers = [float(y) for y in re.findall(r"[ML] \S+ (\S+)", path)]
        found.append(max(numbers) - min(numbers))
    return [height for height in found if height > 0]


def test_plots_show_every_image():
    drawn = plots.scatter([10.0, 11.0, 12.0], [20.0, 10.0, 30.0], "x", "y")
    assert "2 of 3 lie above" in drawn
    assert len(re.findall("<use ", drawn)) == 3 + 1  # and the legend's
    drawn = plots.histogram({"restoration": [1.0, 1.0, 5.0, 5.0, 5.0], "measurement": [1.5]}, "PSNR", ("σ_y", 3.0))
    (unit,) = heights(drawn, "second")
    assert [height / unit for height in heights(drawn, "accent")] == pytest.approx([2, 3], abs=1e-3)
    assert "nan" not in plots.histogram({"restoration": [0.0, 0.0]}, "PSNR").lower()


@pytest.mark.parametrize("name", ["histogram", "scatter"])
def test_the_colours_of_a_chart_are_those_of_its_page(name):
    """Text in the colour of small print; and no fixed colour that has one of the page."""
    charts = {
        "histogram": plots.histogram({"restoration": [1.0, 2.0], "measurement": [1.5]}, "PSNR", ("σ_y", 3.0)),
        "scatter": plots.scatter([1.0, 2.0], [2.0, 1.0], "x", "y"),
    }
    texts = re.findall(r"<text[^>]*>", charts[name])
    assert texts and all("fill: var(--soft)" in text for text in texts)
    assert [colour for colour in plots.PAGE_COLOURS if colour in charts[name]] == []


def test_charts_of_one_page_share_no_id():
    first, second = (HtmlPage(plots.scatter([1.0, 2.0], [2.0, 1.0], label, "y")).ids for label in ("x", "another x"))
    assert first and len(first) == len(set(first)) and not set(first) & set(second)
