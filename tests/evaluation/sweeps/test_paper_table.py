"""Tables in the layout of the paper: their files read back, and which image is where."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
from PIL import Image
from sweep_folder import base_config, record, records_of, write_images, write_job

from diffusion_priors.evaluation.reporting.figure import GAP, LABEL, TILE, TITLE
from diffusion_priors.evaluation.sweeps.jobs import read_jobs
from diffusion_priors.evaluation.sweeps.latex import latex
from diffusion_priors.evaluation.sweeps.paper_table import Denoising, PaperTable, Restorations, Samples

ROWS = {"SDEdit (t* = 250)": 22.0, "SDEdit (t* = 500)": 20.0, "ScoreALD": 19.0, "DPS": 28.0}
PLACES = (-1, 2, 10, 30)  # as texts they sort otherwise
GREY, RED, GREEN, BLUE = (90, 90, 90), (200, 0, 0), (0, 200, 0), (0, 0, 200)


def job(root, row, place, records, footnote=None, finished=True, **config):
    table = {"_target_": "diffusion_priors.evaluation.sweeps.paper_table.PaperTable", "name": "t", "row": row, "place": place}
    return write_job(root / f"row={place}", records, base_config(table=table, **config), footnote=footnote, finished=finished)


def fill(root, footnotes=("", "", "", "")) -> None:
    """A job per row of ROWS, in an order that is not that of the folders; no LPIPS if there is a footnote."""
    for index, (row, psnr) in enumerate(ROWS.items()):
        lpips = None if footnotes[index] else [0.1, 0.2, 0.3]
        job(root, row, PLACES[index], records_of([psnr - 1, psnr, psnr + 1], lpips), footnotes[index] or None)


def write(root, **arguments) -> str:
    arguments = {"name": "table2", "caption": "Inpainting results"} | arguments
    return PaperTable(**arguments).write(root, read_jobs(root))


def csv_rows(path: Path) -> list[dict]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def tex_rows(text: str) -> list[list[str]]:
    """Cells between \\toprule and \\bottomrule."""
    body = text.split(r"\toprule")[1].split(r"\bottomrule")[0]
    lines = [line.strip() for line in body.split("\n") if line.strip() and r"\midrule" not in line]
    assert all(line.endswith(r" \\") for line in lines)
    return [re.split(r" (?<!\\)& ", line.removesuffix(r" \\")) for line in lines]


def terminal_rows(text: str) -> list[list[str]]:
    lines = text.split("\n")
    rule = next(i for i, line in enumerate(lines) if line.startswith("---"))
    end = lines.index("", rule)
    return [re.split(r"\s{2,}", line.strip()) for line in [lines[rule - 1], *lines[rule + 1 : end]]]


def test_rows_in_order_of_place_with_mean_and_standard_error(tmp_path):
    fill(tmp_path)
    expected = [["Method", "PSNR (dB) ↑", "LPIPS ↓"]] + [[row, f"{psnr:.2f} ± 0.58", "0.200 ± 0.058"] for row, psnr in ROWS.items()]
    text = write(tmp_path)
    assert terminal_rows(text) == expected
    assert text.startswith("Inpainting results\n\n") and text.endswith("\n\n3 images, ± standard error")
    lines = (tmp_path / "table2.md").read_text().split("\n")
    cells = [[cell.strip().replace("\\*", "*") for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert [cells[0], *cells[2:]] == expected and "3 images, ± standard error" in lines


def test_csv_holds_all_digits(tmp_path):
    fill(tmp_path)
    write(tmp_path)
    rows = csv_rows(tmp_path / "table2.csv")
    assert list(rows[0]) == ["Method", "psnr", "psnr_se", "psnr_n", "lpips", "lpips_se", "lpips_n", "note"]
    jobs = sorted(read_jobs(tmp_path), key=lambda job: job.config["table.place"])
    for row, (name, psnr), found in zip(rows, ROWS.items(), jobs, strict=True):
        assert row["Method"] == name and float(row["psnr"]) == psnr and row["psnr_n"] == "3" and row["note"] == ""
        assert float(row["psnr_se"]) == found.estimate("single", "psnr").se and float(row["lpips"]) == pytest.approx(0.2)


def test_latex_is_a_booktabs_table(tmp_path):
    fill(tmp_path)
    write(tmp_path)
    text = (tmp_path / "table2.tex").read_text()
    rows = tex_rows(text)
    assert rows[0] == ["Method", r"PSNR (dB) $\uparrow$", r"LPIPS $\downarrow$"]
    assert rows[1] == ["SDEdit ($t^* = 250$)", r"22.00 $\pm$ 0.58", r"0.200 $\pm$ 0.058"]
    assert [row[0] for row in rows[3:]] == ["ScoreALD", "DPS"]
    for command in (r"\caption{Inpainting results}", r"\label{tab:table2}", r"\begin{tabular}{lcc}", r"3 images, $\pm$ standard error"):
        assert text.count(command) == 1
    assert re.findall(r"\\(begin|end)\{(\w+)\}", text) == [("begin", "table"), ("begin", "tabular"), ("end", "tabular"), ("end", "table")]
    assert text.count("{") == text.count("}") and text.count("$") % 2 == 0
    assert [text.index(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == sorted(
        text.index(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")
    )


def test_latex_marks_the_best_method_of_each_column(tmp_path):
    """Not the measurement, nothing where all methods print the same, and nothing where no direction is better."""
    values = {"a": (20.0, 0.3), "b": (21.001, 0.1), "c": (20.999, 0.2)}
    for place, (row, (psnr, lpips)) in enumerate(values.items()):
        job(tmp_path, row, place, records_of([psnr, psnr], [lpips, lpips], seconds=2.0))
    write(tmp_path, columns=("psnr", "lpips", "seconds", "residual"), measurement=True)
    bold = [[cell.startswith(r"\textbf{") for cell in row] for row in tex_rows((tmp_path / "table2.tex").read_text())]
    assert [row[1:3] for row in bold[-3:]] == [[False, False], [True, True], [True, False]]
    assert not any(any(row) for row in bold[:-3]) and not any(any(row[3:]) for row in bold)
    text = (tmp_path / "table2.tex").read_text()
    assert r"\textbf{21.00 $\pm$ 0.00}" in text and text.count("{") == text.count("}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Noise Level (t)", "Noise Level ($t$)"),
        ("t = 100", "$t = 100$"),
        ("SDEdit (t* = 250)", "SDEdit ($t^* = 250$)"),
        ("DPS (ζ = 0.3), t = 100.", r"DPS ($\zeta = 0.3$), $t = 100$."),
        ("x = -1.5e-3; best = 3", "$x = -1.5e-3$; best = 3"),
        ("image(s) of step 3", "image(s) of step 3"),
        (r"100 % of a_b & #1 {x} $5 \n ~^", r"100 \% of a\_b \& \#1 \{x\} \$5 \textbackslash{}n \textasciitilde{}\textasciicircum{}"),
        ("[a] * <b> | – …", r"{[}a{]} {*} \textless{}b\textgreater{} \textbar{} -- \dots{}"),
        ("5 ± 1 ↑ ↓ σ −3", r"5 $\pm$ 1 $\uparrow$ $\downarrow$ $\sigma$ $-$3"),
        ("", ""),
    ],
)
def test_latex_escapes(text, expected):
    assert latex(text) == expected


def test_a_row_that_begins_with_a_bracket_is_not_an_argument_of_the_row_before(tmp_path):
    job(tmp_path, "[best] of *", 0, records_of([20.0, 21.0], [0.1, 0.2]))
    write(tmp_path)
    assert tex_rows((tmp_path / "table2.tex").read_text())[1][0] == "{[}best{]} of {*}"


def test_cells_without_a_value_share_the_note_that_says_why(tmp_path):
    fill(tmp_path, ("LPIPS: no a_b & 5 % trunk", "", "LPIPS: no a_b & 5 % trunk", ""))
    bad = job(tmp_path, "SDEdit (t* = 750)", 5, [], finished=False)
    (bad / "error.txt").write_text("Traceback\nRuntimeError: out of | memory\n")
    text = write(tmp_path)
    rows = {row[0]: row[1:] for row in terminal_rows(text)}
    assert rows["SDEdit (t* = 250)"] == ["22.00 ± 0.58", "– [1]"] and rows["ScoreALD"][1] == "– [1]"
    assert rows["SDEdit (t* = 750)"] == ["– [2]", "– [2]"] and list(rows)[3] == "SDEdit (t* = 750)"
    notes = ["[1] LPIPS: no a_b & 5 % trunk", "[2] failed: RuntimeError: out of | memory", "3 images, ± standard error"]
    assert text.endswith("\n\n" + "\n".join(notes))
    tex = (tmp_path / "table2.tex").read_text()
    assert tex_rows(tex)[1] == ["SDEdit ($t^* = 250$)", r"22.00 $\pm$ 0.58", "--$^{1}$"]
    assert tex_rows(tex)[3][1:] == ["--$^{2}$", "--$^{2}$"]
    assert (
        tex.count(r"$^{1}$~LPIPS: no a\_b \& 5 \% trunk") == 1 and tex.count(r"$^{2}$~failed: RuntimeError: out of \textbar{} memory") == 1
    )
    markdown = (tmp_path / "table2.md").read_text()
    assert "[2] failed: RuntimeError: out of \\| memory" in markdown and markdown.count("– [1]") == 2
    by_name = {row["Method"]: row for row in csv_rows(tmp_path / "table2.csv")}
    assert by_name["ScoreALD"]["note"] == "LPIPS: no a_b & 5 % trunk" and by_name["ScoreALD"]["lpips"] == ""
    assert by_name["SDEdit (t* = 750)"]["note"] == "failed: RuntimeError: out of | memory"


def test_failed_restorations_have_a_note(tmp_path):
    diverged = record("face-2", error="not finite")
    job(tmp_path, "some", 0, [*records_of([20.0, 22.0], [0.1, 0.2]), diverged])
    job(tmp_path, "all", 1, [diverged], footnote="LPIPS: none")
    job(tmp_path, "unscored", 2, [record("face-0"), record("face-1")])
    text = write(tmp_path)
    rows = terminal_rows(text)[1:]
    assert rows == [["some [1]", "21.00 ± 1.00", "0.150 ± 0.050"], ["all", "– [2]", "– [3]"], ["unscored", "– [4]", "– [4]"]]
    assert (
        "[1] 1 of 3 restorations failed; the values are those of the others\n[2] every restoration failed\n[3] LPIPS: none\n[4] no" in text
    )
    assert text.endswith("1 to 3 images, ± standard error")
    assert tex_rows((tmp_path / "table2.tex").read_text())[1][0] == "some$^{1}$"


def test_one_image_has_no_standard_error(tmp_path):
    job(tmp_path, "DPS", 0, records_of([20.0], [0.1]))
    text = write(tmp_path)
    assert terminal_rows(text)[1] == ["DPS", "20.00", "0.100"] and text.endswith("\n\n1 image")


def test_the_row_of_the_measurements_comes_first_if_all_jobs_share_them(tmp_path):
    fill(tmp_path)
    assert terminal_rows(write(tmp_path, measurement=True))[1] == ["Measurement", "15.00 ± 0.00", "– [1]"]
    assert terminal_rows(write(tmp_path))[1][0] == "SDEdit (t* = 250)"
    job(tmp_path, "some", -5, [*records_of([20.0, 21.0]), record("face-2", error="not finite")])
    assert terminal_rows(write(tmp_path, measurement=True))[1:3] == [
        ["Measurement", "15.00 ± 0.00", "– [1]"],
        ["some [2]", "20.50 ± 0.50", "– [1]"],
    ]
    bad = job(tmp_path, "failed", 50, records_of([1.0]), finished=False)
    assert terminal_rows(write(tmp_path, measurement=True))[1][0] == "Measurement"
    (bad / "config.yaml").unlink()
    job(tmp_path, "other", 40, records_of([20.0, 21.0, 22.0], y="other"))
    assert terminal_rows(write(tmp_path, measurement=True))[1][0] == "some [1]"


def test_jobs_without_a_label_have_the_name_of_their_folder_and_jobs_without_a_place_come_last(tmp_path):
    job(tmp_path, "", 3, records_of([20.0, 21.0]))
    job(tmp_path, "last", 5, records_of([20.0, 21.0]))
    (tmp_path / "a never").mkdir()
    (tmp_path / "a never" / "error.txt").write_text("ValueError: x")
    assert [row[0] for row in terminal_rows(write(tmp_path))[1:]] == ["row=3", "last", "a never"]


def test_columns_and_heading_can_be_set(tmp_path):
    fill(tmp_path)
    text = write(tmp_path, heading="Noise Level (t)", columns=("ssim", "psnr", "lpips_vgg"), caption="")
    assert terminal_rows(text)[:2] == [
        ["Noise Level (t)", "SSIM ↑", "PSNR (dB) ↑", "LPIPS vgg ↓"],
        ["SDEdit (t* = 250)", "0.500 ± 0.000", "22.00 ± 0.58", "– [1]"],
    ]
    assert r"\begin{tabular}{lccc}" in (tmp_path / "table2.tex").read_text()


def test_no_jobs_make_an_empty_table(tmp_path):
    assert terminal_rows(write(tmp_path, figure=Restorations()))[1:] == []
    assert not (tmp_path / "table2.png").exists()


# Images.


def tiles(path: Path) -> list[list[tuple[int, int, int]]]:
    """The colour in the middle of every tile of a figure, row by row; white where there is no tile."""
    with Image.open(path) as sheet:
        rows, columns = (sheet.height - TITLE - GAP) // (TILE + LABEL + GAP), (sheet.width - GAP) // (TILE + GAP)
        middle = [GAP + TILE // 2 + j * (TILE + GAP) for j in range(columns)]
        return [[sheet.getpixel((x, TITLE + TILE // 2 + i * (TILE + LABEL + GAP))) for x in middle] for i in range(rows)]


def test_restorations_have_a_row_per_method(tmp_path):
    fill(tmp_path)
    for index, place in enumerate(PLACES):
        folder = tmp_path / f"row={place}"
        colour = (50 * index, 0, 0)
        write_images(folder, "face-1", measurement=GREY, truth=GREEN, restoration_0=colour)
        write_images(folder, "face-2", measurement=GREY, truth=BLUE, restoration_0=colour)
    write_images(tmp_path / "row=2", "face-0", measurement=RED, truth=RED, restoration_0=RED)
    text = write(tmp_path, figure=Restorations())
    assert tiles(tmp_path / "table2.png") == [[GREY, GREEN, (50 * index, 0, 0)] for index in range(4)]
    assert text.endswith("table2.png") and "![Inpainting results](table2.png)" in (tmp_path / "table2.md").read_text()
    write(tmp_path, figure=Restorations(), image="face-2")
    assert tiles(tmp_path / "table2.png")[0][1] == BLUE
    with pytest.raises(ValueError, match=r"table.image=face-9 was restored by no job; set it to one of face-0, face-1, face-2"):
        write(tmp_path, figure=Restorations(), image="face-9")


def test_labels_name_the_method_and_its_psnr(tmp_path):
    folder = job(tmp_path, "DPS", 0, records_of([20.5, 21.0]))
    write_images(folder, "face-1", measurement=GREY, truth=GREEN, restoration_0=RED)
    (row,) = Restorations().rows([("DPS", read_jobs(tmp_path)[0])], None)
    assert [text for text, _ in row] == ["Measurement\n15.00 dB", "Ground truth", "DPS\n21.00 dB"]
    (row,) = Denoising().rows([("t = 100", read_jobs(tmp_path)[0])], None)
    assert [text for text, _ in row] == ["Clean image", "Noisy image\nnot saved", "Denoised, t = 100\n21.00 dB"]


def test_denoising_shows_the_noisy_image_and_a_grey_tile_without_one(tmp_path):
    for place, noisy in enumerate(({"noisy": BLUE}, {})):
        folder = job(tmp_path, f"t = {place}", place, records_of([20.0]))
        write_images(folder, "face-0", truth=GREEN, measurement=GREY, restoration_0=RED, **noisy)
    (tmp_path / "row=0/images/face-0/truth.png").write_bytes(b"\x89PNG half")
    write(tmp_path, figure=Denoising())
    empty = (238, 238, 238)
    assert tiles(tmp_path / "table2.png") == [[empty, BLUE, RED], [GREEN, empty, RED]]


def test_a_measurement_that_is_not_an_image_leaves_a_tile_that_says_so(tmp_path):
    folder = job(tmp_path, "DPS", 0, records_of([20.5]))
    write_images(folder, "face-0", truth=GREEN, restoration_0=RED)
    (folder / "images/face-0/measurement.safetensors").write_bytes(b"any")
    write(tmp_path, figure=Restorations())
    assert tiles(tmp_path / "table2.png") == [[(238, 238, 238), GREEN, RED]]
    (row,) = Restorations().rows([("DPS", read_jobs(tmp_path)[0])], None)
    assert [text.split("\n")[1] for text, _ in row if "\n" in text] == ["not an image", "20.50 dB"]


def test_a_job_that_is_not_applicable_is_a_row_of_dashes_with_its_reason(tmp_path):
    fill(tmp_path)
    folder = job(tmp_path, "DDRM", 7, [], finished=False)
    (folder / "not_applicable.txt").write_text("solver=ddrm needs a spectrum\n")
    text = write(tmp_path)
    rows = {row[0]: row[1:] for row in terminal_rows(text)}
    assert rows["DDRM"] == ["– [1]", "– [1]"] and "[1] not applicable: solver=ddrm needs a spectrum" in text


def test_failed_jobs_and_jobs_without_images_have_no_row(tmp_path):
    for place, colour in enumerate((RED, GREEN, BLUE)):
        folder = job(tmp_path, "x", place, records_of([20.0]))
        if place != 1:
            write_images(folder, "face-0", truth=GREY, measurement=GREY, restoration_0=colour)
    (tmp_path / "row=2" / "error.txt").write_text("ValueError: x")
    write(tmp_path, figure=Restorations())
    assert tiles(tmp_path / "table2.png") == [[GREY, GREY, RED]]


def test_without_columns_there_is_no_table_but_rows_of_samples(tmp_path):
    for seed in range(2):
        folder = job(tmp_path, "", seed, [record("unconditional", y=None)], seed=seed)
        images = {f"restoration_{k}": (100 * seed, k * 20, 0) for k in range(11)}
        write_images(folder, "unconditional", **images)
    text = write(tmp_path, columns=(), figure=Samples(columns=4, most=14), caption="Samples")
    found = [colour for row in tiles(tmp_path / "table2.png") for colour in row]
    assert found[:14] == [(0, k * 20, 0) for k in range(11)] + [(100, k * 20, 0) for k in range(3)] and len(found) == 16
    assert text == f"Samples\n\nimages: {tmp_path / 'table2.png'}"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["table2.png"]
    labels = [label for row in Samples().rows([("", found) for found in read_jobs(tmp_path)], None) for label, _ in row]
    assert labels[10:12] == ["seed 0, sample 10", "seed 1, sample 0"]
    with pytest.raises(ValueError, match=r"columns must be at least 1, got 0; set table.figure.columns"):
        Samples(columns=0)


def test_a_config_node_builds_the_table():
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    from diffusion_priors.conf.checks import check_part

    config = OmegaConf.create(
        {
            "_target_": "diffusion_priors.evaluation.sweeps.paper_table.PaperTable",
            **{"name": "table1", "caption": "c", "heading": "Noise Level (t)", "columns": ["psnr"], "measurement": False, "image": None},
            **{
                "row": "t = 100",
                "place": 1,
                "figure": {"_target_": "diffusion_priors.evaluation.sweeps.paper_table.Samples", "columns": 3},
            },
        }
    )
    check_part(config, PaperTable | None, "table")
    table = instantiate(config, _convert_="all")
    assert (table.columns, table.row, table.place, table.figure.columns) == (("psnr",), "t = 100", 1, 3)
    check_part(OmegaConf.merge(config, {"figure": None}), PaperTable | None, "table")
    assert instantiate({"_target_": "diffusion_priors.evaluation.sweeps.paper_table.PaperTable", "name": "x"}).figure is None
