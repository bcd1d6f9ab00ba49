"""report.html in a real browser: what it shows, how it reacts, and that no text of a run becomes markup or a request."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml
from browser import Browser
from PIL import Image, ImageFilter

from diffusion_priors.evaluation.reporting import charts as plots
from diffusion_priors.evaluation.reporting import html as page_template
from diffusion_priors.evaluation.reporting import run_images as report_images
from diffusion_priors.evaluation.reporting import run_page as report
from diffusion_priors.evaluation.reporting.figure import figure_tiles
from diffusion_priors.evaluation.reporting.image_records import read_images
from diffusion_priors.evaluation.reporting.run_images import cards_of, representative
from diffusion_priors.evaluation.reporting.run_page import write_report
from diffusion_priors.evaluation.statistics import estimate

FACES = sorted((Path(__file__).parents[3] / "examples" / "faces").glob("*.png"))
HOSTILE = ("<img src=x onerror=alert(1)>", "</script><script>alert(2)</script>", '"><svg onload=alert(3)>', "{{ 7 * 7 }} & ünï %2F #?")


def psnr(x: np.ndarray, truth: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((x / 255.0 - truth / 255.0) ** 2)))


def save(path: Path, x: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(x.clip(0, 255).round().astype(np.uint8)).save(path)


class Run:
    """The folder of a run over images called `names`, made of the example faces, `size` pixels wide and high."""

    metrics = ("psnr", "ssim", "lpips")

    def __init__(
        self, root: Path, names: Sequence[str], samples: int = 1, size: int = 48, truth: bool = True, measured: bool = True
    ) -> None:
        self.root, self.names, self.samples, self.size = root, names, samples, size
        self.truth, self.measured = truth, measured
        self.rng = np.random.default_rng(0)
        self.records: list[dict] = []
        self.posterior: list[dict] = []
        for number, name in enumerate(names):
            self.add(number, name)

    def add(self, number: int, name: str) -> None:
        folder = self.root / "images" / name
        with Image.open(FACES[number % len(FACES)]) as face:
            whole = face.convert("RGB").resize((self.size, self.size))
        truth = np.asarray(whole, dtype=np.float64)
        small = np.asarray(whole.resize((self.size // 4, self.size // 4), Image.Resampling.BOX), dtype=np.float64)
        given = small + self.rng.normal(0, 6, small.shape)
        soft = np.asarray(whole.filter(ImageFilter.GaussianBlur(1 + number % 5)), dtype=np.float64)
        made = [soft + self.rng.normal(0, 4 + number % 3, soft.shape) for _ in range(self.samples)]
        if self.truth:
            save(folder / "truth.png", truth)
        if self.measured:
            save(folder / "measurement.png", given)
        for sample, x in enumerate(made):
            save(folder / f"restoration-{sample}.png", x)
            self.records.append(self.record(name, number, sample, self.scores(x, truth), given.repeat(4, 0).repeat(4, 1), truth))
        if self.samples > 1:
            mean, std = np.mean(made, axis=0), np.std(made, axis=0)
            save(folder / "mean.png", mean)
            save(folder / "std.png", std.mean(-1) * 12)
            line = {"id": name, "samples": self.samples, **self.scores(mean, truth), "deviation": float(std.mean() / 255)}
            self.posterior.append(line)

    def scores(self, x: np.ndarray, truth: np.ndarray) -> dict:
        if not self.truth:
            return dict.fromkeys(self.metrics)
        value = psnr(x, truth)
        return {"psnr": value, "ssim": value / 40, "lpips": None}

    def record(self, name: str, number: int, sample: int, scores: dict, given: np.ndarray, truth: np.ndarray) -> dict:
        measured = {f"{key}_measurement": value for key, value in self.scores(given, truth).items()}
        if not self.measured:
            measured = dict.fromkeys(measured)
        cost = {"nfe_forward": 250, "nfe_vjp": 250, "seconds": 1.5 + 0.01 * number, "peak_memory_mib": 812.4}
        problem = {"residual": 0.05 + 0.001 * number, "sigma_y": 0.05, "measurement_hash": f"{number:016x}"}
        if not self.measured:
            problem = dict.fromkeys(problem)
        return {"id": name, "sample": sample, "seed": 0} | scores | measured | cost | problem | {"error": None}

    def fail(self, name: str, sample: int, error: str) -> None:
        record = next(r for r in self.records if (r["id"], r["sample"]) == (name, sample))
        record |= dict.fromkeys((*self.metrics, "residual")) | {"error": error}
        (self.root / "images" / name / f"restoration-{sample}.png").unlink()

    def write(self, **changes: object) -> Path:
        """config.yaml, records.jsonl, posterior.jsonl and summary.json; `changes` go into the summary."""
        self.root.mkdir(parents=True, exist_ok=True)
        config = {
            "seed": 0,
            "solver": {"_target_": "diffusion_priors.solvers.dps.DPS", "zeta": 1.0},
            "data": {"root": "faces <b>of</b> & </script>"},
        }
        source = {"python": "3.11.7", "packages": {"torch": "2.8.0"}, "git": {"commit": "0123456789abcdef", "dirty": True}}
        command = "python evaluate.py solver=dps operator=super_resolution data.root='faces <b>of</b> & </script>'"
        settings = {"config": config, "choices": {"solver": "dps"}, "overrides": ["solver=dps"], "command": command, "source": source}
        (self.root / "config.yaml").write_text(yaml.safe_dump(settings))
        (self.root / "records.jsonl").write_text("".join(json.dumps(r) + "\n" for r in self.records))
        if self.posterior:
            (self.root / "posterior.jsonl").write_text("".join(json.dumps(r) + "\n" for r in self.posterior))
        (self.root / "summary.json").write_text(json.dumps(self.summary() | changes))
        return self.root

    def summary(self) -> dict:
        def row(found: list[dict], *keys: str, suffix: str = "") -> dict:
            own = [[record for record in found if record["id"] == name] for name in self.names]
            made = {key: [estimate([record[key + suffix] for record in records]) for records in own] for key in keys}
            means = {key: estimate([one and one.mean for one in values]) for key, values in made.items()}
            return {key: None if value is None else value.to_dict() for key, value in means.items()}

        rows = {
            "measurement": row(self.records, *self.metrics, suffix="_measurement"),
            "single": row(self.records, *self.metrics, "residual"),
        }
        if self.samples > 1:
            rows |= {"posterior_mean": row(self.posterior, *self.metrics), "best_of_n": row(self.posterior, *self.metrics)}
        seconds = row(self.records, "seconds")["seconds"]
        return {
            "title": "dps · super_resolution · sigma_y 0.05 in [-1, 1] = 0.025 in [0, 1] · faces64 · 250 steps",
            "complete": True,
            "images": len(self.names),
            "records": len(self.records),
            "failed": sum(r["error"] is not None for r in self.records),
            "num_samples": self.samples,
            "metrics": list(self.metrics),
            "statistics": rows,
            "cost": {"nfe_forward": 250.0, "nfe_vjp": 250.0, "seconds": seconds, "peak_memory_mib": 812.4},
            "sigma_y": 0.05 if self.measured else None,
            "measurements": "00112233aabbccdd" if self.measured else None,
            "footnote": "LPIPS: its trunk is not here <i>at all</i>",
        }


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Browser]:
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def usual(tmp_path_factory) -> Path:
    """Twelve images with three samples each, one of which failed."""
    run = Run(tmp_path_factory.mktemp("usual"), [f"face-{i}" for i in range(12)], samples=3)
    run.fail("face-4", 1, "ValueError: x0 holds NaN at step 17\n  of <b>250</b>")
    return write_report(run.write())


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Path:
    """Markup in every text that a user can write: names, an error, the configuration, the title."""
    run = Run(tmp_path_factory.mktemp("hostile"), HOSTILE, samples=2)
    run.fail(HOSTILE[1], 0, "</pre><script>alert(4)</script><img src=x onerror=alert(5)>")
    return write_report(run.write(title="<script>alert(6)</script> & more"))


@pytest.fixture(scope="module")
def colours(tmp_path_factory) -> Path:
    """Two images whose measurement is red, restoration green and truth blue."""
    run = Run(tmp_path_factory.mktemp("colours"), ["first", "second"], size=32)
    for name, colour in (("measurement", (255, 0, 0)), ("restoration-0", (0, 255, 0)), ("truth", (0, 0, 255))):
        for folder in (run.root / "images").iterdir():
            save(folder / f"{name}.png", np.full((32, 32, 3), colour, dtype=np.float64))
    return write_report(run.write())


@pytest.fixture(scope="module")
def no_truth(tmp_path_factory) -> Path:
    return write_report(Run(tmp_path_factory.mktemp("no_truth"), ["a", "b"], truth=False).write())


@pytest.fixture(scope="module")
def unconditional(tmp_path_factory) -> Path:
    run = Run(tmp_path_factory.mktemp("unconditional"), ["prior"], samples=12, truth=False, measured=False)
    return write_report(run.write())


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
    run = Run(tmp_path, ["a", "b", "c", "d", "e"])
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


RED, GREEN, BLUE = "measurement", "restoration", "truth"


def seen(browser: Browser, tmp_path: Path, across: float, image: int = 1) -> str:
    """What the eye sees at `across` of an image's width, a quarter from its top, away from the round handle."""
    x, y = browser.run(
        f"(() => {{ const s = document.querySelector('#image-{image} .stage'); s.scrollIntoView({{block: 'center'}});"
        f"const b = s.getBoundingClientRect(); return [b.left + {across} * b.width, b.top + b.height / 4]; }})()"
    )
    browser.screenshot(tmp_path / "seen.png")
    with Image.open(tmp_path / "seen.png") as image_of_page:
        r, g, b = image_of_page.convert("RGB").getpixel((round(x), round(y)))
    return {(True, False, False): RED, (False, True, False): GREEN, (False, False, True): BLUE}[(r > 128, g > 128, b > 128)]


