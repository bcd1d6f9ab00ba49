"""report.html in a real browser: what it shows, how it reacts, and that no text of a run becomes markup or a request."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from browser import Browser
from written_run import HOSTILE, WrittenRun

from diffusion_priors.evaluation.reporting import charts as plots
from diffusion_priors.evaluation.reporting import run_images as report_images
from diffusion_priors.evaluation.reporting import run_page as report
from diffusion_priors.evaluation.reporting.run_page import write_report

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("page", ["usual", "hostile", "colours", "no_truth", "unconditional"])
@pytest.mark.parametrize(("width", "height", "dark"), [(1280, 900, False), (390, 844, True)])
def test_a_page_loads_without_complaints_or_requests_and_fits_the_window(page, width, height, dark, browser, request):
    path = request.getfixturevalue(page)
    browser.open(path, width, height, dark)
    browser.run("scrollTo(0, document.body.scrollHeight)")
    assert browser.complaints == []
    assert browser.requests == [path.resolve().as_uri()]
    assert browser.run("innerWidth") == width
    assert browser.run("Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)") <= width
    assert browser.run("[...document.images].every(image => image.complete && image.naturalWidth > 0)")


@pytest.mark.parametrize("page", ["usual", "hostile", "unconditional"])
def test_every_control_has_a_name_and_ids_are_unique(page, browser, request):
    browser.open(request.getfixturevalue(page))
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    names = [(node["role"]["value"], node.get("name", {}).get("value")) for node in nodes if not node.get("ignored")]
    worked = [entry for entry in names if entry[0] in ("button", "link", "slider", "radio", "combobox", "image", "table", "region")]
    assert len(worked) > 10
    assert [entry for entry in worked if not entry[1] and entry[0] not in ("table", "image")] == []
    ids = browser.run("[...document.querySelectorAll('[id]')].map(element => element.id)")
    assert len(ids) == len(set(ids))


CONTRAST = """(() => {
  const styles = getComputedStyle(document.documentElement);
  const light = name => {
    const parts = styles.getPropertyValue(name).trim().match(/[0-9a-f]{2}/g).map(part => parseInt(part, 16) / 255);
    const linear = parts.map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const found = [];
  for (const [inks, papers] of [[["--ink", "--soft", "--accent"], ["--page", "--card", "--shade"]], [["--bad"], ["--card", "--bad-shade"]]])
    for (const ink of inks) for (const paper of papers) {
      const [dim, bright] = [light(ink), light(paper)].sort((a, b) => a - b);
      found.push((bright + 0.05) / (dim + 0.05));
    }
  return Math.min(...found);
})()"""


@pytest.mark.parametrize("dark", [False, True])
def test_text_is_legible_in_both_schemes(dark, browser, usual):
    """WCAG 2.2, 1.4.3: a contrast of at least 4.5; and the plots take the page's colours."""
    browser.open(usual, dark=dark)
    assert browser.run(CONTRAST) >= 4.5
    fills = browser.run("[...document.querySelectorAll('svg.plot text')].map(text => getComputedStyle(text).fill)")
    soft = browser.run("(() => { const p = document.querySelector('p.note'); return getComputedStyle(p).color; })()")
    assert set(fills) == {soft}
    assert [colour for colour in plots.PAGE_COLOURS if colour in usual.read_text()] == []


def column(browser: Browser, heading: str) -> list[str]:
    """The texts of a column of the table of images, by the beginning of its heading's text."""
    return browser.run(
        "(() => { const table = document.querySelector('table.scores');"
        f"const i = [...table.tHead.rows[0].cells].findIndex(cell => cell.textContent.startsWith({json.dumps(heading)}));"
        "return [...table.tBodies[0].rows].map(row => row.cells[i].textContent.trim()); })()"
    )


def test_the_table_sorts_by_number_in_both_directions_with_missing_values_last(tmp_path, browser):
    run = WrittenRun(tmp_path, ["a", "b", "c", "d", "e"])
    for record, value in zip(run.records, (10.5, -3.25, None, -12.5, 2e-5), strict=True):
        record["psnr"] = record["psnr_measurement"] = value
    run.records[2] |= {"error": "broken"}
    browser.open(write_report(run.write()))
    assert column(browser, "Image") == ["a", "b", "c", "d", "e"]
    header = "document.querySelector('table.scores thead th:nth-child(2)')"
    assert browser.run(f"{header}.getAttribute('aria-sort')") is None
    browser.click("table.scores thead th:nth-child(2) button")
    assert column(browser, "PSNR") == ["−12.50", "−3.25", "0.00", "10.50", "–"]
    assert browser.run(f"{header}.getAttribute('aria-sort')") == "ascending"
    browser.press("Enter")  # the heading kept the focus
    assert column(browser, "PSNR") == ["10.50", "0.00", "−3.25", "−12.50", "–"]
    assert column(browser, "Image") == ["a", "e", "b", "d", "c"]
    assert browser.run(f"{header}.getAttribute('aria-sort')") == "descending"
    browser.click("table.scores thead th:first-child button")
    assert column(browser, "Image") == ["a", "b", "c", "d", "e"]
    assert browser.run(f"{header}.getAttribute('aria-sort')") is None


def test_names_sort_by_the_numbers_in_them(usual, browser):
    browser.open(usual)
    assert column(browser, "Image")[:3] == ["face-0", "face-1", "face-10"]
    browser.click("table.scores thead th:first-child button")
    assert column(browser, "Image") == [f"face-{i}" for i in range(12)]


def test_a_row_links_to_its_image(usual, browser):
    browser.open(usual)
    browser.click("#row-9 th a")
    assert browser.run("location.hash") == "#image-9"
    top = browser.run("document.querySelector('#image-9').getBoundingClientRect().top")
    assert 0 <= top < 450
    bar = browser.run("document.querySelector('.bar').getBoundingClientRect().bottom")
    assert bar <= top
    name = browser.run("document.querySelector('#image-9 h3').textContent")
    assert browser.run("document.querySelector('#row-9 th').textContent").strip() == name


def test_the_summary_shows_every_statistic_with_error_interval_and_label(usual, browser):
    browser.open(usual)
    text = browser.run("document.querySelector('#summary').innerText")
    summary = json.loads((usual.parent / "summary.json").read_text())
    for found in summary["statistics"].values():
        psnr = found["psnr"]
        assert f"{psnr['mean']:.2f} ± {psnr['se']:.2f}" in text
        assert f"[{psnr['low']:.2f}, {psnr['high']:.2f}]" in text
    for label in ("Measurement", "Single sample", "Posterior mean", "Best of 3"):
        assert label in text
    assert "LPIPS ↓" not in text and "LPIPS: its trunk is not here <i>at all</i>" in text
    assert "812 MiB" in text and "1.5" in text
    failed = browser.run("document.querySelector('#failed tbody').innerText")
    assert "face-4" in failed and "x0 holds NaN at step 17\n  of <b>250</b>" in failed


def test_a_row_over_fewer_images_says_so(tmp_path, browser):
    run = WrittenRun(tmp_path, ["a", "b", "c"])
    run.fail("b", 0, "broken")
    browser.open(write_report(run.write()))
    rows = browser.run("[...document.querySelectorAll('.means tbody tr')].map(row => row.innerText)")
    assert ["of 2" in row for row in rows] == [False, True]
    assert "Restoration" in rows[1]


def test_the_page_shows_configuration_versions_and_command(usual, browser):
    browser.open(usual)
    text = browser.run("document.querySelector('#configuration').textContent")
    settings = yaml.safe_load((usual.parent / "config.yaml").read_text())
    assert settings["command"] in text
    assert yaml.safe_load(browser.run("document.querySelector('#configuration details pre').textContent")) == settings["config"]
    assert not browser.run("document.querySelector('#configuration details').open")
    assert "2.8.0" in text and "0123456789abcdef, with changes that are not committed" in text


def test_markup_in_the_texts_of_a_run_stays_text(hostile, browser):
    browser.open(hostile)
    assert browser.complaints == []
    assert browser.run("document.title") == "<script>alert(6)</script> & more"
    assert sorted(browser.run("[...document.querySelectorAll('article h3')].map(h => h.textContent)")) == sorted(HOSTILE)
    assert sorted(column(browser, "Image")) == sorted(HOSTILE)
    assert browser.run("document.scripts.length") == 1
    assert browser.run("[...document.querySelectorAll('*')].filter(e => [...e.attributes].some(a => a.name.startsWith('on'))).length") == 0
    assert browser.run("[...document.images].every(image => image.src.startsWith('data:image/png'))")
    assert "<script>alert(4)</script>" in browser.run("document.querySelector('#failed').textContent")


def test_links_lead_into_the_page_or_to_files_next_to_it(tmp_path, browser):
    run = WrittenRun(tmp_path, [*HOSTILE, "plain"])
    browser.open(write_report(run.write(), images=1))
    links = browser.run("[...document.querySelectorAll('a')].map(link => link.getAttribute('href'))")
    assert all(link.startswith(("#", "images/")) for link in links)
    targets = browser.run(
        "[...document.querySelectorAll('a')].filter(link => link.hash).filter(l => !document.querySelector(l.hash)).length"
    )
    assert targets == 0
    folders = browser.run("[...document.querySelectorAll('th a[href^=images]')].map(link => decodeURIComponent(link.pathname))")
    assert len(folders) == 4
    assert all(Path(folder).is_dir() for folder in folders)


def numbered(count: int, tmp_path: Path) -> Path:
    """A run of `count` images whose PSNR is a permutation of 0 … count − 1."""
    run = WrittenRun(tmp_path, [f"{i:03}" for i in range(count)], size=16)
    for i, record in enumerate(run.records):
        record["psnr"] = float(7 * i % count)
    return run.write()


def test_a_limited_page_shows_the_first_images_and_the_extremes_and_says_so(tmp_path, browser, monkeypatch):
    monkeypatch.setattr(report, "ROWS", 14)
    browser.open(write_report(numbered(30, tmp_path), images=9))
    shown = browser.run("[...document.querySelectorAll('article h3')].map(h => h.textContent)")
    scores = [7 * int(name) % 30 for name in shown]
    assert len(shown) == 9 and shown == sorted(shown)
    assert {0, 15, 29} <= set(scores)
    assert {"000", "001", "002", "003"} <= set(shown)
    tags = browser.run(
        "[...document.querySelectorAll('article')].map(a => [a.querySelector('h3').textContent, a.querySelector('.tags').innerText.trim()])"
    )
    assert {7 * int(name) % 30: tag for name, tag in tags if tag} == {0: "worst PSNR", 15: "median PSNR", 29: "best PSNR"}
    rows = column(browser, "Image")
    assert len(rows) == 14 and set(shown) <= set(rows)
    assert "9 of 30 images" in browser.run("document.querySelector('#compare').innerText")
    table = browser.run("document.querySelector('#table').innerText")
    assert "14 of 30 images" in table and "records.jsonl" in table


def test_bytes_samples_and_failures_are_limited(tmp_path, browser, monkeypatch):
    run = WrittenRun(tmp_path, ["a", "b", "c"], samples=4)
    for name in ("b", "c"):
        run.fail(name, 0, f"broken {name}")
    root = run.write()
    monkeypatch.setattr(report_images, "SAMPLES", 2)
    monkeypatch.setattr(report, "FAILURES", 1)
    browser.open(write_report(root))
    articles = browser.run("[...document.querySelectorAll('article')].map(article => article.innerText)")
    assert ["2 more samples" in text for text in articles] == [True, False, False]
    assert ["1 more sample in" in text for text in articles] == [False, True, True]
    failed = browser.run("document.querySelector('#failed').innerText")
    assert "broken b" in failed and "broken c" not in failed and "The first 1 of 2" in failed
    monkeypatch.setattr(report_images, "SAMPLES", 8)
    one = sum(path.stat().st_size for path in (root / "images" / "a").glob("*.png"))
    monkeypatch.setattr(report_images, "EMBEDDED_BYTES", int(1.5 * one))
    browser.open(write_report(root))
    assert browser.run("document.querySelectorAll('article').length") == 1
    assert "1 of 3 images" in browser.run("document.querySelector('#compare').innerText")


def test_without_truth_there_are_residuals_and_images(no_truth, browser):
    browser.open(no_truth)
    summary = browser.run("document.querySelector('#summary').innerText")
    assert "Residual" in summary and "0.0505 ±" in summary and "PSNR" not in summary and "Measurement" not in summary
    kinds = browser.run("[...document.querySelectorAll('#image-1 .strip .name')].map(name => name.textContent)")
    assert kinds == ["Measurement", "Restoration"]
    assert column(browser, "Residual") == ["0.0500", "0.0510"]


def test_unconditional_samples_are_all_shown(unconditional, browser):
    browser.open(unconditional)
    assert "Nothing to score" in browser.run("document.querySelector('#summary').innerText")
    kinds = browser.run("[...document.querySelectorAll('.strip .name')].map(name => name.textContent)")
    assert kinds == [*(f"Sample {i}" for i in range(12)), "Mean", "Deviation"]
    assert not browser.run("[...document.querySelectorAll('th')].some(th => /PSNR|Residual/.test(th.textContent))")
    assert browser.run("document.querySelector('#plots')") is None


def test_a_run_without_images_on_disk_still_has_its_scores(tmp_path, browser):
    root = WrittenRun(tmp_path, ["a", "b"]).write()
    for path in root.rglob("*.png"):
        path.unlink()
    browser.open(write_report(root))
    assert browser.complaints == []
    assert "No image" in browser.run("document.querySelector('#compare').innerText")
    assert len(column(browser, "Image")) == 2


def test_an_unfinished_run_says_so(tmp_path, browser):
    browser.open(write_report(WrittenRun(tmp_path, ["a"]).write(complete=False)))
    assert "not complete" in browser.run("document.querySelector('header').innerText")


def test_distances_of_sets_and_calibration_are_shown(usual, browser, tmp_path):
    """Both with their values, and the charts of the calibration."""
    shutil.copytree(usual.parent, tmp_path / "run")
    found = {"mean": 0.412, "se": 0.01, "low": 0.39, "high": 0.43, "n": 3}
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    summary["distribution"] = {"fid": 12.34567, "kid": -0.001, "kid_std": 0.002}
    groups = [{"share": 0.5, "predicted": 0.01, "error": 0.02, "coverage": {"0.5": 0.4}}] * 2
    ranks = [{"nominal": 0.6, **found}, {"nominal": 0.2, **found}]
    counted = {"images": 3, "samples": 4, "coverage": {"0.5": found}, "rank_coverage": ranks, "correlation": found, "groups": groups}
    browser.open(write_report(tmp_path / "run", summary=summary | {"calibration": counted}))
    text = browser.run("document.querySelector('#summary').innerText")
    assert "12.35" in text and "−0.001" in text and "41.2 ± 1.0 %" in text and "50 % intervals" in text
    drawn = browser.run("[...document.querySelectorAll('#plots svg')].map(plot => plot.getAttribute('aria-label'))")
    assert any("60% intervals cover 41%" in label for label in drawn) and "Error against predicted deviation." in drawn
