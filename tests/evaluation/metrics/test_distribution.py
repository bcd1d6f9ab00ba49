"""FID and KID compared with their formulas, with a tiny network in place of Inception; Inception itself with random weights."""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from lazy import Lazy
from misfortune import Mischief
from PIL import Image
from scipy.linalg import sqrtm
from torch import nn

from diffusion_priors.evaluation.metrics.distribution import Distribution, Inception

FIDELITY = "torch_fidelity.feature_extractor_inceptionv3"
fidelity = Lazy(FIDELITY)
needs_fidelity = pytest.mark.skipif(find_spec("torch_fidelity") is None, reason='torch-fidelity is not installed (pip install -e ".[fid]")')


class Tiny(nn.Module):
    """(B, 3, H, W) uint8 → (B, 5). Its dropout and running averages reveal a network left in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, stride=2)
        with torch.no_grad():
            for i, parameter in enumerate(self.parameters()):
                parameter.copy_(torch.from_numpy(np.random.default_rng(i).normal(size=parameter.shape)))
        self.norm, self.drop = nn.BatchNorm2d(5), nn.Dropout(0.5)
        self.sizes: list[int] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert images.dtype == torch.uint8
        self.sizes.append(len(images))
        return self.drop(self.norm(self.conv(images.float() / 255))).sigmoid().mean((2, 3))


def tiny(least: int = 24, kid_subsets: int = 3, kid_subset_size: int = 24, **settings: object) -> Distribution:
    return Distribution(Tiny(), None, least, kid_subsets, kid_subset_size, **settings)


def save(folder: Path, pixels: np.ndarray) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"{i}.png" for i in range(len(pixels))]
    for path, own in zip(paths, pixels, strict=True):
        Image.fromarray(own).save(path)
    return paths


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> tuple[list[Path], list[Path]]:
    """24 images and 24 brighter, smoother ones, 8 x 10."""
    rng, root = np.random.default_rng(0), tmp_path_factory.mktemp("sets")
    real = rng.integers(0, 256, (24, 8, 10, 3), dtype=np.uint8)
    made = (rng.integers(60, 200, (24, 8, 1, 3)) + rng.integers(0, 30, (24, 8, 10, 3))).astype(np.uint8)
    return save(root / "real", real), save(root / "made", made)


def features(paths: list[Path]) -> np.ndarray:
    pixels = torch.from_numpy(np.stack([np.asarray(Image.open(path)) for path in paths])).permute(0, 3, 1, 2)
    with torch.no_grad():
        return Tiny().eval()(pixels).double().numpy()


def frechet(x: np.ndarray, y: np.ndarray) -> float:
    covariances = [np.cov(one, rowvar=False) for one in (x, y)]
    root = sqrtm(covariances[0] @ covariances[1]).real
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)


def mmd(x: np.ndarray, y: np.ndarray) -> float:
    """The unbiased estimate with the kernel (x · y / D + 1)³, its sums written out."""

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return (a @ b / len(a) + 1) ** 3

    def within(z: np.ndarray) -> float:
        return np.mean([kernel(z[i], z[j]) for i in range(len(z)) for j in range(len(z)) if i != j])

    return within(x) + within(y) - 2 * np.mean([kernel(a, b) for a in x for b in y])


def test_fid_and_kid_equal_their_formulas(sets):
    real, made = sets
    found = tiny()(real, made)
    x, y = features(real), features(made)
    assert found["fid"] == pytest.approx(frechet(x, y), rel=1e-6) and found["fid"] > 0.01
    assert found["kid"] == pytest.approx(mmd(x, y), rel=1e-6) and found["kid"] > 0.001
    assert found["kid_std"] == pytest.approx(0.0, abs=1e-12)  # every subset is the whole set
    assert set(found) == {"fid", "kid", "kid_std"} and {type(value) for value in found.values()} == {float}


def test_a_set_has_distance_zero_to_itself_and_kid_is_unbiased(sets):
    """Between halves of one set FID stays above 0, and KID scatters around 0."""
    real, _ = sets
    same = tiny()(real, real)
    assert same["fid"] == pytest.approx(0.0, abs=1e-6)
    half = Distribution(Tiny(), least=12, kid_subset_size=12)
    found = [
        half([real[i] for i in order[:12]], [real[i] for i in order[12:]]) for order in map(np.random.default_rng(1).permutation, [24] * 12)
    ]
    kids = np.array([one["kid"] for one in found])
    assert min(one["fid"] for one in found) > 0.0
    assert kids.min() < 0 < kids.max() and abs(kids.mean()) < 3 * kids.std() / np.sqrt(12)


def test_kid_subsets_use_a_fixed_seed_and_disturb_no_other_draw(sets):
    real, made = sets
    distribution = tiny(kid_subsets=20, kid_subset_size=6)
    torch.manual_seed(5)
    untouched = torch.rand(4)
    torch.manual_seed(5)
    first = distribution(real, made)
    assert torch.equal(torch.rand(4), untouched)
    assert tiny(kid_subsets=20, kid_subset_size=6)(real, made) == first
    x, y = features(real), features(made)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = [(torch.randperm(24)[:6].numpy(), torch.randperm(24)[:6].numpy()) for _ in range(20)]
    kids = [mmd(x[a], y[b]) for a, b in drawn]
    assert (first["kid"], first["kid_std"]) == pytest.approx((np.mean(kids), np.std(kids)), rel=1e-6)
    assert first["fid"] == tiny()(real, made)["fid"]


def test_the_batch_size_does_not_change_the_result(sets):
    real, made = sets
    whole, parts = tiny(batch_size=100), tiny(batch_size=7)
    expected = whole(real, made)
    assert parts(real, made) == pytest.approx(expected, rel=1e-5, abs=1e-12)
    assert whole.features.sizes == [24, 24] and parts.features.sizes == [7, 7, 7, 3] * 2
    assert tiny()(real[::-1], made) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_the_two_sets_may_differ_in_size(sets):
    real, made = sets
    found = tiny(least=12, kid_subset_size=12)(real, made[:12])
    assert found["fid"] == pytest.approx(frechet(features(real), features(made[:12])), rel=1e-6)


def test_a_second_call_is_independent_of_the_first(sets):
    real, made = sets
    distribution = tiny()
    distribution(made, real)
    assert distribution(real, made) == tiny()(real, made)


def test_a_grey_image_counts_as_three_equal_channels(sets, tmp_path):
    grey = np.random.default_rng(2).integers(0, 256, (24, 8, 10), dtype=np.uint8)
    colour = save(tmp_path / "colour", np.repeat(grey[..., None], 3, axis=-1))
    assert tiny()(sets[0], save(tmp_path / "grey", grey)) == tiny()(sets[0], colour)


def test_an_error_names_the_bad_image(sets, tmp_path):
    real, made = sets
    (tmp_path / "damaged.png").write_bytes(made[0].read_bytes()[:60])
    Image.new("RGB", (4, 4)).save(tmp_path / "small.png")
    for path, message in ((tmp_path / "damaged.png", "damaged"), (tmp_path / "small.png", "it is 4 x 4, wanted is 8 x 10")):
        with pytest.raises(ValueError, match=rf"{path.name}.*{message}|{path.name}: "):
            tiny()(real, [path, *made[1:]])
    with pytest.raises(FileNotFoundError, match="none"):
        tiny()(real, [tmp_path / "none.png", *made[1:]])


def test_too_few_images_are_refused_before_anything_is_read(sets):
    message = "FID of 49 images is not meaningful, at least 1000 are needed; set metrics.distribution.least to change this"
    with pytest.raises(ValueError, match=message):
        Distribution().check(49)
    for real, made in ((sets[0], sets[1][:23]), (sets[0][:23], sets[1])):
        distribution = tiny()
        with pytest.raises(ValueError, match="FID of 23 images"):
            distribution(real, made)
        assert distribution.features.sizes == []
    tiny().check(24)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"least": 1}, "least must be at least 2, got 1; set metrics.distribution.least"),
        ({"kid_subsets": 0}, "kid_subsets must be at least 1, got 0"),
        ({"kid_subset_size": 1}, "kid_subset_size must be at least 2, got 1"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"least": 100}, "subsets of 500 from 100 images; set metrics.distribution.kid_subset_size to 100 or less"),
    ],
)
def test_numbers_out_of_bounds_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Distribution(**settings)


def test_features_of_a_wrong_shape_are_refused(sets):
    with pytest.raises(ValueError, match=r"features of shape \(24, 3, 8, 10\) are not \(B, D\)"):
        Distribution(nn.Identity(), least=24, kid_subset_size=24)(*sets)


def test_the_error_without_torch_fidelity_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(ValueError, match=r'pip install -e "\.\[fid\]"'):
        Distribution().check(1000)
    tiny().check(24)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Iterator[Path]:
    """Inception with random weights, in a file named by its hash as torch-fidelity's file is. Half precision saves time."""
    folder = tmp_path_factory.mktemp("inception")
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        torch.manual_seed(0)
        patch.setattr(f"{FIDELITY}.load_state_dict_from_url", lambda *args, **kwargs: {})
        patch.setattr(fidelity.FeatureExtractorInceptionV3, "load_state_dict", lambda *args: None)
        state = fidelity.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"]).state_dict()
    torch.save({name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}, folder / "x.pth")
    digest = hashlib.sha256((folder / "x.pth").read_bytes()).hexdigest()[:8]
    yield (folder / "x.pth").rename(folder / f"weights-inception-{digest}.pth")
    next(folder.glob("*.pth")).unlink()