def test_the_edge_of_an_image_moves_by_mouse_and_keys(colours, browser, tmp_path):
    browser.open(colours)
    assert [seen(browser, tmp_path, x) for x in (0.1, 0.45, 0.55, 0.9)] == [RED, RED, GREEN, GREEN]
    browser.click("#image-1 .stage", across=0.8)
    assert [seen(browser, tmp_path, x) for x in (0.1, 0.75, 0.85)] == [RED, RED, GREEN]
    assert seen(browser, tmp_path, 0.75, image=2) == GREEN
    assert abs(int(browser.run("document.querySelector('#image-1 input[type=range]').value")) - 80) <= 1
    browser.run("document.querySelector('#image-1 input[type=range]').focus()")
    browser.press("Home")
    assert [seen(browser, tmp_path, x) for x in (0.02, 0.9)] == [GREEN, GREEN]
    browser.press("End")
    assert [seen(browser, tmp_path, x) for x in (0.1, 0.98)] == [RED, RED]


def test_each_shot_has_its_own_scores(usual, browser):
    browser.open(usual)
    record = read_images(usual.parent)["face-3"]
    (card,) = [card for card in cards_of(read_images(usual.parent)) if card.id == "face-3"]
    own, posterior = record.records[1], record.posterior
    expected = {
        "Measurement": f"PSNR {own['psnr_measurement']:.2f} dB · SSIM {own['ssim_measurement']:.3f}",
        "Sample 1": f"PSNR {own['psnr']:.2f} dB · SSIM {own['ssim']:.3f} · residual {own['residual']:.4f}",
        "Mean": f"PSNR {posterior['psnr']:.2f} dB · SSIM {posterior['ssim']:.3f}",
        "Deviation": f"mean {posterior['deviation']:.4f}",
        "Truth": "",
    }
    labels = f"[...document.querySelectorAll('#image-{card.number} .strip label')]"
    found = dict(browser.run(f"{labels}.map(label => [label.querySelector('.name').textContent, label.dataset.scores])"))
    assert {name: found[name] for name in expected} == expected


