"""Images: every kind of file becomes the same tensor, saving loses nothing, and names are unique."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_priors.images.fit import Crop, Exact, Stretch, resize
from diffusion_priors.images.io import read_image, to_image


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def read(path: Path, channels: int = 3, size: tuple[int, int] | None = None, fit=None) -> torch.Tensor:
    if size is None:
        with Image.open(path) as image:
            size = image.size[::-1]
    return read_image(path, channels, size, fit or Exact())


def bits(x: torch.Tensor) -> np.ndarray:
    """[-1, 1] → 0 … 255, (H, W, C), checked to be on that grid."""
    values = (x.double() * 127.5 + 127.5).permute(1, 2, 0).numpy()
    assert np.abs(values - values.round()).max() < 1e-4 and values.min() > -1e-4 and values.max() < 255 + 1e-4
    return values.round().astype(int)


@pytest.fixture
def save(tmp_path):
    """Save an image and return its path."""

    def save(image: Image.Image, name: str = "image.png", **options) -> Path:
        image.save(tmp_path / name, **options)
        return tmp_path / name

    return save


# Kinds of file


def test_rgb(save):
    pixels = noise(9, 7, 3)
    assert np.array_equal(bits(read(save(Image.fromarray(pixels)))), pixels)


def test_grey_becomes_three_equal_channels_or_one(save):
    pixels = noise(9, 7)
    path = save(Image.fromarray(pixels))
    assert np.array_equal(bits(read(path)), np.stack([pixels] * 3, axis=-1))
    assert np.array_equal(bits(read(path, channels=1)), pixels[..., None])


def test_colour_becomes_grey_by_its_luma(save):
    """Y = 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601), rounded."""
    pixels = noise(64, 64, 3)
    exact = pixels @ np.array([0.299, 0.587, 0.114])
    assert np.abs(bits(read(save(Image.fromarray(pixels)), channels=1))[..., 0] - exact).max() < 0.51


def test_transparency_is_composited_onto_white(save):
    """a c + (1 − a) 255 for every colour and opacity, up to rounding."""
    colour, alpha = np.meshgrid(np.arange(256), np.arange(256), indexing="ij")
    exact = alpha / 255 * colour + (255 - alpha)
    rgba = np.stack([colour, colour[::-1], np.full_like(colour, 128), alpha], axis=-1).astype(np.uint8)
    found = bits(read(save(Image.fromarray(rgba))))
    assert np.abs(found[..., 0] - exact).max() <= 1
    assert np.abs(found[..., 1] - (alpha / 255 * colour[::-1] + 255 - alpha)).max() <= 1
    assert (found[alpha == 0] == 255).all()
    assert np.array_equal(found[alpha == 255], rgba[alpha == 255][:, :3])
    grey = bits(read(save(Image.fromarray(np.stack([colour, alpha], axis=-1).astype(np.uint8)), "la.png")))
    assert np.abs(grey - exact[..., None]).max() <= 1
    single = bits(read(save(Image.fromarray(np.stack([colour, alpha], axis=-1).astype(np.uint8)), "la.png"), channels=1))
    assert np.abs(single - exact[..., None]).max() <= 1


def palette_image(indices: np.ndarray) -> tuple[Image.Image, np.ndarray]:
    colours = noise(16, 3, seed=5)
    image = Image.fromarray(indices).convert("P")
    image.frombytes(indices.tobytes())
    image.putpalette(colours.flatten().tolist())
    return image, colours


def test_a_palette_is_looked_up(save):
    indices = noise(9, 7) % 16
    image, colours = palette_image(indices)
    assert np.array_equal(bits(read(save(image))), colours[indices])


@pytest.mark.parametrize("name", ["image.png", "image.gif"])
def test_the_transparent_colour_of_a_palette_is_white(name, save):
    indices = noise(9, 7) % 16
    image, colours = palette_image(indices)
    colours = colours.copy()
    colours[3] = 255
    assert (indices == 3).any()
    assert np.array_equal(bits(read(save(image, name, transparency=3))), colours[indices])


def test_the_opacities_of_a_palette_are_composited_onto_white(save):
    indices = noise(9, 7) % 16
    image, colours = palette_image(indices)
    alpha = np.arange(16) * 17
    found = bits(read(save(image, transparency=bytes(alpha.tolist()))))
    exact = alpha[:, None] / 255 * colours + 255 - alpha[:, None]
    assert np.abs(found - exact[indices]).max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_rounded_to_eight(channels, save):
    """For every 16-bit value v: the integer nearest to 255 v / 65535."""
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    path = save(Image.fromarray(values))
    with Image.open(path) as image:
        assert image.mode == "I;16"
    expected = np.rint(values.astype(np.float64) / 257).astype(int)
    assert np.array_equal(bits(read(path, channels)), np.stack([expected] * channels, axis=-1))


def test_sixteen_bits_keep_their_depth_until_the_resize(save):
    """16-bit values are averaged and then rounded once, not twice."""
    values = np.random.default_rng(0).integers(0, 65536, (32, 32), dtype=np.uint16)
    mean = values.reshape(8, 4, 8, 4).astype(np.float64).mean(axis=(1, 3)) / 257
    found = bits(read(save(Image.fromarray(values)), 1, (8, 8), Stretch()))[..., 0]
    assert np.abs(found - mean).max() < 0.501


def test_sixteen_bits_in_a_tiff_of_either_byte_order(save):
    values = noise(9, 7).astype(np.uint16) * 257
    for dtype in ("<u2", ">u2"):
        path = save(Image.fromarray(values.astype(dtype)), "image.tif")
        assert np.array_equal(bits(read(path, 1))[..., 0], values // 257)


def test_floats_are_fractions_of_white(save):
    values = noise(9, 7)
    stretched = (values / np.float32(255)).astype(np.float32)
    assert np.array_equal(bits(read(save(Image.fromarray(stretched), "image.tif"), 1))[..., 0], values)
    assert bits(read(save(Image.fromarray(stretched * 3 - 1), "image.tif"), 1)).max() == 255  # what lies outside is clamped


def test_one_bit(save):
    values = noise(9, 7) > 127
    assert np.array_equal(bits(read(save(Image.fromarray(values)), 1))[..., 0], values * 255)


def test_cmyk(save):
    """R = 255 (1 − C)(1 − K), up to the integer rounding."""
    cmyk = noise(9, 7, 4)
    found = bits(read(save(Image.frombytes("CMYK", (7, 9), cmyk.tobytes()), "image.tif")))
    inverted = 255 - cmyk.astype(float)
    assert np.abs(found - inverted[..., :3] * inverted[..., 3:] / 255).max() <= 1


def test_the_first_frame_of_an_animation(save):
    frames = [Image.fromarray(np.full((6, 6), value, dtype=np.uint8)) for value in (40, 200)]
    path = save(frames[0], "image.gif", save_all=True, append_images=frames[1:])
    assert (bits(read(path)) == 40).all()


UPRIGHT = {  # what each EXIF orientation asks to be done to the stored pixels
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_images_are_turned_upright_by_their_exif_tag(orientation, save):
    pixels = noise(9, 7, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    expected = UPRIGHT[orientation](pixels)
    path = save(Image.fromarray(pixels), exif=exif)
    assert np.array_equal(bits(read(path, size=expected.shape[:2])), expected)


# The grid of eight bits


@pytest.mark.parametrize("channels", [1, 3])
def test_reading_is_the_inverse_of_to_image_bit_for_bit(channels, save):
    """For each of the 256 values: file → tensor → file → tensor."""
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    pixels = pixels if channels == 1 else np.stack([pixels, pixels[::-1], pixels.T], axis=-1)
    first = read(save(Image.fromarray(pixels)), channels)
    image = to_image(first)
    assert image.mode == ("L" if channels == 1 else "RGB")
    assert np.array_equal(np.asarray(image), pixels)
    assert torch.equal(read(save(image, "again.png"), channels), first)
    assert (first.dtype, first.min().item(), first.max().item()) == (torch.float32, -1.0, 1.0)


def test_to_image_clamps_and_rounds():
    x = torch.tensor([-7.0, -1.0, -1 + 0.9 / 255, -1 + 1.1 / 255, 0.999, 1.0, 3.0, float("inf")])
    assert np.asarray(to_image(x.reshape(1, 2, 4))).flatten().tolist() == [0, 0, 0, 1, 255, 255, 255, 255]


def test_to_image_accepts_any_float_with_or_without_gradient():
    x = torch.linspace(-1, 1, 48, dtype=torch.float64).reshape(3, 4, 4).requires_grad_()
    assert np.array_equal(np.asarray(to_image(x)), np.asarray(to_image(x.detach().float())))


@pytest.mark.parametrize("fit", [Crop(), Stretch()], ids=["crop", "stretch"])
@pytest.mark.parametrize("size", [(8, 8), (5, 9), (40, 30), (64, 16)])
def test_the_values_are_on_the_grid_for_every_fit(fit, size, save):
    x = read(save(Image.fromarray(noise(24, 31, 3))), 3, size, fit)
    bits(x)
    assert tuple(x.shape) == (3, *size) and x.abs().max() <= 1 and x.is_contiguous()


# Fits


def block_mean(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    height, width = pixels.shape[0] // size[0], pixels.shape[1] // size[1]
    return pixels.reshape(size[0], height, size[1], width, -1).astype(np.float64).mean(axis=(1, 3))


def area_mean(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The average over each new pixel's area, from how much of each old pixel lies in it."""

    def overlap(new: int, old: int) -> np.ndarray:
        edges = np.arange(new + 1) * old / new
        before = np.minimum(np.maximum(edges[:, None] - np.arange(old), 0), 1)  # share of each old pixel before an edge
        return np.diff(before, axis=0) * new / old

    return np.einsum("ih,hwc,jw->ijc", overlap(size[0], pixels.shape[0]), pixels, overlap(size[1], pixels.shape[1]))


