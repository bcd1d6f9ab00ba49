"""Formats: the same few everywhere, whatever a file is called, and one line for anything else."""

from __future__ import annotations

import ast
import os
import re
import socket
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from forks import ROOT
from PIL import Image

from diffusion_priors.images import formats
from diffusion_priors.images.fit import Crop
from diffusion_priors.images.formats import FORMATS, SUFFIXES, open_image
from diffusion_priors.images.io import read_grey, read_image
from diffusion_priors.operators.blur import DeblurKernel
from diffusion_priors.operators.inpainting import InpaintMask

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pytest shows what a command does not

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\n0 0 16 16 rectfill\nshowpage\n%%EOF\n"

READERS = {
    "image": lambda path: read_image(path, 3, (8, 8), Crop()),
    "mask": lambda path: InpaintMask(str(path)),
    "kernel": lambda path: DeblurKernel(str(path)),
}
every_reader = pytest.mark.parametrize("read", READERS.values(), ids=READERS)


@pytest.fixture
def no_program(monkeypatch):
    """Any attempt to start a program fails the test."""

    def refuse(*args, **kwargs):
        pytest.fail(f"started {args}")

    for name in ("Popen", "run", "call", "check_call", "check_output"):
        monkeypatch.setattr(subprocess, name, refuse)
    monkeypatch.setattr(os, "system", refuse)


@every_reader
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.eps", "a.ps", "a"])
def test_postscript_is_handed_to_no_program(read, name, tmp_path, no_program):
    (tmp_path / name).write_bytes(POSTSCRIPT)
    with pytest.raises(ValueError, match=rf"{name}: it is no image of a known format \(PNG, JPEG"):
        read(tmp_path / name)


OTHERS = sorted({"ICO", "TGA", "PCX", "SGI", "DDS", "PDF", "EPS", "IM", "MSP", "XBM", "ICNS", "JPEG2000"} & {*Image.SAVE} | {"ICO"})


@every_reader
@pytest.mark.parametrize("other", OTHERS)
def test_other_formats_of_pillow_are_refused_under_the_name_of_an_image(read, other, tmp_path):
    Image.init()
    mode = "1" if other in ("MSP", "XBM") else "L"
    try:
        Image.new(mode, (32, 32)).save(tmp_path / "a.png", other)
    except (OSError, KeyError, ValueError) as error:
        pytest.skip(f"Pillow writes no {other} here: {error}")
    with pytest.raises(ValueError, match="no image of a known format"):
        read(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_every_suffix_has_its_format(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(path)
    with open_image(path) as image:
        assert image.format in FORMATS


def test_photos_of_telephones_with_a_preview_inside_are_jpegs(tmp_path):
    """Pillow calls such a JPEG an MPO."""
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=frames[1:])
    x = read_image(tmp_path / "a.jpg", 3, (8, 8), Crop())
    assert x[0].min() > 0.9 and x[2].max() < -0.9


@every_reader
@pytest.mark.parametrize("kind", ["pipe", "socket", "folder", "link"])
def test_what_is_no_file_is_refused_without_waiting(read, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    path = Path("a.png")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to("nowhere.png")
    else:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(path))
    with pytest.raises((ValueError, OSError), match=r"pipe|socket|no regular file|nothing \(nowhere\.png\)"):
        read(path)


@every_reader
def test_devices_are_refused(read):
    with pytest.raises(ValueError, match="it is a device, not a file"):
        read(Path("/dev/zero"))


def test_a_kernel_that_is_a_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "kernel.npy")
    with pytest.raises(ValueError, match="it is a named pipe, not a file"):
        DeblurKernel(str(tmp_path / "kernel.npy"))


# Large images


@every_reader
def test_an_image_beyond_the_limit_is_refused_by_its_header(read, monkeypatch, tmp_path):
    monkeypatch.setattr(formats, "LARGEST", 1000)
    Image.fromarray(np.eye(33, dtype=np.uint8) * 255).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png: it has 0 megapixels, and at most 0 are read; make it smaller"):
        read(tmp_path / "a.png")


@pytest.mark.parametrize("side", [14_143, 20_001, 65_000, 400_000])
def test_the_limit_is_200_megapixels(side, tmp_path):
    """Only the header is there: P5, width, height."""
    (tmp_path / "a.pgm").write_bytes(b"P5 %d %d 255\n" % (side, side))
    with pytest.raises(ValueError, match=r"it has .* megapixels, and at most 200 are read; make it smaller"):
        read_grey(tmp_path / "a.pgm")


# Damage


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.bmp", "a.tif", "a.gif", "a.ppm"])
@every_reader
def test_a_damaged_file_is_read_or_refused_in_one_line_and_prints_nothing(read, name, tmp_path, capfd):
    """Bytes that are changed, cut, doubled or put in, most of them in the header."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (20, 20, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / name, **({"exif": exif} if name[2:] in ("png", "jpg", "webp", "tif") else {}))
    whole = (tmp_path / name).read_bytes()
    for _ in range(60):
        damaged = bytearray(whole)
        for at in random.integers(0, min(len(whole), 400), 4):
            damaged[at] = random.integers(256)
        at, length = random.integers(len(whole)), random.integers(1, 40)
        head, part, rest = damaged[:at], damaged[at : at + length], damaged[at + length :]
        (tmp_path / name).write_bytes([damaged, head, head + part + part + rest, head + rest][random.integers(4)])
        try:
            read(tmp_path / name)
        except ValueError as error:
            assert name in str(error) and "\n" not in str(error)
    assert capfd.readouterr() == ("", "")


# The one list


def test_no_image_is_opened_without_a_list_of_formats():
    """Image.open tries every decoder of Pillow, unless it is told which."""
    folders = [path for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")]
    own = [path for path in folders if path.name not in ("tests", "diffusion_priors", "outputs") and not (path / "pyvenv.cfg").exists()]
    files = [*ROOT.glob("*.py"), *(path for folder in own for path in folder.rglob("*.py"))]
    assert len(files) > 100
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and re.search(r"Image\.open$", ast.unparse(node.func)):
                assert any(keyword.arg == "formats" for keyword in node.keywords), f"{path}:{node.lineno}"


def test_reading_gives_a_tensor_on_the_grid_for_every_format(tmp_path):
    for suffix in sorted(SUFFIXES):
        Image.fromarray(np.full((8, 8), 200, dtype=np.uint8)).save(tmp_path / f"a{suffix}")
        assert torch.allclose(read_image(tmp_path / f"a{suffix}", 1, (8, 8), Crop()), torch.tensor(200 / 127.5 - 1), atol=2 / 255)
