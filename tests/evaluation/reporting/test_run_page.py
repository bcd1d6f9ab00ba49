"""What report.html is made of, without a browser."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import yaml
from html_page import HtmlPage
from written_run import WrittenRun

from diffusion_priors.evaluation.reporting import html as page_template
from diffusion_priors.evaluation.reporting import run_images as report_images
from diffusion_priors.evaluation.reporting import run_page as report
from diffusion_priors.evaluation.reporting.image_records import read_images
from diffusion_priors.evaluation.reporting.run_images import cards_of, representative
from diffusion_priors.evaluation.reporting.run_page import write_report
from diffusion_priors.images.io import save_image


@pytest.mark.parametrize("count", [1, 2, 3, 10, 61, 200])
def test_representative_images_hold_the_extremes_and_are_among_those_of_a_larger_limit(count, tmp_path):
    records = [{"id": str(i), "sample": 0, "error": None, "psnr": float(37 * i % 211)} for i in range(count)]
    images = cards_of(read_images(tmp_path, records))
    order = sorted(images, key=lambda card: card.results.records[0]["psnr"])
    before: set[str] = set()
    for limit in (1, 3, 5, 9, 20, 60, 100):
        chosen = [image.id for image in representative(images, limit)]
        assert len(chosen) == len(set(chosen)) == min(count, limit)
        if limit >= 3:
            assert {order[0].id, order[count // 2].id, order[-1].id} <= set(chosen)
        assert before <= set(chosen)
        before = set(chosen)


def test_without_scores_the_first_images_are_shown(tmp_path):
    run = WrittenRun(tmp_path, ["a", "b", "c"], size=16, truth=False)
    assert [image.id for image in representative(cards_of(read_images(run.write())), 2)] == ["a", "b"]


def test_records_can_be_given_and_a_missing_summary_is_an_error(tmp_path):
    run = WrittenRun(tmp_path, ["a", "b"])
    root = run.write()
    (root / "records.jsonl").unlink()
    assert "#image-2" in write_report(root, records=run.records).read_text()
    (root / "summary.json").unlink()
    with pytest.raises(FileNotFoundError, match="summary"):
        write_report(root)


@pytest.mark.parametrize("settings", [{}, {"source": 3}, {"source": {"git": [], "packages": 7}}, {"source": {"git": {}}, "command": [1]}])
def test_a_page_needs_only_the_configuration_of_config_yaml(tmp_path, settings):
    """Others may have written the file."""
    root = WrittenRun(tmp_path, ["a"]).write()
    (root / "config.yaml").write_text(yaml.safe_dump({"config": {"seed": 7}} | settings))
    assert "seed: 7" in write_report(root).read_text()


def test_images_that_cannot_be_read_are_not_on_the_page(tmp_path):
    root = WrittenRun(tmp_path, ["a"]).write()
    whole = write_report(root).read_text().count("data:image/png")
    (root / "images" / "a" / "measurement.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0")
    (root / "images" / "a" / "truth.png").write_bytes((root / "images" / "a" / "truth.png").read_bytes()[:100])
    assert write_report(root).read_text().count("data:image/png") == whole - 2


TEMPLATES = Path(page_template.__file__).parent / "templates"


@pytest.mark.parametrize("sheet", ["base.css", "report.css", "compare.js", "leaderboard.html.j2", "exact_posterior.html.j2"])
def test_every_class_that_a_style_or_a_script_selects_is_in_a_template(sheet):
    """A class renamed on one side only breaks a page without any message."""
    text = (TEMPLATES / sheet).read_text()
    if sheet.endswith(".j2"):
        text = re.search(r"{% block style %}(.*?){% endblock %}", text, re.DOTALL)[1]
    if sheet.endswith(".js"):
        selectors = re.findall(r'querySelector(?:All)?\("([^"]*)"', text)
    else:
        selectors = [rule.rpartition("}")[2] for rule in re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL).split("{")[:-1]]
    selected = {name for selector in selectors for name in re.findall(r"\.([a-z][\w-]*)", selector)}
    templates = " ".join(path.read_text() for path in TEMPLATES.glob("*.j2"))
    given = set(re.findall(r"[\w-]+", " ".join(re.findall(r'class="((?:[^"{]|{[{%].*?[%}]})*)"', templates))))
    scripted = set(re.findall(r'(?:className = |toggle\()"([\w-]+)"', (TEMPLATES / "compare.js").read_text()))
    assert selected and selected - given - scripted - {"plot"} == set()  # charts.inline_svg writes the class plot


def test_a_measurement_that_is_not_an_image_has_no_shot_and_no_scores(tmp_path):
    """Its file is measurement.safetensors; residual and restoration are shown as for any other."""
    run = WrittenRun(tmp_path, ["a", "b"])
    for record in run.records:
        record |= dict.fromkeys(key for key in record if key.endswith("_measurement"))
        (tmp_path / "images" / record["id"] / "measurement.png").rename(tmp_path / "images" / record["id"] / "measurement.safetensors")
    root = run.write()
    page = HtmlPage(write_report(root).read_text())
    assert page.all("input", "value").count("restoration-0") == page.all("input", "value").count("truth") == 2
    assert "measurement" not in page.all("input", "value") and "in the units of y" in page.text
    headings = [column.of for column in report.columns([card.results for card in cards_of(read_images(root))], WrittenRun.metrics)]
    assert headings.count("restoration") == 3 and "measurement" not in headings
    for name in ("a", "b"):
        (root / "images" / name / "truth.png").unlink()
    assert [shot.name for shot in report_images.load_shots(root, cards_of(read_images(root)), (), 8)[0].shots] == ["Restoration"]


def test_what_is_drawn_of_a_measurement_has_its_axes_and_no_scores(tmp_path):
    run = WrittenRun(tmp_path, ["a"], size=16)
    (tmp_path / "images" / "a" / "measurement.png").unlink()
    text = "sinogram; 0° to 174° by detector; black 0, white 1.2"
    save_image(tmp_path / "images" / "a" / "drawing.png", torch.zeros(1, 30, 23), text)
    save_image(tmp_path / "images" / "a" / "first-look.png", torch.zeros(3, 16, 16), "filtered back projection")
    root = run.write()
    shots = report_images.load_shots(root, cards_of(read_images(root)), WrittenRun.metrics, 8)[0].shots
    assert [(shot.kind, shot.scores) for shot in shots[:2]] == [
        ("drawing", ("sinogram", "0° to 174° by detector", "black 0, white 1.2")),
        ("first-look", ("filtered back projection",)),
    ]
    page = HtmlPage(write_report(root).read_text())
    assert "sinogram" in page.text and "filtered back projection" in page.text


def test_what_a_solver_reports_of_itself_is_a_column(tmp_path):
    run = WrittenRun(tmp_path, ["a", "b"], samples=2, size=16)
    for record, ess in zip(run.records, (2.0, 3.0, None, None), strict=True):
        record["info"] = {} if ess is None else {"ess": ess}
    found = {column.heading: column for column in report.columns(list(read_images(run.write()).values()), WrittenRun.metrics)}
    assert found["ess"].of == "of the solver"
    assert [found["ess"].value(image) for image in read_images(tmp_path).values()] == [2.5, None]
