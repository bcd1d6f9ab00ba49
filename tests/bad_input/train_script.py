"""What train.py refuses: images, checkpoints, values."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import torch
from bad_input import UNET, Bad

from diffusion_priors.diffusion.networks.unet import UNet


def another_architecture(folder: Path) -> None:
    flags = {"image_size": 16, "num_channels": 16, "channel_mult": [1, 2], "attention_resolutions": [], "num_head_channels": 8}
    torch.save(UNet(**flags).state_dict(), folder / "other.pt")


def empty(folder: Path) -> None:
    shutil.rmtree(folder / "images")
    (folder / "images").mkdir()


def mostly_broken(folder: Path) -> None:
    for i in range(30):
        (folder / "images" / f"broken{i}.png").write_bytes(b"no image")


def one_image(folder: Path) -> None:
    for path in sorted((folder / "images").rglob("*.png"))[1:]:
        path.unlink()


def a_run(folder: Path) -> None:
    """A checkpoint and the configuration of a run with another learning rate."""
    (folder / "out" / "checkpoints").mkdir(parents=True)
    torch.save({"state_dict": {}}, folder / "out" / "checkpoints" / "step-00000009.ckpt")
    (folder / "out" / "config.yaml").write_text("config: {optimiser: {lr: 0.5}}")


GIVEN = ["prior=other.pt", "prior.size=[16,16]", *(f"prior.network.{flag}" for flag in UNET)]
BAD = {
    "no root": (["data.root=???"], "data.root is not set"),
    "missing folder": (["data.root=nowhere"], "no folder and no zip at nowhere"),
    "empty folder": ([], "no images in", empty),
    "mostly broken": ([], "30 of 34 images in images cannot be used", mostly_broken),
    "one image": ([], "has one image", one_image),
    "too small": (["prior.size=[32,32]"], "smaller than 32 x 32"),
    "size the network cannot take": (["prior.size=[15,15]"], "multiples of 2"),
    "another architecture": (GIVEN, "does not fit the network", another_architecture),
    "network with a prior": (["prior=faces64", "network=unet64"], "brings its own network"),
    "no such prior": (["prior=nonsense"], "prior=nonsense is unknown"),
    "memory": (["batch_size=4000000"], "raise accumulate"),
    "uneven": (["accumulate=3"], "cannot be split evenly"),
    "steps": (["steps=0"], "steps must be at least 1"),
    "kind": (["optimiser.lr=fast"], "optimiser.lr='fast' is of the wrong kind"),
    "rate": (["optimiser.lr=-1.0"], "learning rate must be positive"),
    "ema": (["ema=1.0"], "ema is the decay"),
    "unknown key": (["+momentum=0.9"], "momentum is unknown"),
    "level": (["validation.levels=[1000]"], "outside the schedule"),
    "gpu": (["trainer=gpu"], "torch sees no CUDA device"),
    "half precision": (["trainer.precision=16"], "trainer.precision=16 needs a GPU"),
    "no device": (["trainer.devices=0"], "trainer.devices must be at least 1"),
    "another run": (["steps=20"], "optimiser.lr was 0.5, is 0.0002", a_run),
}

ROWS = [Bad("train.py", what, overrides, re.escape(says), *prepare) for what, (overrides, says, *prepare) in BAD.items()]
