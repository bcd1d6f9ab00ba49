"""Metrics: per image, on the images as saved; LPIPS compared with its published values; where its trunk comes from."""

from __future__ import annotations

import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.signal import convolve2d

from diffusion_priors.evaluation.metrics.lpips import LPIPS, TrunkMissing
from diffusion_priors.evaluation.metrics.per_image import Metrics
from diffusion_priors.evaluation.scores import explains

SHARED = Path(__file__).resolve().parents[4] / "shared" / "lpips"
needs_trunk = pytest.mark.skipif(not SHARED.is_dir(), reason="the LPIPS trunk weights (../shared/lpips) are not here")


def images(batch: int = 3, side: int = 24, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(-1, 1, (batch, 3, side, side))).float()


def test_psnr_is_per_image_and_on_eight_bits():
    """−10 log10 of each image's own mean squared error. One bad image of a batch does not affect the others."""
    truth = images()
    x = truth + torch.tensor([0.0, 0.05, 0.5]).view(3, 1, 1, 1)
    bits = [((v.clamp(-1, 1) + 1) * 127.5).round().double() / 255 for v in (x, truth)]
    mse = (bits[0] - bits[1]).square().mean((1, 2, 3))
    values = Metrics()(x, truth)["psnr"]
    assert values[0] == float("inf")
    assert values[1:] == pytest.approx((-10 * mse[1:].log10()).tolist(), abs=1e-3)
    unrounded = Metrics(round_to_8bit=False)(x, truth)["psnr"][1]
    exact = ((x.clamp(-1, 1) - truth) / 2)[1].double().square().mean()
    assert unrounded == pytest.approx(-10 * exact.log10().item(), abs=1e-3)


def ssim_of_wang(a: np.ndarray, b: np.ndarray) -> float:
    """Wang et al. 2004, Eq. 13, for one channel in [0, 1]: windows that lie in the image, 11 x 11, Gaussian, std 1.5."""
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    window /= window.sum()

    def local(v):
        return convolve2d(v, window, mode="valid")

    ma, mb = local(a), local(b)
    va, vb, cov = local(a * a) - ma**2, local(b * b) - mb**2, local(a * b) - ma * mb
    c1, c2 = 0.01**2, 0.03**2
    return float(np.mean((2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))))


@pytest.mark.parametrize("shape", [(11, 11), (11, 40), (40, 64), (64, 64)])
@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_is_that_of_wang(shape, channels):
    """Over windows that lie in the image, as in the authors' code and scikit-image (gaussian_weights, no sample covariance)."""
    rng = np.random.default_rng(2)
    truth = gaussian_filter(rng.normal(size=(2, channels, *shape)), (0, 0, 3, 3)) * 3
    x = truth + gaussian_filter(rng.normal(size=truth.shape), (0, 0, 1, 1)) * 0.5
    x[:, :, :4] = 1.0  # a border that is wrong
    a, b = (np.clip(v, -1, 1) / 2 + 0.5 for v in (x, truth))
    expected = [np.mean([ssim_of_wang(*planes) for planes in zip(p, q, strict=True)]) for p, q in zip(a, b, strict=True)]
    tensors = (torch.from_numpy(v).float() for v in (x, truth))
    assert Metrics(round_to_8bit=False)(*tensors)["ssim"] == pytest.approx(expected, abs=2e-5)


def test_metrics_of_an_image_do_not_depend_on_its_batch():
    x, truth = images(3), images(3, seed=1)
    together, alone = Metrics()(x, truth), Metrics()(x[1:2], truth[1:2])
    for name in ("psnr", "ssim"):
        assert together[name][1] == pytest.approx(alone[name][0], abs=1e-5)


def test_ssim_of_a_small_image_has_no_value():
    values = Metrics()(images(2, 8), images(2, 8, seed=1))
    assert np.isnan(values["ssim"]).all() and np.isfinite(values["psnr"]).all()


