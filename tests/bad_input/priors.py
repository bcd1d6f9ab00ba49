"""What is refused of priors that come from others: cards, weights, checkpoints, addresses."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from bad_input import Bad
from safetensors.torch import save_file
from tiny_prior import tiny_prior

RUN = ["input=face.png", "grid.steps=4", "metrics.lpips=null", "output_dir=out"]


def export(folder: Path, changes: dict[str, Any] | None = None, weights: dict[str, Any] | None = None) -> None:
    """A folder of a prior, its card and weights changed."""
    prior = tiny_prior()
    (folder / "own").mkdir()
    (folder / "own" / "card.yaml").write_text(yaml.safe_dump(prior.describe() | (changes or {})))
    state = {name: tensor.clone() for name, tensor in prior.network.state_dict().items()}
    save_file(
        {name: tensor for name, tensor in (state | (weights or {})).items() if tensor is not None}, folder / "own" / "weights.safetensors"
    )


def card(what: str, changes: dict[str, Any], says: str) -> Bad:
    return Bad(
        "sample.py",
        f"a card with {what}",
        ["prior=own", *RUN],
        rf"card\.yaml is no prior card: {says}",
        lambda f: export(f, changes),
        alone=True,
    )


def text(what: str, content: str | bytes, says: str) -> Bad:
    def prepare(folder: Path) -> None:
        export(folder)
        (folder / "own" / "card.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())

    return Bad("sample.py", f"a card that is {what}", ["prior=own", *RUN], rf"card\.yaml is no prior card: {says}", prepare, alone=True)


def weights(what: str, changes: dict[str, Any], says: str) -> Bad:
    return Bad(
        "sample.py",
        f"weights with {what}",
        ["prior=own", *RUN],
        rf"weights\.safetensors.*{says}",
        lambda f: export(f, None, changes),
        alone=True,
    )


NETWORK = tiny_prior().network
FLAGS = {"kind": "unet", **NETWORK.flags}
BIAS = torch.zeros(3)

CARDS = [
    card("a command for a network", {"network": {"class": "os.system"}}, "its network is of the class 'os.system', which is no part of"),
    card("a class with control characters", {"network": {"class": "\x1b]0;x\x07\x1b[2J"}}, r"its network is of the class '.*x1b\]0;x"),
    card("a class that is a list", {"network": {"class": ["os", "system"]}}, "its network is of the class "),
    card("a very long class", {"network": {"class": "a" * 10**6}}, r"its network is of the class 'a+… \(\d+ more characters\)"),
    card(
        "a kind with control characters", {"schedule": {"kind": "\x1b[31mred", "steps": 9}}, r"kind='.*x1b\[31mred' is unknown; known here"
    ),
    card("a kind that is a list", {"schedule": {"kind": ["linear"], "steps": 9}}, r"kind=\[\"linear\"\] is unknown"),
    card(
        "a kind that is a class of another room",
        {"network": {"kind": "linear"}},
        "kind='linear' is unknown; known here: ddpm, dhariwal, diffusers_unet, song, unet",
    ),
    card("a key with control characters", {"network": FLAGS | {"\x1b[2J": 1}}, r"network\.\\x1b\[2J is unknown"),
    card("a billion steps", {"schedule": {"kind": "linear", "steps": 10**9}}, "a schedule has 1 to 100000 steps, got steps=1000000000"),
    card("no steps", {"schedule": {"kind": "linear", "steps": 0}}, "a schedule has 1 to 100000 steps, got steps=0"),
    card("steps that are a text", {"schedule": {"kind": "linear", "steps": "many"}}, "schedule.steps='many' is of the wrong kind"),
    card("half a step", {"schedule": {"kind": "linear", "steps": 9.5}}, "schedule.steps=9.5 is of the wrong kind"),
    card(
        "betas that are no numbers", {"schedule": {"kind": "betas", "betas": [float("nan")]}}, r"schedule\.betas=\[NaN\] is out of bounds"
    ),
    card("betas that are texts", {"schedule": {"kind": "betas", "betas": ["a"]}}, r"schedule\.betas=\[\"a\"\] is of the wrong kind"),
    card("a billion channels", {"network": FLAGS | {"num_channels": 10**9}}, "num_channels must be between 1 and 4096, got 1000000000"),
    card("a billion blocks", {"network": FLAGS | {"num_res_blocks": 10**9}}, "num_res_blocks must be between 1 and 64"),
    card("negative channels", {"network": FLAGS | {"num_channels": -8}}, "num_channels must be between 1 and 4096, got -8"),
    card("channels that are a text", {"network": FLAGS | {"num_channels": "8"}}, "network.num_channels='8' is of the wrong kind"),
    card(
        "no heads",
        {"network": FLAGS | {"num_heads": 0, "num_head_channels": -1}},
        "16 channels cannot be shared among 0 attention heads|num_heads must be between 1",
    ),
    card(
        "heads of no channels",
        {"network": FLAGS | {"num_head_channels": 0}},
        "attention needs positive side lengths and channels, got .*num_head_channels=0",
    ),
    card(
        "attention at no size",
        {"network": FLAGS | {"attention_resolutions": [0]}},
        r"attention needs positive .*attention_resolutions=\[0\]",
    ),
    card("half an attention size", {"network": FLAGS | {"attention_resolutions": [1.5]}}, r"network\.attention_resolutions=\[1\.5\] is of"),
    card("a network that is a list", {"network": [1]}, r"network=\[1\] is of the wrong kind"),
    card("a network that is a text", {"network": "unet"}, "network='unet' is of the wrong kind"),
    card("a schedule that is a date", {"schedule": __import__("datetime").date(2024, 1, 1)}, "schedule is of the wrong kind"),
    card("a size of fractions", {"size": [16.5, 16.0]}, r"size=\[16\.5, 16\.0\] is of the wrong kind"),
    card("a huge size", {"size": [10**8, 10**8]}, "an image has at most 16777216 pixels here, got 100000000 x 100000000"),
    card("a negative size", {"size": [-16, 16]}, "an image's sides must be two positive whole numbers"),
    card("a size of one side", {"size": [16]}, r"size=\[16\] is out of bounds"),
    card("four channels", {"channels": 4}, "images have 1 or 3 channels, got 4"),
    card("channels that are true", {"channels": True}, "channels=true is of the wrong kind"),
    card("an infinite range", {"pixel_range": [0, float("inf")]}, r"pixel_range=\[0, Infinity\] is out of bounds"),
    card("a range of texts", {"pixel_range": ["0", "1"]}, r"pixel_range=\[\"0\", \"1\"\] is of the wrong kind"),
    card("a meaning that is a number", {"preconditioning": 7}, "preconditioning=7 is of the wrong kind"),
    card("a meaning that is unknown", {"preconditioning": {"name": "eps", "power": 2}}, "preconditioning.power is unknown"),
]

BOMB = "\n".join(["a0: &a0 [x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12))])
TEXTS = [
    text("an alias bomb", BOMB, "it holds more than 300000 values, aliases counted"),
    text("an alias within itself", "a: &a [*a]", r"its alias \*a stands within itself"),
    text("nested deeply", "[" * 100_000 + "]" * 100_000, ".*nest"),
    text("an object of Python", "!!python/object/apply:os.system [touch sprung]", "line 1: could not determine a constructor"),
    text("a list", "- a\n- b\n", r'it holds \["a", "b"\] instead of keys and values'),
    text("empty", "", "it holds null instead of keys and values"),
    text("no text", b"\xff\xfe\x00", "'utf-8' codec|unacceptable character"),
    text("of control characters", "a: \x1b[2J", "line 1: |special characters are not allowed|control characters"),
    text("too large", "a: " + "x" * (9 * 2**20), "it has [0-9]+ bytes, and such a file has at most"),
    text("a key twice as a list", "? [a]\n: b", "line 1: found unhashable key"),
]

FIRST = "time_embed.0.weight"
TENSORS = [
    weights("whole numbers", {"out.2.bias": BIAS.to(torch.int8)}, r"out\.2\.bias is int8, and the network's is float32; save it as such"),
    weights("long whole numbers", {"out.2.bias": BIAS.long()}, r"out\.2\.bias is int64, and the network's is float32"),
    weights("truth values", {"out.2.bias": BIAS.bool()}, r"out\.2\.bias is bool"),
    weights("complex numbers", {"out.2.bias": BIAS.to(torch.complex64)}, r"out\.2\.bias is complex64"),
    weights("8-bit floats", {"out.2.bias": BIAS.to(torch.float8_e4m3fn)}, r"out\.2\.bias is float8_e4m3fn"),
    weights("values that are no numbers", {"out.2.bias": BIAS + torch.nan}, r"3 of the 3 values of out\.2\.bias are not finite"),
    weights("infinite values", {"out.2.bias": BIAS + torch.inf}, r"3 of the 3 values of out\.2\.bias are not finite"),
    weights(
        "values beyond the network's precision", {"out.2.bias": BIAS.double() + 1e300}, r"3 of the 3 values of out\.2\.bias are not fin"
    ),
    weights("another shape", {"out.2.bias": torch.zeros(4)}, r"out\.2\.bias should be \(3,\) and is \(4,\)"),
    weights("one missing", {"out.2.bias": None}, r"1 missing, first out\.2\.bias; check the network's flags"),
    weights("one left over", {"loss.w": BIAS}, r"1 left over, first loss\.w; .*prior\.checkpoint\.ignore=\['loss'\]"),
    weights("a name of control characters", {"\x1b[2J.w": BIAS}, r"1 left over, first \\x1b\[2J\.w"),
]


def saved(what: str, content: Callable[[], Any], overrides: list[str], says: str) -> Bad:
    """A file of torch for the network of the cheap command, which has one weight, `gain`."""
    own = ["prior=custom", "prior.network._target_=broken_networks.Shrink", "prior.size=[16,16]", "prior.checkpoint.path=w.pt"]
    return Bad(
        "sample.py", f"a checkpoint with {what}", [*own, *RUN, *overrides], says, lambda f: torch.save(content(), f / "w.pt"), alone=True
    )


LARGE = FLAGS | {"num_channels": 4096, "channel_mult": [4] * 8, "num_res_blocks": 4}
TENSORS.append(
    Bad(
        "sample.py",
        "a card of a network of terabytes over small weights",
        ["prior=own", *RUN],
        r"weights\.safetensors does not fit the network: .* should be \(16384, 4096\) and is",
        lambda folder: export(folder, {"network": LARGE}),
        alone=True,
    )
)

ONE = torch.ones(())
CHECKPOINTS = [
    saved(
        "several entries",
        lambda: {"model": {"gain": ONE}, "ema": {"gain": ONE}},
        [],
        r"a dict of 'model', 'ema'; set prior\.checkpoint\.key",
    ),
    saved(
        "no such entry", lambda: {"model": {"gain": ONE}}, ["prior.checkpoint.key=ema"], r"no entry 'ema' with tensors; it holds 'model'"
    ),
    saved(
        "no such prefix",
        lambda: {"a.gain": ONE},
        ["prior.checkpoint.prefix=b."],
        r"begins with prior\.checkpoint\.prefix='b\.'; it holds a\.gain",
    ),
    saved("another name", lambda: {"net.weight": ONE}, [], r"1 missing, first gain; 1 left over, first net\.weight; .*prefix='net\.'"),
    saved("a sparse tensor", lambda: {"gain": torch.eye(1).to_sparse()}, [], "gain should be|gain is torch.sparse|gain is sparse"),
    saved("keys that are numbers", lambda: {1: ONE}, [], "is not a state dict of tensors"),
    saved("nothing in it", dict, [], "is not a state dict of tensors but a dict of nothing"),
    saved("a tensor for a file", lambda: ONE, [], "is not a state dict of tensors but a Tensor"),
    saved(
        "a list to ignore that is a text", lambda: {"gain": ONE}, ["prior.checkpoint.ignore=loss"], r"ignore='loss' is of the wrong kind"
    ),
]


def trained(what: str, content: Callable[[dict, dict], dict], says: str) -> Bad:
    """A checkpoint of train.py, changed."""

    def prepare(folder: Path) -> None:
        prior = tiny_prior()
        torch.save(content(prior.describe(), prior.network.state_dict()), folder / "step.ckpt")

    return Bad("sample.py", f"a checkpoint of train.py with {what}", ["prior=step.ckpt", *RUN], says, prepare, alone=True)


TRAINED = [
    trained("no tensors", lambda card, state: {"prior": card}, "carries a card but no tensors"),
    trained("a list of tensors", lambda card, state: {"prior": card, "state_dict": [1]}, "carries a card but no tensors"),
    trained("a card that is a list", lambda card, state: {"prior": [1], "state_dict": state}, r"it holds \[1\] instead of keys and values"),
    trained(
        "a command for a network",
        lambda card, state: {"prior": card | {"network": {"class": "os.system"}}, "state_dict": state},
        "of the class 'os.system'",
    ),
    trained("a tensor in its card", lambda card, state: {"prior": card | {"size": ONE}, "state_dict": state}, "size is of the wrong kind"),
]

SECRET = "prior.checkpoint.url='http://user:secret@127.0.0.1:9/x.pt?token=secret'"
CUSTOM = ["prior=custom", "prior.network._target_=broken_networks.Shrink", "prior.checkpoint.path=null", "prior.size=[16,16]"]
FETCHED = [*CUSTOM, *RUN, "prior.checkpoint.sha256=00"]
OWN_BETAS = [*CUSTOM, *RUN, "prior.checkpoint=null", "schedule@prior.schedule=betas"]
ADDRESSES = [
    Bad(
        "sample.py",
        "a local file as an address",
        [*FETCHED, "prior.checkpoint.name=x", "prior.checkpoint.url=file:///etc/hostname"],
        "file:///etc/hostname is no address of the web",
        alone=True,
    ),
    Bad("sample.py", "no address", [*FETCHED, "prior.checkpoint.name=x", "prior.checkpoint.url=x.pt"], "x.pt is no address of", alone=True),
    Bad("sample.py", "a cache's file elsewhere", [*FETCHED, "prior.checkpoint.name=../x"], "name='../x' is no name of a file", alone=True),
    Bad(
        "sample.py",
        "an address with a password that does not answer",
        [*CUSTOM, *RUN, SECRET, "prior.checkpoint.name=x.pt", f"prior.checkpoint.sha256={'0' * 64}", "prior.checkpoint.cache=cache"],
        r"^error: cannot fetch http://\*\*\*@127\.0\.0\.1:9/x\.pt\?token=\*\*\*: (?!.*secret)",
        lambda folder: os.mkdir(folder / "cache"),
        alone=True,
    ),
    Bad(
        "sample.py",
        "a class that is nowhere",
        ["prior.network._target_=nowhere_at_all.Net"],
        "cannot be imported: .*; looked in the installed packages, ",
    ),
    Bad("sample.py", "a schedule of its own without betas", [*OWN_BETAS], r"prior\.schedule\.betas is not set", alone=True),
    Bad(
        "sample.py",
        "a schedule of its own from no file",
        [*OWN_BETAS, "prior.schedule.betas=no.npy"],
        r"no file of betas at no\.npy",
        alone=True,
    ),
]

EMPIRICAL = ["prior=empirical", *RUN]


def listed(what: str, overrides: list[str], says: str, prepare: Callable[[Path], Any] | None = None) -> Bad:
    """A prior of a list of images."""
    return Bad("sample.py", f"a prior of {what}", [*EMPIRICAL, *overrides], says, prepare, alone=True)


LISTED = [
    listed("an empty folder", ["prior.means.root=none"], "no images in the folder none", lambda folder: (folder / "none").mkdir()),
    listed("no folder at all", ["prior.means.root=none"], "no image at none; give a file, a folder or a glob"),
    listed("images of other sizes", ["prior.means.root=images", "fit@prior.means.fit=exact"], r"0\.png: it is 20 x 24, wanted is 64 x 64"),
    listed("no image", ["prior.means.limit=0"], r"at least one image is needed, got limit=0; set prior\.means\.limit"),
    listed(
        "too many images",
        ["means@prior.means=patches", "prior.means.components=50000"],
        r"50000 images of 3 x 64 x 64 are too many to hold in memory, .* set prior\.means\.components=43690, or lower prior\.size",
    ),
    listed("weights for other images", ["prior.means.root=images", "prior.weights=[1]"], r"4 components need as many .*prior\.weights"),
]

ROWS = [*LISTED, *CARDS, *TEXTS, *TENSORS, *CHECKPOINTS, *TRAINED, *ADDRESSES]