def test_an_image_shows_what_is_chosen_and_never_the_same_on_both_sides(colours, browser, tmp_path):
    browser.open(colours)
    browser.click("#image-1 .strip label:nth-of-type(3)")
    assert [seen(browser, tmp_path, x) for x in (0.25, 0.75)] == [RED, BLUE]
    assert browser.run("document.querySelector('#image-1 .caption').textContent").strip() == "Truth"
    browser.press("ArrowLeft")  # the radio buttons are walked with the arrow keys
    assert [seen(browser, tmp_path, x) for x in (0.25, 0.75)] == [RED, GREEN]
    assert "PSNR" in browser.run("document.querySelector('#image-1 .caption').textContent")
    browser.press("ArrowLeft")  # the measurement, which the other half showed
    assert [seen(browser, tmp_path, x) for x in (0.25, 0.75)] == [GREEN, RED]
    assert browser.run("document.querySelector('#image-1 .wipe select').value") == "restoration-0"
    assert [seen(browser, tmp_path, x, image=2) for x in (0.25, 0.75)] == [RED, GREEN]


def choose(browser: Browser, selector: str, value: str) -> None:
    browser.run(
        f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.value = {json.dumps(value)};"
        "e.dispatchEvent(new Event('input', {bubbles: true})); e.dispatchEvent(new Event('change', {bubbles: true})); })()"
    )


