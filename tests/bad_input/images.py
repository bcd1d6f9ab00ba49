"""Images, masks, kernels and frozen measurements that are refused: odd files, odd names, odd combinations."""

from __future__ import annotations

import json
import os
import socket
import zipfile
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from bad_input import Bad, grey
from PIL import Image
from safetensors.torch import save_file

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\n0 0 16 16 rectfill\nshowpage\n%%EOF\n"
UNKNOWN = r"no image of a known format \(PNG, JPEG"
MASK, KERNEL = ["operator=inpaint_mask", "operator.path=odd.png"], ["operator=deblur_kernel", "operator.path=odd.png"]
ARRAY = ["operator=deblur_kernel", "operator.path=odd.npy"]


def odd(content: bytes, name: str = "odd.png") -> Callable[[Path], None]:
    """Writes one file of that content."""
    return lambda folder: (folder / name).write_bytes(content) and None


def other_format(name: str) -> Callable[[Path], None]:
    return lambda folder: Image.new("L", (16, 16), 200).save(folder / "odd.png", name)


def link(target: str, name: str = "odd.png") -> Callable[[Path], None]:
    return lambda folder: (folder / name).symlink_to(target)


def pipe(folder: Path, name: str = "odd.png") -> None:
    os.mkfifo(folder / name)


def bound_socket(folder: Path) -> None:
    here = Path.cwd()
    os.chdir(folder)  # the name of a socket is short
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("odd.png")
    os.chdir(here)


def in_images(make: Callable[[Path], None]) -> Callable[[Path], None]:
    return lambda folder: make(folder / "images")


def array(values: object, **how: object) -> Callable[[Path], None]:
    return lambda folder: np.save(folder / "odd.npy", np.array(values, **how))


def promising(folder: Path) -> None:
    with (folder / "odd.npy").open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6)})