@needs_trunk
@pytest.mark.parametrize(
    ("net", "file", "published", "tolerance"),
    [("alex", "alexnet", (0.7219, 0.1376), 6e-5), ("squeeze", "squeezenet1_1", (0.711, 0.148), 6e-4)],
)
def test_lpips_equals_its_published_values(net, file, published, tolerance):
    lpips = LPIPS(net, trunk=str(SHARED / f"{file}_features.pth"))
    lpips.prepare()

    def load(name):
        pixels = np.asarray(Image.open(SHARED / "imgs" / name).convert("RGB"), dtype=np.float32)
        return torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1

    reference = load("ex_ref.png")
    distances = [lpips(load(name), reference).item() for name in ("ex_p0.png", "ex_p1.png")]
    assert distances == pytest.approx(published, abs=tolerance)
    both = lpips(torch.cat([load("ex_p0.png"), load("ex_p1.png")]), torch.cat([reference] * 2))
    assert both.tolist() == pytest.approx(distances, abs=1e-5)


@pytest.fixture(scope="module")
def trunk(tmp_path_factory) -> Path:
    """A whole AlexNet with random weights, in a file named by its hash as torchvision's files are."""
    from torchvision.models import alexnet

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("served")
    slim = {name: value for name, value in alexnet().state_dict().items() if name.startswith("features")}
    torch.save(slim, folder / "x.pth")
    digest = hashlib.sha256((folder / "x.pth").read_bytes()).hexdigest()[:8]
    return (folder / "x.pth").rename(folder / f"alexnet-owt-{digest}.pth")


@pytest.fixture
def server(trunk):
    handler = partial(SimpleHTTPRequestHandler, directory=str(trunk.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_address[1]}"
        served.shutdown()


@pytest.mark.script
def test_the_trunk_is_downloaded_once_then_cached(server, trunk, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    lpips = LPIPS(url=f"{server}/{trunk.name}")
    lpips.prepare()
    weights = torch.load(trunk, weights_only=True)
    assert torch.equal(lpips.distance.net.slice1[0].weight, weights["features.0.weight"])
    assert torch.equal(lpips.distance.net.slice5[0].bias, weights["features.10.bias"])
    assert LPIPS(url=f"http://127.0.0.1:9/{trunk.name}").locate() == tmp_path / "checkpoints" / trunk.name
    x = images(1, 64)
    assert lpips(x, x).item() == 0.0 and lpips(x, images(1, 64, seed=1)).item() > 0.0


def test_a_missing_trunk_is_a_footnote(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(TrunkMissing, match="is not available"):
        LPIPS(url="http://127.0.0.1:9/alexnet-owt-7be5be79.pth").prepare()
    with pytest.raises(TrunkMissing, match="download is off"):
        LPIPS(download=False).prepare()
    metrics = Metrics(LPIPS(download=False))
    metrics.prepare()
    assert "download is off" in metrics.footnote
    assert np.isnan(metrics(images(1, 40), images(1, 40))["lpips"]).all()


@pytest.mark.parametrize(
    ("size", "footnote"),
    [
        ((64, 31), "LPIPS, LPIPS squeeze: needs images of 32 x 32 pixels or more, these have 64 x 31"),
        (
            (10, 16),
            (
                "SSIM: needs images of 11 x 11 pixels or more, these have 10 x 16; "
                "LPIPS, LPIPS squeeze: needs images of 32 x 32 pixels or more, these have 10 x 16"
            ),
        ),
    ],
)
def test_images_that_are_too_small_are_a_footnote_and_need_no_trunk(size, footnote):
    metrics = Metrics(LPIPS(trunk="nowhere.pth"), lpips_squeeze=LPIPS("squeeze", trunk="nowhere.pth"))
    metrics.prepare(size)
    assert metrics.footnote == footnote
    values = metrics(torch.zeros(1, 3, *size), torch.zeros(1, 3, *size))
    for name in metrics.names:
        assert np.isnan(values[name][0]) == explains(footnote, name), name


def test_without_a_ground_truth_every_metric_has_the_reason():
    metrics = Metrics(lpips_vgg=LPIPS("vgg"))
    metrics.without_truth()
    assert metrics.footnote == "PSNR, SSIM, LPIPS, LPIPS vgg: there is no ground truth"
    assert all(explains(metrics.footnote, name) for name in metrics.names)


def test_a_wrong_trunk_is_refused(trunk, tmp_path):
    with pytest.raises(FileNotFoundError, match="no LPIPS trunk at"):
        LPIPS(trunk=str(tmp_path / "none.pth")).prepare()
    with pytest.raises(ValueError, match="is not a squeeze trunk: features"):
        LPIPS("squeeze", trunk=str(trunk)).prepare()
