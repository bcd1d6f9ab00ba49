"""What evaluate.py refuses of the folders of runs: records, summaries, configurations and images that others wrote or damaged."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

from bad_input import Bad
from PIL import Image

DEEP = "[" * 10**5
RESUMED = ["num_samples=2", "output_dir=run"]
"""After the cheap command: the command of the finished run."""
REPAIR = r"; add repair=true to compute this again, or overwrite=true to start over"


def records(change: Callable[[dict], dict | str], folder: Path) -> None:
    """Change the third record of the run."""
    path = folder / "run" / "records.jsonl"
    lines = path.read_text().splitlines()
    changed = change(json.loads(lines[2]))
    lines[2] = changed if isinstance(changed, str) else json.dumps(changed)
    path.write_text("".join(f"{line}\n" for line in lines))


def content(name: str, text: str | bytes, folder: Path) -> None:
    (folder / "run" / name).write_bytes(text if isinstance(text, bytes) else text.encode())


def instead(name: str, make: Callable[[Path], object], folder: Path) -> None:
    """Something else in the place of a file or folder of the run."""
    path = folder / "run" / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    make(path)


def replaced(**values: object) -> Callable[[Path], None]:
    return partial(records, lambda record: record | values)


def lacking(key: str) -> Callable[[Path], None]:
    return partial(records, lambda record: {name: value for name, value in record.items() if name != key})


def text(line: str) -> Callable[[Path], None]:
    return partial(records, lambda record: line)


def raw(key: str, value: str) -> Callable[[Path], None]:
    """A value that json.dumps does not write."""
    return partial(records, lambda record: json.dumps(record | {key: "HERE"}).replace('"HERE"', value))


LINE = r"line 3 of run/records\.jsonl is damaged \(.*"
RECORDS = {
    "that is no JSON": (text("not JSON"), "it is not JSON"),
    "that is a list": (text("[]"), "it is no JSON object"),
    "that is a number": (text("3"), "it is no JSON object"),
    "that is empty": (text(""), "it is not JSON"),
    "of deep nesting": (raw("info", DEEP), "nested too deeply"),
    "without an id": (lacking("id"), "it lacks the key id"),
    "without a sample": (lacking("sample"), "it lacks the key sample"),
    "without an error": (lacking("error"), "it lacks the key error"),
    "without a hash of the measurement": (lacking("measurement_hash"), "it lacks the key measurement_hash"),
    "whose id is a number": (replaced(id=7), "of the type int"),
    "whose id leaves the folder": (replaced(id="../../x"), "separator"),
    "whose id is absolute": (replaced(id="/tmp/x"), "separator"),
    "whose id is the folder above": (replaced(id=".."), "names no folder of its own"),
    "whose id is too long": (replaced(id="x" * 256), "more than 255"),
    "whose id clears the screen": (replaced(id="\x1b[2J\x1b]0;title\x07"), "control character"),
    "whose id hides its end": (replaced(id="a\u202egnp"), "control character"),
    "whose sample is a text": (replaced(sample="0"), 'sample="0": input should be a valid integer'),
    "whose sample is negative": (replaced(sample=-1), "sample=-1"),
    "whose sample has 401 digits": (replaced(sample=10**400), "sample=1000"),
    "whose score is NaN": (raw("psnr", "NaN"), "NaN is not JSON"),
    "whose score is infinite": (raw("psnr", "-Infinity"), "-Infinity is not JSON"),
    "whose score is 1e400": (raw("psnr", "1e400"), "psnr=.*: input should be a finite number"),
    "whose score has 401 digits": (replaced(psnr=10**400), "psnr=1000.*: input should be a valid number"),
    "whose score has 5,000 digits": (raw("psnr", "9" * 5000), "psnr|digits"),
    "whose score is a text": (replaced(psnr="high"), 'psnr="high"'),
    "whose score is true": (replaced(psnr=True), "psnr=true"),
    "whose seconds are a list": (replaced(seconds=[1]), "seconds=.*input should be a valid number"),
    "whose info is a text": (replaced(info="x"), 'info="x"'),
    "whose error is a number": (replaced(error=3), "error=3"),
}
COMPARED = {
    f"compares a run with a record {what}": (harm, LINE + says + r".*\); the command of the run with repair=true")
    for what, (harm, says) in RECORDS.items()
}
RESUMES = {
    f"resumes a run with a record {what}": (harm, LINE + says + rf".*\){REPAIR}")
    for what, (harm, says) in RECORDS.items()
    if what.split()[-1] in ("JSON", "NaN", "folder", "id", "true", "digits", "nesting")
} | {
    "resumes a run with a record without its score": (lacking("psnr"), LINE + rf"it lacks the key psnr\){REPAIR}"),
    "resumes a run with a record of no measured score": (lacking("psnr_measurement"), LINE + "it lacks the key psnr_measurement"),
    "resumes a run with a hash that is a path": (replaced(hashes={"restoration": "../x"}), LINE + "hashes.restoration="),
}

FIRST = "images/face-00/restoration-0.png"
PIPE = r"records\.jsonl cannot be read: it is no regular file"
NOT_PNG = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\nshowpage\n"
IMAGES = {
    "is missing": (lambda path: None, "is missing"),
    "is empty": (lambda path: path.touch(), "is damaged"),
    "is PostScript": (lambda path: path.write_bytes(NOT_PNG), r"is damaged \(it is no PNG\)"),
    "is a GIF": (lambda path: Image.new("L", (16, 16)).save(path, "GIF"), r"is damaged \(it is no PNG\)"),
    "is a pipe": (os.mkfifo, r"is damaged \(it is no regular file\)"),
    "is a folder": (os.mkdir, r"is damaged \(.*\)"),
    "is a link to nothing": (lambda path: path.symlink_to("nowhere"), "is missing"),
    "is another image": (lambda path: Image.new("RGB", (16, 16)).save(path), "is not the image that was written"),
    "has another size": (lambda path: Image.new("RGB", (8, 8)).save(path), "is not the image that was written"),
    "claims to be huge": (lambda path: path.write_bytes(huge_png()), "is damaged"),
}


def huge_png() -> bytes:
    """A header of 100,000 x 100,000 pixels and nothing else."""
    import struct
    import zlib

    header = b"IHDR" + struct.pack(">IIBBBBB", 10**5, 10**5, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


OTHERS = {
    "resumes a run whose records are a pipe": (partial(instead, "records.jsonl", os.mkfifo), PIPE),
    "resumes a run whose records are a folder": (partial(instead, "records.jsonl", os.mkdir), PIPE),
    "resumes a run whose records never end": (partial(instead, "records.jsonl", lambda path: path.symlink_to("/dev/zero")), PIPE),
    "resumes a run whose records are a link to nothing": (
        partial(instead, "records.jsonl", lambda path: path.symlink_to("nowhere")),
        r"records\.jsonl cannot be read",
    ),
    "resumes a run whose configuration is a pipe": (partial(instead, "config.yaml", os.mkfifo), r"config\.yaml is damaged"),
    "resumes a run whose configuration is a folder": (partial(instead, "config.yaml", os.mkdir), r"config\.yaml is damaged"),
    "resumes a run whose configuration is a number": (partial(content, "config.yaml", "3"), r"config\.yaml (is damaged|holds no)"),
    "resumes a run whose configuration is deep": (partial(content, "config.yaml", f"config: {DEEP}"), r"config\.yaml is damaged"),
    "resumes a run whose configuration is not text": (partial(content, "config.yaml", b"\xff\xfe"), r"config\.yaml is damaged"),
    "resumes a run whose configuration is a bomb": (
        partial(
            content,
            "config.yaml",
            "a: &a [x]\n" + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in pairwise("abcdefghij")),
        ),
        r"config\.yaml is damaged",
    ),
    "resumes a run without its folder of images": (
        partial(instead, "images", lambda path: None),
        "restoration-0.png of face-00 is missing|truth.png of face-00 is missing",
    ),
    "resumes a run whose images are a file": (partial(instead, "images", lambda path: path.touch()), "of face-00 is damaged"),
    "resumes a run whose truth is missing": (
        partial(instead, "images/face-00/truth.png", lambda path: None),
        "truth.png of face-00 is missing",
    ),
    "resumes a run whose summary is a folder": (partial(instead, "summary.json", os.mkdir), r"summary\.json"),
}

COMPARE = {
    "compares a run with itself": ([], ["compare=[run,run]"], r"compare=\[run,run\] names one folder twice"),
    "compares a run with an image": ([], ["compare=[run,face.png]"], "no folder face.png"),
    "compares a run with nothing": ([], ["compare=[run,nowhere]"], "no folder nowhere"),
    "compares a run with an empty name": ([], ["compare=[run,'']"], "compare="),
    "compares one run": ([], ["compare=[run]"], "does not name two runs"),
    "compares three runs": ([], ["compare=[run,run,run]"], "does not name two runs"),
    "compares a number": ([], ["compare=7"], "does not name two runs"),
    "compares two numbers": ([], ["compare=[1,2]"], "does not name two runs"),
    "compares a dictionary": ([], ["compare={a: run}"], "does not name two runs"),
    "compares nothing": ([], ["compare=[]"], "does not name two runs"),
    "compares a run with a folder of images": ([], ["compare=[run,images]"], "images holds no records"),
}


def beside(harm: Callable[[Path], None] | None, folder: Path) -> None:
    """A second run, `other`, and `harm` done to the first."""
    shutil.copytree(folder / "run", folder / "other")
    if harm is not None:
        harm(folder)


PAIR = ["compare=[other,run]"]
FILES = {
    "compares a run whose records are a pipe": (OTHERS["resumes a run whose records are a pipe"][0], PIPE),
    "compares a run whose records never end": (OTHERS["resumes a run whose records never end"][0], PIPE),
    "compares a run whose posterior means are a pipe": (partial(instead, "posterior.jsonl", os.mkfifo), r"posterior\.jsonl cannot be read"),
    "compares a run whose posterior means are a list": (
        partial(content, "posterior.jsonl", "[]\n"),
        r"line 1 of run/posterior\.jsonl is damaged",
    ),
    "compares a run whose posterior means are not finite": (
        partial(content, "posterior.jsonl", '{"id": "face-00", "samples": 2, "psnr": NaN}\n'),
        r"line 1 of run/posterior\.jsonl is damaged \(NaN is not JSON\)",
    ),
    "compares a run without a configuration": (lambda folder: (folder / "run/config.yaml").unlink(), r"run/config\.yaml is missing"),
    "compares a run whose configuration is a pipe": (partial(instead, "config.yaml", os.mkfifo), r"config\.yaml is damaged"),
    "compares a run whose configuration is deep": (OTHERS["resumes a run whose configuration is deep"][0], r"config\.yaml is damaged"),
    "compares a run whose configuration is a bomb": (OTHERS["resumes a run whose configuration is a bomb"][0], r"config\.yaml is damaged"),
    "compares a run whose summary is {}": (partial(content, "summary.json", "{}"), r"summary\.json is damaged"),
    "compares a run whose summary is []": (partial(content, "summary.json", "[]"), r"summary\.json is damaged"),
    "compares a run whose summary is 3": (partial(content, "summary.json", "3"), r"summary\.json is damaged"),
    "compares a run whose summary is deep": (partial(content, "summary.json", DEEP), r"summary\.json is damaged"),
    "compares a run whose summary is a pipe": (partial(instead, "summary.json", os.mkfifo), r"summary\.json is damaged"),
    "compares a run whose summary is not text": (partial(content, "summary.json", b"\xff"), r"summary\.json is damaged"),
    "compares a run whose truth is PostScript": (
        partial(content, "images/face-00/truth.png", NOT_PNG),
        r"truth\.png is damaged: it is no PNG",
    ),
}

ROWS = [
    *(Bad("evaluate.py", what, PAIR, says, partial(beside, harm), run=True) for what, (harm, says) in (COMPARED | FILES).items()),
    *(Bad("evaluate.py", what, overrides, says, run=True) for what, (_, overrides, says) in COMPARE.items()),
    *(Bad("evaluate.py", what, RESUMED, says, harm, run=True) for what, (harm, says) in (RESUMES | OTHERS).items()),
    *(
        Bad(
            "evaluate.py",
            f"resumes a run whose restoration {what}",
            RESUMED,
            rf"restoration-0\.png of face-00 {says}",
            partial(instead, FIRST, make),
            run=True,
        )
        for what, (make, says) in IMAGES.items()
    ),
    Bad("sample.py", "starts in the folder of a run", ["output_dir=run"], "already holds the records of a run", run=True),
    Bad(
        "evaluate.py",
        "scores in the folder of a run",
        ["samples=images", "truth=images", "output_dir=run"],
        "another configuration",
        run=True,
    ),
    Bad("evaluate.py", "repairs and names no truth", ["repair=7"], "repair=7 is of the wrong kind"),
    Bad("evaluate.py", "writes into an image", ["output_dir=face.png"], "cannot write to face.png"),
    Bad("evaluate.py", "writes below an image", ["output_dir=face.png/run"], "cannot write to face.png/run"),
    Bad("evaluate.py", "writes into a name that is too long", [f"output_dir={'x' * 300}"], "cannot write to x+.*: File name too long"),
    Bad("sample.py", "writes into an image in a sweep", ["output_dir=face.png"], "cannot write to face.png"),
]