@pytest.mark.slow
@needs_fidelity
def test_inception_equals_torch_fidelity(weights, sets):
    """The features equal those that torch-fidelity computes from the file, and no other draw is disturbed."""
    torch.manual_seed(5)
    untouched = torch.rand(4)
    torch.manual_seed(5)
    ours = Inception(str(weights))
    assert torch.equal(torch.rand(4), untouched)
    pixels = torch.from_numpy(np.stack([np.asarray(Image.open(path)) for path in sets[0][:2]])).permute(0, 3, 1, 2)
    theirs = fidelity.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(weights))
    expected = theirs(pixels)[0]
    assert torch.equal(ours(pixels), expected) and expected.shape == (2, 2048) and expected.std() > 0


@pytest.mark.slow
@needs_fidelity
def test_distances_with_inception(weights, sets):
    """With three images per set the product of the covariances has rank 2, so the trace of its root is that of a 3 x 3 matrix."""
    real, made = sets[0][:3], sets[1][:3]
    distribution = Distribution(weights=str(weights), least=3, kid_subset_size=3, kid_subsets=2)
    found = distribution.train()(real, made)
    x, y = (
        Inception(str(weights))(torch.from_numpy(np.stack([np.asarray(Image.open(path)) for path in paths])).permute(0, 3, 1, 2))
        for paths in (real, made)
    )
    x, y = x.double().numpy(), y.double().numpy()
    a, b = (one - one.mean(0) for one in (x, y))
    root = np.linalg.svd(a @ b.T / 2, compute_uv=False).sum()
    fid = ((x.mean(0) - y.mean(0)) ** 2).sum() + (a**2).sum() / 2 + (b**2).sum() / 2 - 2 * root
    assert found["fid"] == pytest.approx(fid, rel=1e-3) and fid > 0
    assert found["kid"] == pytest.approx(mmd(x, y), rel=1e-4, abs=1e-9)


