"""LPIPS (Zhang et al. 2018) from the `lpips` package, its trunk found without a surprise."""

from __future__ import annotations

import socket
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from diffusion_priors.runs.weights import fetch, read_state_dict


class TrunkMissing(LookupError):
    """The trunk's weights are neither configured, nor cached, nor to be fetched: LPIPS has no value."""


class LPIPS(nn.Module):
    """Perceptual distance of two images (B, 3 or 1, H, W) in [-1, 1], at least 32 pixels a side → (B,).

    `net` is the trunk: alex (what papers report), vgg or squeeze. Its ImageNet weights are looked for at `trunk`,
    then in torch's hub cache, then fetched as torchvision does (or from `url`) where `download` allows.
    `prepare` does this; it raises FileNotFoundError where `trunk` names no file, ValueError for a file that
    does not fit, TrunkMissing where there are no weights.
    """

    smallest = 32

    def __init__(
        self, net: Literal["alex", "vgg", "squeeze"] = "alex", trunk: str | None = None, download: bool = True, url: str | None = None
    ) -> None:
        super().__init__()
        self.net, self.trunk, self.download, self.url = net, trunk, download, url

    def prepare(self) -> None:
        import lpips

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # lpips speaks to an older torchvision
            self.distance = lpips.LPIPS(net=self.net, pnet_rand=True, verbose=False).eval().requires_grad_(False)
        path = self.locate()
        weights = read_state_dict(path)
        for name, parameter in self.distance.net.named_parameters():
            slice_and_layer = name.split(".", 1)[1]  # slice3.8.weight is the trunk's features.8.weight
            found = weights.get(f"features.{slice_and_layer}")
            if found is None or found.shape != parameter.shape:
                seen = "missing" if found is None else f"of shape {tuple(found.shape)}, wanted {tuple(parameter.shape)}"
                raise ValueError(f"{path} is no {self.net} trunk: features.{slice_and_layer} is {seen}; set metrics.lpips.trunk")
            parameter.data.copy_(found)

    def locate(self) -> Path:
        if self.trunk is not None:
            if not Path(self.trunk).is_file():
                raise FileNotFoundError(f"no LPIPS trunk at {self.trunk}; set metrics.lpips.trunk")
            return Path(self.trunk)
        url = self.url or _torchvision_url(self.net)
        cached = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
        if not cached.is_file():
            if not self.download:
                raise TrunkMissing(f"no trunk in {cached.parent} and metrics.lpips.download is off")
            try:
                with _timeout(10.0):
                    fetch(url, cached, cached.stem.rsplit("-", 1)[-1])
            except (OSError, ValueError) as error:
                raise TrunkMissing(f"the {self.net} trunk is not at hand ({error}); set metrics.lpips.trunk to its file") from error
        return cached

    @torch.no_grad()
    def forward(self, x: Tensor, reference: Tensor) -> Tensor:
        if x.shape[1] == 1:
            x, reference = x.expand(-1, 3, -1, -1), reference.expand(-1, 3, -1, -1)
        return self.distance(x, reference).flatten()


def _torchvision_url(net: str) -> str:
    from torchvision import models

    weights = {"alex": models.AlexNet_Weights, "vgg": models.VGG16_Weights, "squeeze": models.SqueezeNet1_1_Weights}
    return weights[net].IMAGENET1K_V1.url


@contextmanager
def _timeout(seconds: float):
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
