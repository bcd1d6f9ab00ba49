"""The images of report.html in a real browser: choosing, comparing and enlarging them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from browser import Browser
from PIL import Image
from written_run import WrittenRun

from diffusion_priors.evaluation.reporting.image_records import read_images
from diffusion_priors.evaluation.reporting.run_images import cards_of
from diffusion_priors.evaluation.reporting.run_page import write_report

pytestmark = pytest.mark.slow

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
    browser.open(write_report(WrittenRun(tmp_path, ["a"], size=256).write()))
    rendering = "[...document.querySelectorAll('.stage img')].map(image => getComputedStyle(image).imageRendering)"
    assert browser.run(rendering) == ["auto", "pixelated"]  # the restoration; the measurement of a quarter the size


def test_a_single_unconditional_sample_has_nothing_to_compare_with(tmp_path, browser):
    browser.open(write_report(WrittenRun(tmp_path, ["0", "1", "2"], truth=False, measured=False).write()))
    assert browser.complaints == []
    assert browser.run("document.querySelectorAll('.stage img')[0].naturalWidth") == 48
    hidden = "[...document.querySelectorAll('.wipe, .strip, .edge, .upper, .bar')].every(e => e.getClientRects().length === 0)"
    assert browser.run(hidden)


def test_images_are_visible_without_scripts(usual, browser):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(usual, 390, 844)
        assert browser.run("[...document.querySelectorAll('.strip img')].every(image => image.clientWidth > 60)")
        assert browser.run("document.querySelectorAll('.bar, .stage, .wipe')[0].getClientRects().length") == 0
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> Path:
    """All the columns that a run can have by default, and two values of the solver: fifteen."""
    run = WrittenRun(tmp_path_factory.mktemp("full"), [f"face-{i:03}" for i in range(9)], samples=2)
    for record in run.records:
        record |= {"lpips": 0.21, "lpips_measurement": 0.5, "info": {"ess": 12.3, "inner": 4.0}}
    for line in run.posterior:
        line["lpips"] = 0.18
    return write_report(run.write())


WIDTHS = "[...document.querySelectorAll('.scroll')].map(e => [e.getAttribute('aria-label'), e.clientWidth, e.scrollWidth])"


def test_all_columns_of_every_image_fit_in_their_box(full, browser):
    browser.open(full, 1280, 900)
    assert browser.run("document.querySelectorAll('.scores thead th').length") == 15
    assert all(whole <= shown for _, shown, whole in browser.run(WIDTHS))


@pytest.mark.parametrize("width", [320, 390])
def test_on_a_phone_a_row_of_means_is_a_list_with_names(full, browser, width):
    """The page is as wide as the phone; only the table of every image scrolls, under a shadow."""
    browser.open(full, width, 844)
    assert browser.run("document.documentElement.scrollWidth") == width
    found = {label: (shown, whole) for label, shown, whole in browser.run(WIDTHS)}
    shown, whole = found["Means of the metrics"]
    assert whole <= shown
    assert browser.run("getComputedStyle(document.querySelector('.means td'), '::before').content") == '"PSNR (dB) ↑"'
    assert browser.run("getComputedStyle(document.querySelector('.tall')).backgroundImage").count("linear-gradient") == 4