def half(folder: Path, *shape: int) -> None:
    pixels = np.zeros(shape, dtype=np.uint8)
    pixels[:, : shape[1] // 2] = 255
    Image.fromarray(pixels).save(folder / "odd.png")


def run_folder(folder: Path) -> None:
    for name in ("config.yaml", "records.jsonl", "images/a/truth.png", "figure.png"):
        path = folder / "old" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        grey(path, 16, 16) if path.suffix == ".png" else path.write_text("")


def named_alike(folder: Path) -> None:
    for name in ("one", "two"):
        (folder / name).mkdir()
        grey(folder / name / "a.png", 16, 16)


def not_utf8(folder: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9"))
    path.mkdir()
    grey(path / "a.png", 16, 16)


def zipped(folder: Path, content: bytes = b"no image") -> None:
    with zipfile.ZipFile(folder / "odd.zip", "w") as archive:
        archive.writestr("a.png", content)


IMAGE_FILES = {
    "PostScript under the name of an image": (odd(POSTSCRIPT), UNKNOWN),
    "an icon": (other_format("ICO"), UNKNOWN),
    "a Targa image": (other_format("TGA"), UNKNOWN),
    "a PDF": (other_format("PDF"), UNKNOWN),
    "an empty file": (odd(b""), UNKNOWN),
    "a link to nothing": (link("nowhere"), r"it is a link to nothing \(nowhere\)"),
    "a link to itself": (link("odd.png"), r"it is a link to nothing"),
    "a named pipe": (pipe, r"it is a named pipe, not a file"),
    "a socket": (bound_socket, r"it is a socket, not a file"),
    "a link to a device": (link("/dev/zero"), r"it is a device, not a file"),
    "400 megapixels in the header": (odd(b"P5 20000 20001 255\n"), "megapixels, and at most 200 are read; make it smaller"),
    "more pixels than Pillow reads": (odd(b"P5 200000 200001 255\n"), "megapixels, and at most 200 are read"),
    "fewer pixels than its header says": (odd(b"P5 64 64 255\nfew"), "."),
    "a PNG without pixels": (odd(b"\x89PNG\r\n\x1a\n" + bytes(50)), "."),
    "no pixels at all": (odd(b"P5 0 0 255\n"), "."),
}
"""What → what writes odd.png, and what the error says. As an image, in a folder of images, as a mask and as a kernel."""


def image_file_rows() -> list[Bad]:
    rows = []
    for what, (make, says) in IMAGE_FILES.items():
        rows += [
            Bad("sample.py", f"{what}: an image", ["input=odd.png"], rf"cannot use the image odd\.png: .*{says}", make),
            Bad(
                "evaluate.py",
                f"{what}: in a folder",
                ["data.root=images"],
                rf"cannot use the image images/odd\.png: .*{says}",
                in_images(make),
            ),
            Bad("sample.py", f"{what}: a mask", MASK, rf"cannot read the mask odd\.png: .*{says}", make),
            Bad("sample.py", f"{what}: a kernel", KERNEL, rf"cannot read the kernel odd\.png: .*{says}", make),
        ]
    return rows


EMPTY = [
    *(
        Bad("sample.py", f"an empty {key}", [f"{key}=", *more], r"=.*'' is out of bounds|=.*\"\"\] is out of bounds|is empty, got ''")
        for key, more in (
            ("input", []),
            ("measurement", ["input=null", "operator=identity"]),
        )
    ),
    *(
        Bad("evaluate.py", f"an empty {key}", [f"{key}=", *more], r"=.*'' is out of bounds|=.*\"\"\] is out of bounds|is empty, got ''")
        for key, more in (
            ("data.root", []),
            ("data.degraded", ["data.root=null", "operator=identity"]),
            ("data.measurements", ["data.root=null"]),
            ("data.freeze", []),
            ("samples", ["truth=images"]),
            ("truth", ["samples=images"]),
        )
    ),
    Bad("train.py", "an empty root", ["data.root="], r"=.*'' is out of bounds|=.*\"\"\] is out of bounds|is empty, got ''"),
    Bad("train.py", "an empty validation", ["data.validation="], r"=.*'' is out of bounds|=.*\"\"\] is out of bounds|is empty, got ''"),
    Bad("sample.py", "a space for an input", ["input=' '"], "is empty, got ' '"),
    Bad(
        "sample.py",
        "an empty input in a list",
        ["input=[face.png,'']"],
        r"=.*'' is out of bounds|=.*\"\"\] is out of bounds|is empty, got ''",
    ),
    Bad("sample.py", "an empty path of a mask", ["operator=inpaint_mask", "operator.path="], "operator.path"),
    Bad("sample.py", "an empty path of a kernel", ["operator=deblur_kernel", "operator.path="], "operator.path"),
]

NAMES = [
    Bad("sample.py", "two images of one id", ["input=[one/a.png,two/a.png]"], "would share the id a ", named_alike),
    Bad(
        "evaluate.py",
        "an input that is not UTF-8",
        [os.fsdecode(b"data.root='caf\xe9'")],
        r"caf\\udce9' is (not UTF-8|out of bounds)",
        not_utf8,
    ),
    Bad(
        "train.py", "a root that is not UTF-8", [os.fsdecode(b"data.root='caf\xe9'")], r"caf\\udce9' is (not UTF-8|out of bounds)", not_utf8
    ),
    Bad("sample.py", "a name that is too long", [f"input={'x' * 400}.png"], "no image at x+"),
    Bad("sample.py", "the home of nobody", ["input='~nobody-here/a.png'"], "no image at ~nobody-here"),
    Bad("sample.py", "a pattern without matches", ["input='*.tif'"], r"no image at \*\.tif"),
    Bad("sample.py", "a control character in a name", ["input='a\x1b[31m.png'"], "no image at a"),
    Bad(
        "evaluate.py",
        "a hidden image alone",
        ["data.root=hidden"],
        "no images in the folder hidden",
        lambda folder: (folder / "hidden").mkdir() or grey(folder / "hidden" / "._a.png", 16, 16),
    ),
]

OUTPUTS = [
    Bad("evaluate.py", "a run as images", ["data.root=old"], r"old belongs to a run .*'old/images/\*/truth\.png'", run_folder),
    Bad("evaluate.py", "the images of a run", ["data.root=old/images"], r"belongs to a run .*'old/images/\*/truth\.png'", run_folder),
    Bad("sample.py", "the results of a run as images", ["input='old/*.png'"], "old belongs to a run", run_folder),
    Bad("train.py", "a run as training images", ["data.root=old"], "old belongs to a run", run_folder),
    Bad("evaluate.py", "a run as samples", ["samples=old", "truth=images"], "old belongs to a run", run_folder),
    Bad("evaluate.py", "the output is the input", ["output_dir=images"], "would write where its images are"),
    Bad("evaluate.py", "the input is the output's images", ["output_dir=."], "would write where its images are"),
    Bad(
        "sample.py",
        "an image that the run would delete",
        ["input=old/images/a/truth.png", "output_dir=old", "overwrite=true"],
        "would write where its images are",
        run_folder,
    ),
    Bad("train.py", "the output is the training images", ["output_dir=images"], "would write where its images are"),
    Bad(
        "evaluate.py",
        "the output is the truth",
        ["samples=face.png", "truth=images", "output_dir=images"],
        "would write where its images are",
    ),
]

KERNELS = {
    "vanishing in float32": (array([[1e-46, 1e-46]]), "sums to 2e-46"),
    "faint": (array([[1e-9, 1e-9]]), "sums to 2e-09, beyond"),
    "bright": (array([[1e9, 1e9]]), "sums to 2e.09, beyond"),
    "infinite in float32": (array([[1e300, 1e300]]), "sums to 2e.300, beyond"),
    "infinite as a sum": (array([[1e308, 1e308]]), "sums to inf, beyond"),
    "infinite": (array([[np.inf, 1.0]]), "1 entries that are not finite"),
    "of a negative sum": (array([[-1.0, 0.5]]), "negative sum"),
    "of complex numbers": (array([[1j, 1.0]]), "real numbers, got shape .1, 2., complex128"),
    "of texts": (array([["a", "b"]]), "numbers, got shape"),
    "of objects": (array([[None, 1]], dtype=object), "cannot read the kernel"),
    "of a row": (array([1.0, 2.0]), "must be a matrix"),
    "of nothing": (array(np.zeros((0, 3))), "must be numbers|cannot read the kernel"),
    "that promises 8 TB": (promising, "cannot read the kernel odd.npy"),
    "that is no array": (odd(b"x" * 100, "odd.npy"), "cannot read the kernel odd.npy"),
    "that is an archive of arrays": (
        lambda folder: np.savez(folder / "a.npz", np.ones(2)) or (folder / "a.npz").rename(folder / "odd.npy"),
        "cannot read the kernel",
    ),
    "that is a pipe": (lambda folder: pipe(folder, "odd.npy"), "it is a named pipe"),
    "that is a folder": (lambda folder: (folder / "odd.npy").mkdir(), "no regular file"),
    "that is a PNG": (
        lambda folder: grey(folder / "x.png", 3, 3) or (folder / "x.png").rename(folder / "odd.npy"),
        "cannot read the kernel",
    ),
}

SIZES = [
    Bad(
        "sample.py",
        "a mask of no photo's size",
        MASK,
        r"is 20 x 20, the image face\.png is 64 x 64 and the prior's are 16 x 16",
        lambda folder: half(folder, 20, 20),
    ),
    Bad(
        "sample.py",
        "a kernel of no photo's size",
        KERNEL,
        r"is 20 x 30, the image face\.png is 64 x 64",
        lambda folder: half(folder, 20, 30),
    ),
    Bad(
        "sample.py",
        "a mask for one of two photos",
        [*MASK, "input=[face.png,images/face-00.png]"],
        r"image images/face-00\.png is 20 x 24",
        lambda folder: half(folder, 64, 64),
    ),
    Bad(
        "sample.py",
        "a mask of another size and an exact fit",
        [*MASK, "fit=exact", "input=images/face-00.png"],
        "it is 20 x 24, wanted is 16 x 16",
        lambda folder: half(folder, 20, 24),
    ),
    Bad("sample.py", "a mask of half a shade", MASK, "nothing missing", lambda folder: grey(folder / "odd.png", 64, 64, value=200)),
]


# Frozen measurements of strangers


def frozen(folder: Path, name: str = "a", change: Callable[[dict], object] = lambda manifest: None, **tensors: torch.Tensor | None) -> None:
    """A folder `m` with one measurement of `operator=identity`, its manifest changed by `change`, its tensors replaced."""
    (folder / "m").mkdir()
    content = {"x0": torch.zeros(3, 16, 16), "y": torch.zeros(3, 16, 16), "sigma_y": torch.tensor([0.05])} | tensors
    save_file({key: value for key, value in content.items() if value is not None}, folder / "m" / "a.safetensors")
    digest = sha256((folder / "m" / "a.safetensors").read_bytes()).hexdigest()
    images = {name: digest}
    spec = {"operator._target_": "diffusion_priors.operators.identity.Identity", **NOISE}
    manifest = {"version": 1, "seed": 0, "problem": spec, "shape": [3, 16, 16], "images": images}
    manifest["hash"] = sha256("".join(f"{key} {images[key]}\n" for key in sorted(images)).encode()).hexdigest()
    change(manifest)
    (folder / "m" / "measurements.json").write_text(json.dumps(manifest))


NOISE = {"noise_model._target_": "diffusion_priors.operators.noise_models.Gaussian", "noise_model.sigma": 0.05}
READ = ["data.root=null", "data.measurements=m", "operator=identity"]


def manifest_is(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "m").mkdir() or ((folder / "m" / "measurements.json").write_text(text) and None)


FROZEN = {
    "an id that climbs": (partial(frozen, name="../../x"), r"'\.\./\.\./x' of an image cannot name a folder"),
    "an absolute id": (partial(frozen, name="/tmp/x"), "cannot name a folder"),
    "an id with a backslash": (partial(frozen, name="a\\b"), "cannot name a folder"),
    "an empty id": (partial(frozen, name=""), "cannot name a folder"),
    "a dot for an id": (partial(frozen, name="."), "cannot name a folder"),
    "two dots for an id": (partial(frozen, name=".."), "cannot name a folder"),
    "an id that acts on the terminal": (partial(frozen, name="a\x1b[31m"), "cannot name a folder"),
    "an id that no file system holds": (partial(frozen, name="x" * 300), "cannot name a folder"),
    "a file that is not there": (partial(frozen, name="b"), r"m/b\.safetensors is missing"),
    "a seed that is text": (partial(frozen, change=lambda m: m.update(seed="0")), "damaged: seed"),
    "a seed that is true": (partial(frozen, change=lambda m: m.update(seed=True)), "damaged: seed"),
    "images that are a list": (partial(frozen, change=lambda m: m.update(images=["a"])), "damaged: images"),
    "a hash that is a number": (partial(frozen, change=lambda m: m["images"].update(a=3)), r"damaged: images\.a"),
    "a shape of two sides": (partial(frozen, change=lambda m: m.update(shape=[16, 16])), "damaged: shape"),
    "no problem": (partial(frozen, change=lambda m: m.pop("problem")), "damaged: problem"),
    "another version": (partial(frozen, change=lambda m: m.update(version=9)), "is of version 9"),
    "another size": (partial(frozen, change=lambda m: m.update(shape=[3, 8, 8])), r"are of images \(3, 8, 8\)"),
    "no image": (partial(frozen, change=lambda m: m.update(images={}, hash=sha256(b"").hexdigest())), "holds none of 0 images"),
    "ids that differ in case": (partial(frozen, change=lambda m: m["images"].update(A="0")), "the ids a and A would share a folder"),
    "no JSON": (manifest_is("{"), "damaged"),
    "a list for a manifest": (manifest_is("[]"), "damaged"),
    "deep JSON": (manifest_is("[" * 100_000), "damaged"),
    "a manifest that is a pipe": (
        lambda folder: (folder / "m").mkdir() or os.mkfifo(folder / "m" / "measurements.json"),
        "measurements.json",
    ),
    "no truth": (partial(frozen, x0=None), "x0 is missing"),
    "no measurement": (partial(frozen, y=None), "y is missing"),
    "a measurement of another size": (partial(frozen, y=torch.zeros(3, 8, 8)), r"y is \(3, 8, 8\)"),
    "a measurement of integers": (partial(frozen, y=torch.zeros(3, 16, 16, dtype=torch.int32)), "y is .* torch.int32"),
    "a complex measurement": (partial(frozen, y=torch.zeros(3, 16, 16, dtype=torch.complex64)), "y is .* torch.complex64"),
    "a measurement that is not finite": (partial(frozen, y=torch.full((3, 16, 16), torch.nan)), "y has values that are not finite"),
    "a truth beyond the range": (partial(frozen, x0=torch.full((3, 16, 16), 9.0)), r"x0 has values beyond \[-1, 1\]"),
}

FREEZING = [
    Bad("evaluate.py", "measurements into a file", ["data.freeze=face.png"], "is no folder"),
    Bad("evaluate.py", "measurements below a file", ["data.freeze=face.png/m"], "is no folder"),
    Bad("evaluate.py", "measurements over others", ["data.freeze=m", "operator=identity"], "m holds other measurements", frozen),
]

TRAINING = [
    Bad(
        "train.py",
        "a zip without a readable image",
        ["data.root=odd.zip"],
        "1 of 1 image in odd.zip cannot be used, the first a.png: it is no",
        zipped,
    ),
    Bad("train.py", "a zip that is none", ["data.root=odd.zip"], "odd.zip is not a readable zip file", odd(b"PK\3\4no", "odd.zip")),
    Bad(
        "train.py",
        "PostScript for training",
        ["data.root=ps"],
        "1 of 1 image in ps cannot be used, the first a.png: it is no image of",
        lambda folder: (folder / "ps").mkdir() or ((folder / "ps" / "a.png").write_bytes(POSTSCRIPT) and None),
    ),
    Bad(
        "train.py",
        "links to nothing for training",
        ["data.root=ps"],
        "the first a.png: it is a link to nothing",
        lambda folder: (folder / "ps").mkdir() or (folder / "ps" / "a.png").symlink_to("b"),
    ),
    Bad("train.py", "a pipe for training", ["data.root=odd.png"], "no folder and no zip at odd.png", pipe),
]

ROWS = [
    *image_file_rows(),
    *EMPTY,
    *NAMES,
    *OUTPUTS,
    *(Bad("sample.py", f"a kernel {what}", ARRAY, says, make) for what, (make, says) in KERNELS.items()),
    *SIZES,
    *(Bad("evaluate.py", f"frozen: {what}", READ, says, make) for what, (make, says) in FROZEN.items()),
    *FREEZING,
    *TRAINING,
]