@pytest.mark.script
@needs_fidelity
def test_inception_is_downloaded_once_then_read_from_the_cache(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    handler = partial(SimpleHTTPRequestHandler, directory=str(weights.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        monkeypatch.setattr(f"{FIDELITY}.URL_INCEPTION_V3", f"http://127.0.0.1:{served.server_address[1]}/{weights.name}")
        Distribution().check(1000)
        served.shutdown()
    cached = tmp_path / "checkpoints" / weights.name
    assert cached.read_bytes() == weights.read_bytes()
    monkeypatch.setattr(f"{FIDELITY}.URL_INCEPTION_V3", f"http://127.0.0.1:9/{weights.name}")
    Distribution().check(1000)
    cached.unlink()
    with pytest.raises(ValueError, match=rf"not available .*set metrics\.distribution\.weights to {weights.name}"):
        Distribution().check(1000)


@needs_fidelity
def test_wrong_weights_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no Inception weights at .*; set metrics.distribution.weights"):
        Distribution(weights=str(tmp_path / "none.pth")).check(1000)
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"does not hold torch-fidelity's Inception: .*Missing key") as caught:
        Distribution(weights=str(tmp_path / "other.pth")).check(1000)
    assert "\n" not in str(caught.value)


@needs_fidelity
def test_code_in_a_file_of_weights_is_not_run(tmp_path):
    """torch-fidelity itself would run it, because it unpickles the whole file."""
    torch.save({"fc.weight": Mischief(tmp_path / "made")}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="pickled code"):
        Distribution(weights=str(tmp_path / "evil.pth")).check(1000)
    assert not (tmp_path / "made").exists()
    torch.load(tmp_path / "evil.pth", weights_only=False)
    assert (tmp_path / "made").exists()