@pytest.mark.parametrize(("shape", "size"), [((24, 24), (6, 6)), ((24, 36), (6, 6)), ((20, 30), (20, 10)), ((12, 18), (6, 6))])
def test_shrinking_by_whole_numbers_is_the_mean_of_blocks(shape, size, save):
    pixels = noise(*shape, 3)
    np.testing.assert_allclose(resize(pixels.astype(np.float32) / 255, size), block_mean(pixels, size) / 255, atol=1e-6)
    found = bits(read(save(Image.fromarray(pixels)), 3, size, Stretch()))
    assert np.abs(found - block_mean(pixels, size)).max() < 0.501


@pytest.mark.parametrize(("shape", "size"), [((3, 3), (2, 2)), ((96, 96), (64, 64)), ((25, 40), (8, 12)), ((10, 7), (9, 7))])
def test_shrinking_by_any_factor_is_the_mean_over_the_area_of_each_new_pixel(shape, size):
    pixels = noise(*shape, 3).astype(np.float32) / 255
    np.testing.assert_allclose(resize(pixels, size), area_mean(pixels, size), atol=1e-6)


@pytest.mark.parametrize("size", [(2, 2), (64, 64), (17, 40), (128, 128), (96, 200)])
def test_resizing_a_mirrored_image_mirrors_the_result(size):
    """Nothing is shifted by a fraction of a pixel."""
    pixels = noise(96, 96, 1).astype(np.float32) / 255
    np.testing.assert_allclose(resize(pixels[:, ::-1], size), resize(pixels, size)[:, ::-1], atol=1e-5)
    np.testing.assert_allclose(resize(pixels[::-1], size), resize(pixels, size)[::-1], atol=1e-5)


