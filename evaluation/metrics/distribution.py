"""FID and KID: how far the restorations, as a set of images, are from the ground truths."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from diffusion_priors.images.fit import Exact
from diffusion_priors.images.io import as_bits, image_size, read_image
from diffusion_priors.runs.weights import find_or_fetch, hub_cache, read_state_dict

SEED = 0
"""Seed of the subsets that KID draws: runs over equally many images draw the same subsets."""


class Distribution(nn.Module):
    """FID = |μ − μ'|² + tr(Σ + Σ' − 2 (Σ Σ')^½) (Heusel et al. 2017) and KID, the unbiased MMD² (Bińkowski et al. 2018).

    Both compare features of images. By default these are torch-fidelity's Inception features, whose layers and resizing
    equal those of the original TensorFlow code. Its weights come from the file `weights`, else from torch's hub cache,
    else by download. `features`, a module from uint8 (B, 3, H, W) to (B, D), replaces Inception. KID is the mean over
    `kid_subsets` random subsets of `kid_subset_size` images, and kid_std their standard deviation. FID is biased upwards,
    more so for fewer images: compare it only at equal numbers. It is refused below `least` images. KID is not biased.

    The features of all images are kept in memory, 16 KiB per image. Raises ValueError for numbers out of bounds.
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
            problem = f"KID cannot draw subsets of {kid_subset_size} from {least} images"
            raise ValueError(f"{problem}; set metrics.distribution.kid_subset_size to {least} or less")
        self.features, self.weights, self.least, self.batch_size = features, weights, least, batch_size
        self.kid_subsets, self.kid_subset_size = kid_subsets, kid_subset_size
        self.register_buffer("anchor", torch.empty(0), persistent=False)

    def check(self, count: int) -> None:
        """Load the network, before any image is sampled.

        Raises ValueError for fewer than `least` images, if torch-fidelity or its weights are missing, and for a wrong
        file. Raises FileNotFoundError if there is no file `weights`.
        """
        if count < self.least:
            raise ValueError(
                f"FID of {count} images is not meaningful, at least {self.least} are needed; set metrics.distribution.least to change this"
            )
        if self.features is None:
            self.features = Inception(self.weights)

    @torch.no_grad()
    def forward(self, real: Sequence[Path], made: Sequence[Path]) -> dict[str, float]:
        """{"fid", "kid", "kid_std"} of two sets of image files, all of the same size. Raises ValueError or OSError for a bad file."""
        from torchmetrics.image.fid import FrechetInceptionDistance  # slow to import
        from torchmetrics.image.kid import KernelInceptionDistance

        self.check(min(len(real), len(made)))
        self.features.to(self.anchor.device).eval()
        size, _ = image_size(real[0])
        truths, restorations = self._features(real, size), self._features(made, size)
        precomputed = PrecomputedFeatures(truths.shape[1])
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*will save all extracted features.*")
            kid = KernelInceptionDistance(precomputed, self.kid_subsets, self.kid_subset_size, sync_on_compute=False)
        fid = FrechetInceptionDistance(precomputed, sync_on_compute=False).to(truths.device)
        for distance in (fid, kid):
            distance.update(truths, real=True)
            distance.update(restorations, real=False)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(SEED)  # torch.manual_seed would also seed the GPUs
            mean, deviation = kid.compute()
        return {"fid": fid.compute().item(), "kid": mean.item(), "kid_std": deviation.item()}

    def _features(self, paths: Sequence[Path], size: tuple[int, int]) -> Tensor:
        """(N, D) float64: float32 would lose digits in the sums of kernels and covariances."""
        found = []
        for start in range(0, len(paths), self.batch_size):
            batch = torch.stack([as_bits(read_image(path, 3, size, Exact())) for path in paths[start : start + self.batch_size]])
            found.append(self.features(batch.to(self.anchor.device)).double())
        if found[0].ndim != 2:
            raise ValueError(f"features of shape {tuple(found[0].shape)} are not (B, D); set another metrics.distribution.features")
        return torch.cat(found)


class PrecomputedFeatures(nn.Module):
    """Pass features through: torchmetrics would otherwise compute them once per distance."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


class Inception(nn.Module):
    """Images, uint8 (B, 3, H, W) → (B, 2048): the published features of FID and KID. No code from the file of weights is run."""

    def __init__(self, weights: str | None = None) -> None:
        super().__init__()
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3
        except ImportError as error:
            raise ValueError('FID and KID need torch-fidelity; run pip install -e ".[fid]", or set metrics.distribution=null') from error
        path = locate(weights, URL_INCEPTION_V3)
        clean = io.BytesIO()  # torch-fidelity unpickles its whole file; this copy holds only tensors
        torch.save(read_state_dict(path), clean)
        clean.seek(0)
        try:
            with torch.random.fork_rng(devices=[]):  # the weights are drawn at random before they are loaded
                self.network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=clean)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{path} does not hold torch-fidelity's Inception: {reason}; set metrics.distribution.weights") from error

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)[0]


def locate(weights: str | None, url: str) -> Path:
    """The file `weights`, else the file of `url` in torch's hub cache, downloaded if it is not there."""
    cached = hub_cache() / url.rsplit("/", 1)[1]
    try:
        sha256 = cached.stem.rsplit("-", 1)[-1]
        return find_or_fetch("Inception weights", weights, cached, url, sha256, "set metrics.distribution.weights", timeout=10.0)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise ValueError(f"Inception's weights are not available ({error}); set metrics.distribution.weights to {cached.name}") from error
