"""Checkpoints: find or download one, and load it strictly. No code in the file is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from diffusion_priors.runs.printable import printable
from diffusion_priors.runs.values import shown
from diffusion_priors.runs.weights import find_or_fetch, hub_cache, read_state_dict

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Types of weights that differ in their precision alone."""


class Checkpoint:
    """Where a network's weights are: `path`; else `name` in the `cache` folder; else fetched from `url` into it.

    `cache` defaults to torch's hub cache ($TORCH_HOME/hub/checkpoints). A `url` needs its `sha256`.
    `obtain` says where to get the file; it ends the message when none was found.

    Of a file that holds more than the network, `key` is the entry with its tensors, `prefix` what their names begin with, and
    `ignore` lists what the names of further tensors begin with. Neither is needed for the usual ones: "state_dict", "model.".
    """

    def __init__(
        self,
        path: str | None = None,
        name: str | None = None,
        cache: str | None = None,
        url: str | None = None,
        sha256: str | None = None,
        obtain: str = "set prior.checkpoint.path to its file",
        key: str | None = None,
        prefix: str | None = None,
        ignore: Sequence[str] | None = None,
    ) -> None:
        if url and not (name and sha256):
            raise ValueError("a checkpoint fetched from a url needs its file name and sha256; set prior.checkpoint.name and .sha256")
        if name and Path(name).name != name:
            raise ValueError(f"prior.checkpoint.name={shown(name)} is no name of a file; set prior.checkpoint.path to a file elsewhere")
        self.path, self.name, self.url, self.sha256, self.obtain = path, name, url, sha256, obtain
        self.key, self.prefix, self.ignore = key, prefix or "", tuple(ignore or ())
        self.cache = Path(cache) if cache else hub_cache()

    def locate(self) -> Path:
        """The file, downloaded if necessary. Raises FileNotFoundError if it is not found, ValueError if its hash is wrong."""
        if self.path is None and self.name is None:
            raise FileNotFoundError(f"no checkpoint was named; {self.obtain}")
        sha256 = self.sha256.lower() if self.sha256 else None
        return find_or_fetch("checkpoint", self.path, self.cache / (self.name or ""), self.url, sha256, self.obtain)

    def read(self) -> tuple[dict[str, Tensor], Path]:
        """The tensors of the file, and where it is. Raises what `locate` raises, ValueError where it is no state dict."""
        path = self.locate()
        return read_state_dict(path, self.key), path

    def load_into(self, network: nn.Module) -> None:
        state, path = self.read()
        load_strictly(network, state, path, self.prefix, self.ignore)


def load_strictly(network: nn.Module, state: Mapping[str, Tensor], source: Path, prefix: str = "", ignore: Sequence[str] = ()) -> None:
    """Fill every tensor of `network` from `state`, cast to the network's type. No tensor may be missing or left over.

    Raises what `fitting` raises.
    """
    network.load_state_dict(fitting(network, state, source, prefix, ignore))


def fitting(
    network: nn.Module, state: Mapping[str, Tensor], source: Path, prefix: str = "", ignore: Sequence[str] = ()
) -> dict[str, Tensor]:
    """The tensors of `state` under the names and of the types that `network` has, whose own tensors may be on the meta device.

    If the file holds the network as a part (its names begin with `prefix`, or with "network.", "model." or "ema."), that part
    is used. Tensors whose names begin with one of `ignore` are left out.

    Raises ValueError that names the first tensor that does not fit: missing, left over, of another shape, of numbers that are
    not real and not floating-point, or not finite.
    """
    if "label_emb.weight" in state and "label_emb.weight" not in network.state_dict():
        raise ValueError(
            f"{source} is class-conditional (it holds label_emb.weight): its score is of one class, not of all images; "
            "use an unconditional checkpoint"
        )
    wanted = network.state_dict()
    state = _under(prefix, state, source) if prefix else _part(state, wanted, source)
    state = {name: tensor for name, tensor in state.items() if name in wanted or not name.startswith(tuple(ignore))}
    for name, tensor in wanted.items():
        if name in state and state[name].shape != tensor.shape:
            found = f"{printable(name, 100)} should be {tuple(tensor.shape)} and is {tuple(state[name].shape)}"
            raise ValueError(f"{source} does not fit the network: {found}; check the network's flags")
    _check_names(state, wanted, source)
    return {name: _cast(name, state[name], tensor.dtype, source) for name, tensor in wanted.items()}


def _check_names(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], source: Path) -> None:
    """Raises ValueError where tensors are missing or left over."""
    missing, extra = ([name for name in one if name not in other] for one, other in ((wanted, state), (state, wanted)))
    problems = [
        f"{len(names)} {word}, first {printable(names[0], 100)}" for names, word in ((missing, "missing"), (extra, "left over")) if names
    ]
    if not problems:
        return
    advice = "check the network's flags"
    if not missing:
        heads = list(dict.fromkeys(name.split(".")[0] for name in extra))[:3]
        advice += f", or leave out what is not the network's: prior.checkpoint.ignore={printable(str(heads), 100)}"
    elif len(missing) == len(wanted) and extra and "." in extra[0]:
        advice += f", or say what the names in the file begin with: prior.checkpoint.prefix={shown(extra[0].split('.')[0] + '.')}"
    raise ValueError(f"{source} does not fit the network: of its {len(wanted)} tensors {'; '.join(problems)}; {advice}")


def _cast(name: str, tensor: Tensor, dtype: torch.dtype, source: Path) -> Tensor:
    """A tensor of the file in the network's type. Raises ValueError where that would change more than the precision."""
    plain = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
    if not plain or (tensor.dtype not in FLOATS if dtype.is_floating_point else tensor.dtype != dtype):
        kind = str(tensor.dtype if plain else f"{tensor.layout} on {tensor.device}").removeprefix("torch.")
        raise ValueError(
            f"{source}: {printable(name, 100)} is {kind}, and the network's is {str(dtype).removeprefix('torch.')}; save it as such"
        )
    cast = tensor.to(dtype)
    if dtype.is_floating_point and not cast.isfinite().all():
        bad = int((~cast.isfinite()).sum())
        raise ValueError(f"{source}: {bad} of the {cast.numel()} values of {printable(name, 100)} are not finite; fetch the file again")
    return cast


def _under(prefix: str, state: Mapping[str, Tensor], source: Path) -> Mapping[str, Tensor]:
    found = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    if not found:
        names = ", ".join(printable(name, 100) for name in list(state)[:3])
        raise ValueError(f"no tensor in {source} begins with prior.checkpoint.prefix={shown(prefix)}; it holds {names}, …")
    return found


def _part(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], source: Path) -> Mapping[str, Tensor]:
    """The entries of `state` under the prefix that holds all of `wanted`, the prefix taken off; averaged weights come first."""
    first = next(iter(wanted), None)
    if first is None or first in state:
        return state
    prefixes = [name.removesuffix(first) for name in state if name.endswith("." + first)]
    prefixes = [prefix for prefix in prefixes if all(prefix + name in state for name in wanted)]
    averaged = [prefix for prefix in prefixes if "ema" in prefix or "averag" in prefix]
    chosen = averaged or prefixes
    if len(chosen) > 1:
        raise ValueError(f"{source} holds the network {len(chosen)} times, under {' and '.join(chosen)}; save one of them on its own")
    if not chosen:
        return state
    return {name.removeprefix(chosen[0]): tensor for name, tensor in state.items() if name.startswith(chosen[0])}