@pytest.mark.parametrize("size", [(2, 2), (10, 10), (7, 9), (20, 30), (5, 30)])
def test_a_uniform_image_stays_uniform(size):
    np.testing.assert_allclose(resize(np.full((10, 10, 3), 0.3, dtype=np.float32), size), 0.3, atol=1e-6)


def test_growing_stays_in_range_where_bicubic_overshoots():
    checks = np.kron(np.indices((4, 4)).sum(axis=0) % 2, np.ones((3, 3)))[..., None].astype(np.float32)
    grown = resize(checks, (48, 48))
    assert grown.min() == 0.0 and grown.max() == 1.0


@pytest.mark.parametrize(
    ("shape", "size", "kept"),
    [
        ((24, 36), (6, 6), np.s_[:, 6:30]),
        ((36, 24), (6, 6), np.s_[6:30, :]),
        ((24, 36), (6, 9), np.s_[:, :]),
        ((24, 36), (12, 6), np.s_[:, 12:24]),
        ((24, 36), (3, 12), np.s_[7:16, :]),
    ],
)
def test_crop_keeps_the_largest_centred_part_of_the_wanted_shape(shape, size, kept, save):
    pixels = noise(*shape, 3)
    found = bits(read(save(Image.fromarray(pixels)), 3, size, Crop()))
    assert np.abs(found - block_mean(pixels[kept], size)).max() < 0.501


