"""Time of this project against DeepInverse 0.5.0 and diffusers: python benchmarks/peers.py.

Both sides restore the same measurements, or sample from the same noise, with the same weights and as many steps. The runs alternate in
one process. "ratio" is the median of their time over ours, with the 95 % interval of a bootstrap over the repetitions. Only the run is
timed: neither loading nor planning.

DeepInverse's own network has the weights of --network ffhq, which are random, so that its images mean nothing. With --network faces64
both sides call our network, and the ratio is that of the loops. PSNR is the difference of ours from theirs on the example faces; of
samples, it is that between both, whose network has the size of faces64 and random weights.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import torch
from tabulate import tabulate
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.timing.machine import PRECISIONS, footnote
from benchmarks.timing.peer_runs import OURS, PRIORS, SAMPLERS, How, Pair, deepinv_pairs, diffusers_pairs
from benchmarks.timing.ratios import alternate, ratio
from diffusion_priors.evaluation.metrics.per_image import psnr

HEADERS = ["method", "peer", "batch", "steps", "calls, theirs and ours", "theirs (s)", "ours (s)", "ratio", "PSNR (dB)"]


class Calls:
    """Counts the calls of both networks."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        self.counts = [0 for _ in networks]
        self.hooks = [network.register_forward_pre_hook(self._counter(place)) for place, network in enumerate(networks)]

    def _counter(self, place: int):
        def count(*_: object) -> None:
            self.counts[place] += 1

        return count

    def remove(self) -> None:
        for hook in self.hooks:
            hook.remove()


def scores(pair: Pair, ours: Tensor, theirs: Tensor) -> str:
    """The difference of the mean PSNR, or of samples the PSNR between both."""
    first, second = ((x.float().clamp(-1.0, 1.0) + 1.0) / 2.0 for x in (ours, theirs))
    if pair.truth is None:
        return f"{psnr(first, second).mean().item():.0f} between"
    truth = (pair.truth + 1.0) / 2.0
    return f"{(psnr(first, truth) - psnr(second, truth)).mean().item():+.2f}"


def row(pair: Pair, batch: int, steps: int, repetitions: int, device: torch.device) -> list[str]:
    calls = []
    images = []
    for run in (pair.theirs, pair.ours):
        counted = Calls({id(network): network for network in pair.networks}.values())
        images.append(run())
        calls.append(str(sum(counted.counts)))
        counted.remove()
    theirs, ours = alternate([pair.theirs, pair.ours], repetitions, device, warm=True)
    found = [f"{median(theirs):.2f}", f"{median(ours):.2f}", str(ratio(theirs, ours))]
    return [pair.name, pair.peer, str(batch), str(steps), ", ".join(calls), *found, scores(pair, images[1], images[0])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=PRIORS, default="ffhq", help="for DeepInverse (default ffhq)")
    parser.add_argument("--methods", nargs="*", choices=OURS, default=list(OURS))
    parser.add_argument("--samplers", nargs="*", choices=SAMPLERS, default=list(SAMPLERS))
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--steps", type=int, default=2, help="of a restoration (default 2)")
    parser.add_argument("--sampling-steps", type=int, default=10, help="of a sample (default 10)")
    parser.add_argument("--repetitions", type=int, default=3, help="timed runs of each side, after one (default 3)")
    parser.add_argument("--precision", choices=PRECISIONS, default="32", help="ours (default 32)")
    parser.add_argument("--their-precision", choices=PRECISIONS, default="32", help="by autocast around the whole run (default 32)")
    parser.add_argument("--compile", action="store_true", help="torch.compile for ours, which takes minutes")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(chosen.threads)
    how = How(torch.device(chosen.device), PRECISIONS[chosen.precision], PRECISIONS[chosen.their_precision], chosen.compile)
    rows = []
    for batch in chosen.batches:
        restoring = deepinv_pairs(chosen.network, chosen.methods, batch, chosen.steps, how) if chosen.methods else []
        sampling = diffusers_pairs(chosen.samplers, batch, chosen.sampling_steps, how) if chosen.samplers else []
        for pair in [*restoring, *sampling]:
            steps = chosen.sampling_steps if pair.truth is None else chosen.steps
            rows.append(row(pair, batch, steps, chosen.repetitions, how.device))
            print(*rows[-1], file=sys.stderr, flush=True)
    print(tabulate(rows, headers=HEADERS, tablefmt="pipe", disable_numparse=True))
    precision = f"ours in {chosen.precision}{' compiled' * chosen.compile}, theirs in {chosen.their_precision}"
    print(f"\nnetwork {chosen.network}, {precision}, {footnote(how.device)}")


if __name__ == "__main__":
    main()
