"""FID and KID: how far the restorations, as a set of images, are from the truths."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from diffusion_priors.evaluation.metrics.lpips import _timeout
from diffusion_priors.images.fit import Exact
from diffusion_priors.images.io import as_bits, read_image
from diffusion_priors.runs.weights import fetch, read_state_dict

SEED = 0
"""Of the subsets that KID draws: runs over as many images draw the same ones."""


class Distribution(nn.Module):
    """FID = |μ − μ'|² + tr(Σ + Σ' − 2 (Σ Σ')^½) (Heusel et al. 2017) and KID, the unbiased MMD² (Bińkowski et al. 2018).

    Both compare features of images: torch-fidelity's Inception, whose layers and resizing are those of the original
    TensorFlow code, with its file of weights at `weights`, else in torch's hub cache, else fetched as torch-fidelity
    does. `features`, a module from uint8 (B, 3, H, W) to (B, D), stands in for it. KID is the mean over `kid_subsets`
    random subsets of `kid_subset_size` images, and kid_std their standard deviation. FID is biased upwards, the more
    so the fewer images there are (compare it at equal numbers only), and refused below `least`; KID is not biased.

    An image's features are kept until the end: 16 KiB each. Raises ValueError for numbers out of bounds.
    """

    def __init__(
        self,
        features: nn.Module | None = None,
        weights: str | None = None,
        least: int = 1000,
        kid_subsets: int = 100,
        kid_subset_size: int = 500,
        batch_size: int = 32,
    ) -> None:
        super().__init__()
        for name, value, lowest in (
            ("least", least, 2),
            ("kid_subsets", kid_subsets, 1),
            ("kid_subset_size", kid_subset_size, 2),
            ("batch_size", batch_size, 1),
        ):
            if value < lowest:
                raise ValueError(f"metrics.distribution.{name} must be at least {lowest}, got {value}; set metrics.distribution.{name}")
        if kid_subset_size > least:
            told = f"KID cannot draw subsets of {kid_subset_size} from {least} images"
            raise ValueError(f"{told}; set metrics.distribution.kid_subset_size to {least} or less")
        self.features, self.weights, self.least, self.batch_size = features, weights, least, batch_size
        self.kid_subsets, self.kid_subset_size = kid_subsets, kid_subset_size
        self.register_buffer("place", torch.empty(0), persistent=False)

    def check(self, count: int) -> None:
        """Load the network, before anything is sampled for it.

        Raises ValueError for fewer than `least` images, without torch-fidelity or its weights, or for a wrong file,
        FileNotFoundError where `weights` names none.
        """
        if count < self.least:
            raise ValueError(
                f"FID of {count} images says nothing: at least {self.least} are wanted; set metrics.distribution.least to change it"
            )
        if self.features is None:
            self.features = Inception(self.weights)

    @torch.no_grad()
    def forward(self, real: Sequence[Path], made: Sequence[Path]) -> dict[str, float]:
        """{"fid", "kid", "kid_std"} of two sets of image files, all of one size. Raises ValueError or OSError for a bad one."""
        self.check(min(len(real), len(made)))
        self.features.to(self.place.device).eval()
        with Image.open(real[0]) as first:
            size = first.height, first.width
        truths, restorations = self._features(real, size), self._features(made, size)
        given = Given(truths.shape[1])
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*will save all extracted features.*")
            kid = KernelInceptionDistance(given, self.kid_subsets, self.kid_subset_size, sync_on_compute=False)
        fid = FrechetInceptionDistance(given, sync_on_compute=False).to(truths.device)
        for distance in (fid, kid):
            distance.update(truths, real=True)
            distance.update(restorations, real=False)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(SEED)  # torch.manual_seed would seed the GPUs too
            mean, spread = kid.compute()
        return {"fid": fid.compute().item(), "kid": mean.item(), "kid_std": spread.item()}

    def _features(self, paths: Sequence[Path], size: tuple[int, int]) -> Tensor:
        """(N, D) float64: kernels and covariances are sums in which float32 would lose digits."""
        found = []
        for start in range(0, len(paths), self.batch_size):
            batch = torch.stack([as_bits(read_image(path, 3, size, Exact())) for path in paths[start : start + self.batch_size]])
            found.append(self.features(batch.to(self.place.device)).double())
        if found[0].ndim != 2:
            raise ValueError(f"features of shape {tuple(found[0].shape)} are no (B, D); set another metrics.distribution.features")
        return torch.cat(found)


class Given(nn.Module):
    """Features that are there already, for torchmetrics, which would compute them once for each distance."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


class Inception(nn.Module):
    """Images, uint8 (B, 3, H, W) → (B, 2048): the features of FID and KID as published. No code of the weights' file is run."""

    def __init__(self, weights: str | None = None) -> None:
        super().__init__()
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3
        except ImportError as error:
            raise ValueError('FID and KID need torch-fidelity; install it with pip install -e ".[fid]", or leave them out') from error
        path = locate(weights, URL_INCEPTION_V3)
        clean = io.BytesIO()  # torch-fidelity unpickles whatever its file holds; this one holds tensors alone
        torch.save(read_state_dict(path), clean)
        clean.seek(0)
        try:
            with torch.random.fork_rng(devices=[]):  # the weights are drawn before they are loaded
                self.network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=clean)
        except RuntimeError as error:
            told = " ".join(str(error).split())[:200]
            raise ValueError(f"{path} does not hold torch-fidelity's Inception: {told}; set metrics.distribution.weights") from error

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)[0]


def locate(weights: str | None, url: str) -> Path:
    """The file `weights`, else the one that torch's hub caches of `url`, fetched if need be."""
    if weights is not None:
        if not Path(weights).is_file():
            raise FileNotFoundError(f"no Inception weights at {weights}; set metrics.distribution.weights")
        return Path(weights)
    cached = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    if not cached.is_file():
        try:
            with _timeout(10.0):
                fetch(url, cached, cached.stem.rsplit("-", 1)[-1])
        except (OSError, ValueError) as error:
            raise ValueError(f"Inception's weights are not at hand ({error}); set metrics.distribution.weights to {cached.name}") from error
    return cached