def test_all_images_can_be_changed_at_once(colours, browser, tmp_path):
    browser.open(colours)
    choose(browser, "#show-all", "truth")
    choose(browser, "#against-all", "restoration-0")
    assert [[seen(browser, tmp_path, x, image) for x in (0.25, 0.75)] for image in (1, 2)] == [[GREEN, BLUE]] * 2
    choose(browser, "#wipe-all", "90")
    assert [seen(browser, tmp_path, 0.85, image) for image in (1, 2)] == [GREEN, GREEN]
    browser.click("#image-1 .strip label:nth-of-type(1)")
    assert browser.run("document.querySelector('#show-all').value") == ""


def test_an_image_can_be_enlarged_and_small_images_keep_their_pixels(usual, browser):
    browser.open(usual)
    width = "document.querySelector('#image-1 .stage').clientWidth"
    small = browser.run(width)
    assert small >= 256
    browser.click("#image-1 .enlarge")
    assert browser.run(width) > 1.5 * small
    assert browser.run("document.querySelector('#image-1 .enlarge').getAttribute('aria-pressed')") == "true"
    assert browser.run("getComputedStyle(document.querySelector('#image-1 .stage img')).imageRendering") == "pixelated"


def test_large_images_are_smoothed(tmp_path, browser):
    browser.open(write_report(Run(tmp_path, ["a"], size=256).write()))
    rendering = "[...document.querySelectorAll('.stage img')].map(image => getComputedStyle(image).imageRendering)"
    assert browser.run(rendering) == ["auto", "pixelated"]  # the restoration; the measurement of a quarter the size


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
    run = Run(tmp_path, ["a", "b", "c"])
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
    run = Run(tmp_path, [*HOSTILE, "plain"])
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
    run = Run(tmp_path, [f"{i:03}" for i in range(count)], size=16)
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
    run = Run(tmp_path, ["a", "b", "c"], size=16, truth=False)
    assert [image.id for image in representative(cards_of(read_images(run.write())), 2)] == ["a", "b"]


def test_bytes_samples_and_failures_are_limited(tmp_path, browser, monkeypatch):
    run = Run(tmp_path, ["a", "b", "c"], samples=4)
    for name in ("b", "c"):
        run.fail(name, 0, f"broken {name}")
    root = run.write()
    monkeypatch.setattr(report_images, "SAMPLES", 2)
    monkeypatch.setattr(report, "FAILURES", 1)
    browser.open(write_report(root))
    articles = browser.run("[...document.querySelectorAll('article')].map(article => article.innerText)")
    assert ["2 more samples" in text for text in articles] == [True, False, False]
    assert ["1 more samples" in text for text in articles] == [False, True, True]
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


