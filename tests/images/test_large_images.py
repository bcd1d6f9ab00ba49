"""Large images: read in parts they give the same result, take few bytes a pixel, and wait for each other."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from forks import ROOT
from PIL import Image

from diffusion_priors.images import fit as fit_module
from diffusion_priors.images.budget import PixelBudget
from diffusion_priors.images.fit import Crop, Stretch
from diffusion_priors.images.io import image_size, read_image

PEAK = """
import resource, sys
from pathlib import Path
from diffusion_priors.images.fit import Crop
from diffusion_priors.images.io import read_image

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

read_image(Path("small.jpg"), 3, (64, 64), Crop())
before = peak()
read_image(Path("large.jpg"), 3, (64, 64), Crop())
print(peak() - before)
"""


@pytest.mark.script
def test_a_photo_takes_a_few_bytes_a_pixel(tmp_path):
    """24 megapixels. As 64-bit numbers they would take 24 bytes a pixel, and more on the way."""
    pixels = np.add.outer(np.arange(4000), np.arange(6000)).astype(np.uint8)
    Image.fromarray(pixels).convert("RGB").save(tmp_path / "large.jpg")
    Image.new("RGB", (80, 60)).save(tmp_path / "small.jpg")
    done = subprocess.run([sys.executable, "-c", PEAK], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 8 * pixels.size + 64 * 2**20


SAVED = {
    "rgb": ("a.png", lambda noise: Image.fromarray(noise(61, 83, 3))),
    "grey": ("a.png", lambda noise: Image.fromarray(noise(61, 83))),
    "alpha": ("a.png", lambda noise: Image.fromarray(noise(61, 83, 4))),
    "grey with alpha": ("a.png", lambda noise: Image.fromarray(noise(61, 83, 2))),
    "palette": ("a.gif", lambda noise: Image.fromarray(noise(61, 83, 3)).quantize(32)),
    "16 bits": ("a.png", lambda noise: Image.fromarray(noise(61, 83).astype(np.uint16) * 257)),
    "floats": ("a.tif", lambda noise: Image.fromarray(noise(61, 83).astype(np.float32) / 255)),
    "CMYK": ("a.jpg", lambda noise: Image.frombytes("CMYK", (83, 61), noise(61, 83, 4).tobytes())),
}


def whole(path, channels: int, size: tuple[int, int], fit) -> np.ndarray:
    """The same in one piece: all pixels as float64, turned, cropped and averaged (0 … 255)."""
    as_is = read_image(path, channels, upright_size(path), Stretch()).permute(1, 2, 0).double().numpy()
    box = fit.box(*as_is.shape[:2], size)
    part = as_is[box.top : box.top + box.height, box.left : box.left + box.width]
    rows, columns = (fit_module.area_weights(old, new) for old, new in zip(part.shape, size, strict=False))
    return (np.einsum("yh,hwc,xw->yxc", rows, part, columns) + 1) * 127.5


def upright_size(path) -> tuple[int, int]:
    with Image.open(path) as image:
        image.load()  # Pillow turns a TIFF itself
        swap = image.getexif().get(0x0112, 1) > 4
        return (image.width, image.height) if swap else (image.height, image.width)


@pytest.mark.parametrize("at_once", [1, 1000, 10**9])
@pytest.mark.parametrize("fit", [Crop(), Stretch()], ids=["crop", "stretch"])
@pytest.mark.parametrize("kind", SAVED)
def test_an_image_read_in_parts_is_the_image_read_as_a_whole(kind, fit, at_once, tmp_path, monkeypatch):
    monkeypatch.setattr(fit_module, "AT_ONCE", at_once)
    name, make = SAVED[kind]
    make(lambda *shape: np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)).save(tmp_path / name)
    for channels, size in ((3, (8, 12)), (1, (7, 7)), (3, (61, 20))):
        found = (read_image(tmp_path / name, channels, size, fit).permute(1, 2, 0).double().numpy() + 1) * 127.5
        tolerance = 0.501 if kind != "floats" else 0.51
        assert np.abs(found - whole(tmp_path / name, channels, size, fit)).max() < tolerance


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_image_is_read_in_parts_too(orientation, tmp_path, monkeypatch):
    monkeypatch.setattr(fit_module, "AT_ONCE", 100)
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.random.default_rng(0).integers(0, 256, (61, 83, 3), dtype=np.uint8)
    for name in ("a.png", "a.tif"):
        Image.fromarray(pixels).save(tmp_path / name, exif=exif)
        assert image_size(tmp_path / name) == ((83, 61) if orientation > 4 else (61, 83), False)
        for size in ((8, 12), (12, 8)):
            found = (read_image(tmp_path / name, 3, size, Crop()).permute(1, 2, 0).double().numpy() + 1) * 127.5
            assert np.abs(found - whole(tmp_path / name, 3, size, Crop())).max() < 0.501


def test_images_wait_until_there_is_room_and_a_larger_one_until_it_is_alone():
    budget, lock = PixelBudget(100), threading.Lock()
    held, most, count = [], [], [0]

    def work(pixels: int) -> None:
        with budget.hold(pixels):
            with lock:
                held.append(pixels)
                most.append(sum(held) if len(held) > 1 else min(sum(held), 100))
                count[0] += 1
            time.sleep(0.002)
            with lock:
                held.remove(pixels)

    threads = [threading.Thread(target=work, args=(pixels,)) for pixels in [40, 70, 300, 10, 99, 100, 1, 60] * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert count[0] == len(threads) and max(most) <= 100 and budget.used == 0


def test_the_room_is_given_back_after_an_error():
    budget = PixelBudget(10)
    with pytest.raises(ValueError, match="damaged"), budget.hold(10):
        raise ValueError("damaged")
    assert budget.used == 0
