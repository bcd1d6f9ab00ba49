"""LPIPS (Zhang et al. 2018) from the `lpips` package, with the weights of its trunk from a file, a cache or a download."""

from __future__ import annotations

import warnings
from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from diffusion_priors.runs.weights import find_or_fetch, hub_cache, read_state_dict


class TrunkMissing(LookupError):
    """The weights of the trunk are not configured, not cached and cannot be downloaded, so LPIPS has no value."""


class LPIPS(nn.Module):
    """Perceptual distance of two images (B, 3 or 1, H, W) in [-1, 1], at least 32 pixels a side → (B,).

    `net` is the trunk: alex (which papers report), vgg or squeeze. `prepare` loads its ImageNet weights from the file
    `trunk`, else from torch's hub cache, else by downloading torchvision's file (or `url`) if `download` is true.
    It raises FileNotFoundError if there is no file `trunk`, ValueError for a file that does not fit, and TrunkMissing
    if there are no weights.
    """

    smallest = 32

    def __init__(
        self, net: Literal["alex", "vgg", "squeeze"] = "alex", trunk: str | None = None, download: bool = True, url: str | None = None
    ) -> None:
        super().__init__()
        self.net, self.trunk, self.download, self.url = net, trunk, download, url

    def prepare(self) -> None:
        path = self.locate()
        facts = path.stat()
        self.distance = _distance(self.net, path, facts.st_mtime_ns, facts.st_size)

    def locate(self) -> Path:
        url = self.url or _torchvision_url(self.net)
        cached = hub_cache() / url.rsplit("/", 1)[1]
        sha256 = cached.stem.rsplit("-", 1)[-1]  # torchvision's file names end in the beginning of their hash
        advice = "set metrics.lpips.trunk" if self.download or self.trunk else "metrics.lpips.download is off"
        try:
            return find_or_fetch("LPIPS trunk", self.trunk, cached, url if self.download else None, sha256, advice, timeout=10.0)
        except (OSError, ValueError) as error:
            if self.trunk is not None:
                raise
            raise TrunkMissing(f"the {self.net} trunk is not available ({error}); set metrics.lpips.trunk to its file") from error

    @torch.no_grad()
    def forward(self, x: Tensor, reference: Tensor) -> Tensor:
        if x.shape[1] == 1:
            x, reference = x.expand(-1, 3, -1, -1), reference.expand(-1, 3, -1, -1)
        return self.distance(x, reference).flatten()


@lru_cache(maxsize=3)
def _distance(net: str, path: Path, *_state_of_the_file: int) -> nn.Module:
    """The network of `net` with the weights of a file. The jobs of a sweep share it: nothing changes it but moves to a device."""
    import lpips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lpips uses an older interface of torchvision
        distance = lpips.LPIPS(net=net, pnet_rand=True, verbose=False).eval().requires_grad_(False)
    weights = read_state_dict(path)
    for name, parameter in distance.net.named_parameters():
        slice_and_layer = name.split(".", 1)[1]  # slice3.8.weight is the trunk's features.8.weight
        found = weights.get(f"features.{slice_and_layer}")
        if found is None or found.shape != parameter.shape:
            seen = "missing" if found is None else f"of shape {tuple(found.shape)}, wanted {tuple(parameter.shape)}"
            raise ValueError(f"{path} is not a {net} trunk: features.{slice_and_layer} is {seen}; set metrics.lpips.trunk")
        parameter.data.copy_(found)
    return distance


def _torchvision_url(net: str) -> str:
    from torchvision import models

    weights = {"alex": models.AlexNet_Weights, "vgg": models.VGG16_Weights, "squeeze": models.SqueezeNet1_1_Weights}
    return weights[net].IMAGENET1K_V1.url