def test_a_single_unconditional_sample_has_nothing_to_compare_with(tmp_path, browser):
    browser.open(write_report(Run(tmp_path, ["0", "1", "2"], truth=False, measured=False).write()))
    assert browser.complaints == []
    assert browser.run("document.querySelectorAll('.stage img')[0].naturalWidth") == 48
    hidden = "[...document.querySelectorAll('.wipe, .strip, .edge, .upper, .bar')].every(e => e.getClientRects().length === 0)"
    assert browser.run(hidden)


def test_a_run_without_images_on_disk_still_has_its_scores(tmp_path, browser):
    root = Run(tmp_path, ["a", "b"]).write()
    for path in root.rglob("*.png"):
        path.unlink()
    browser.open(write_report(root))
    assert browser.complaints == []
    assert "No image" in browser.run("document.querySelector('#compare').innerText")
    assert len(column(browser, "Image")) == 2


def test_images_are_visible_without_scripts(usual, browser):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(usual, 390, 844)
        assert browser.run("[...document.querySelectorAll('.strip img')].every(image => image.clientWidth > 60)")
        assert browser.run("document.querySelectorAll('.bar, .stage, .wipe')[0].getClientRects().length") == 0
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


def test_an_unfinished_run_says_so(tmp_path, browser):
    browser.open(write_report(Run(tmp_path, ["a"]).write(complete=False)))
    assert "not complete" in browser.run("document.querySelector('header').innerText")


def test_records_can_be_given_and_a_missing_summary_is_an_error(tmp_path):
    run = Run(tmp_path, ["a", "b"])
    root = run.write()
    (root / "records.jsonl").unlink()
    assert "#image-2" in write_report(root, records=run.records).read_text()
    (root / "summary.json").unlink()
    with pytest.raises(FileNotFoundError, match="summary"):
        write_report(root)


class Html(HTMLParser):
    """The elements of a page: (tag, attributes), and its text."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str, key: str) -> list[str]:
        return [attributes[key] for name, attributes in self.elements if name == tag and key in attributes]


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
    run = Run(tmp_path, ["a", "b"])
    for record in run.records:
        record |= dict.fromkeys(key for key in record if key.endswith("_measurement"))
        (tmp_path / "images" / record["id"] / "measurement.png").rename(tmp_path / "images" / record["id"] / "measurement.safetensors")
    root = run.write()
    page = Html(write_report(root))
    assert page.all("input", "value").count("restoration-0") == page.all("input", "value").count("truth") == 2
    assert "measurement" not in page.all("input", "value") and "in the units of y" in page.text
    headings = [column.of for column in report.columns([card.results for card in cards_of(read_images(root))], Run.metrics)]
    assert headings.count("restoration") == 3 and "measurement" not in headings
    for name in ("a", "b"):
        (root / "images" / name / "truth.png").unlink()
    assert [shot.name for shot in report_images.load_shots(root, cards_of(read_images(root)), (), 8)[0].shots] == ["Restoration"]


def test_a_figure_without_the_image_of_a_measurement_shows_the_others(tmp_path):
    run = Run(tmp_path, ["a", "b"], size=16)
    for path in tmp_path.glob("images/*/measurement.png"):
        path.rename(path.with_suffix(".safetensors"))
    (first, second) = figure_tiles(run.write(), run.records, 8, 4)
    assert [text.split("\n")[0] for text, _ in first] == [text.split("\n")[0] for text, _ in second] == ["truth", "sample 0"]


def test_what_a_solver_reports_of_itself_is_a_column(tmp_path):
    run = Run(tmp_path, ["a", "b"], samples=2, size=16)
    for record, ess in zip(run.records, (2.0, 3.0, None, None), strict=True):
        record["info"] = {} if ess is None else {"ess": ess}
    found = {column.heading: column for column in report.columns(list(read_images(run.write()).values()), Run.metrics)}
    assert found["ess"].of == "of the solver"
    assert [found["ess"].value(image) for image in read_images(tmp_path).values()] == [2.5, None]


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