@pytest.mark.parametrize("shape", [(1, 500), (500, 1), (7, 3), (1, 1), (333, 64)])
@pytest.mark.parametrize("size", [(8, 8), (3, 50)])
def test_crop_accepts_any_shape(shape, size):
    assert Crop()(np.full((*shape, 1), 0.5, dtype=np.float32), size) == pytest.approx(np.full((*size, 1), 0.5))


def test_no_fit_changes_an_image_of_the_right_size():
    pixels = noise(8, 6, 3).astype(np.float32) / 255
    assert all(np.array_equal(fit(pixels, (8, 6)), pixels) for fit in (Crop(), Stretch(), Exact()))


def test_exact_refuses_another_size_and_names_the_image(save):
    path = save(Image.fromarray(noise(9, 7, 3)))
    with pytest.raises(ValueError, match=r"image\.png: it is 9 x 7, wanted is 7 x 9; use fit=crop or fit=stretch"):
        read(path, 3, (7, 9), Exact())


# Images that cannot be read


@pytest.mark.parametrize(
    "content", [b"", b"GIF89a", b"hello, I am a text", b"\x89PNG\r\n\x1a\n" + bytes(50)], ids=["empty", "head", "text", "zeros"]
)
def test_the_error_for_a_file_that_is_not_an_image_names_it(content, tmp_path):
    (tmp_path / "odd.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot use the image .*odd\.png: "):
        read_image(tmp_path / "odd.png", 3, (8, 8), Crop())


@pytest.mark.parametrize("name", ["cut.png", "cut.jpg", "cut.webp", "cut.tif", "cut.bmp"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_error_for_a_truncated_image_names_it(name, share, save):
    path = save(Image.fromarray(noise(40, 40, 3)), name)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=rf"cannot use the image .*{name}: "):
        read_image(path, 3, (8, 8), Crop())


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_image_is_read_or_refused(save):
    """With random bytes changed, a file of any kind is read, or refused with ValueError."""
    random = np.random.default_rng(0)
    refused = 0
    for name in ("a.png", "a.jpg", "a.webp", "a.bmp", "a.tif", "a.gif", "a.ppm"):
        whole = save(Image.fromarray(noise(20, 20, 3)), name).read_bytes()
        for _ in range(25):
            damaged = bytearray(whole)
            for at in random.integers(0, min(len(whole), 300), 4):
                damaged[at] = random.integers(256)
            path = save(Image.new("L", (1, 1)), name)
            path.write_bytes(damaged)
            try:
                assert torch.isfinite(read_image(path, 3, (8, 8), Crop())).all()
            except ValueError as error:
                assert name in str(error)
                refused += 1
    assert refused > 20


def test_a_missing_file_is_a_file_not_found_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "none.png", 3, (8, 8), Crop())
