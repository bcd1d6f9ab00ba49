"""Checkpoints: find or download one, and load it strictly. No code in the file is run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from diffusion_priors.runs.weights import find_or_fetch, hub_cache, read_state_dict


class Checkpoint:
    """Where a network's weights are: `path`; else `name` in the `cache` folder; else fetched from `url` into it.

    `cache` defaults to torch's hub cache ($TORCH_HOME/hub/checkpoints). A `url` needs its `sha256`.
    `obtain` says where to get the file; it ends the message when none was found.
    """

    def __init__(
        self,
        path: str | None = None,
        name: str | None = None,
        cache: str | None = None,
        url: str | None = None,
        sha256: str | None = None,
        obtain: str = "set prior.checkpoint.path to its file",
    ) -> None:
        if url and not (name and sha256):
            raise ValueError("a checkpoint fetched from a url needs its file name and sha256; set prior.checkpoint.name and .sha256")
        self.path, self.name, self.url, self.sha256, self.obtain = path, name, url, sha256, obtain
        self.cache = Path(cache) if cache else hub_cache()

    def locate(self) -> Path:
        """The file, downloaded if necessary. Raises FileNotFoundError if it is not found, ValueError if its hash is wrong."""
        if self.path is None and self.name is None:
            raise FileNotFoundError(f"no checkpoint was named; {self.obtain}")
        sha256 = self.sha256.lower() if self.sha256 else None
        return find_or_fetch("checkpoint", self.path, self.cache / (self.name or ""), self.url, sha256, self.obtain)

    def load_into(self, network: nn.Module) -> None:
        path = self.locate()
        load_strictly(network, read_state_dict(path), path)


def load_strictly(network: nn.Module, state: Mapping[str, Tensor], source: Path) -> None:
    """Fill every tensor of `network` from `state`, cast to the network's type. No tensor may be missing or left over.

    If the file holds the network as a part (its names begin with "network.", "model." or "ema."), that part is used.

    Raises ValueError that names the first tensor that does not fit, the expected shape and the one found.
    """
    if "label_emb.weight" in state:
        raise ValueError(
            f"{source} is class-conditional (it holds label_emb.weight): its score is of one class, not of all images; "
            "use an unconditional checkpoint"
        )
    wanted = network.state_dict()
    state = _part(state, wanted, source)
    for name, tensor in wanted.items():
        if name in state and state[name].shape != tensor.shape:
            raise ValueError(
                f"{source} does not fit the network: {name} should be {tuple(tensor.shape)} and is {tuple(state[name].shape)}; "
                "check the network's flags"
            )
    missing = [name for name in wanted if name not in state]
    extra = [name for name in state if name not in wanted]
    if missing or extra:
        problems = [f"{len(names)} {word}, first {names[0]}" for names, word in ((missing, "missing"), (extra, "left over")) if names]
        found = "; ".join(problems)
        raise ValueError(f"{source} does not fit the network: of its {len(wanted)} tensors {found}; check the network's flags")
    network.load_state_dict(state)


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
