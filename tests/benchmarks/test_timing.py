"""What the benchmarks of speed count and compare, without a single timing."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
import torch

from benchmarks.configured import faces64
from benchmarks.timing.convolutions import Shape, convolutions, flops
from benchmarks.timing.ratios import alternate, ratio
from diffusion_priors.diffusion.networks.unet import UNet


@pytest.mark.parametrize(("name", "forward", "with_vjp"), [("faces64", 3.89, 7.90), ("ffhq256", 387.9, 776.3)])
def test_the_operations_of_a_call_are_those_of_its_layers(name, forward, with_vjp):
    """GFLOP by the formula 2 k² C_in C_out H W of a convolution, 2 C_in C_out of a linear layer and 4 (H W)² C of attention."""
    flags = faces64().network.flags if name == "faces64" else {}
    with torch.device("meta"):
        network = UNet(**flags).requires_grad_(False)
    found = flops(network, (network.flags["image_size"],) * 2)
    assert [round(found[0] / 1e9, 2), round(found[1] / 1e9, 2)] == pytest.approx([forward, with_vjp], abs=0.06)


def test_every_convolution_is_found_with_its_shape():
    with torch.device("meta"):
        network = UNet(image_size=16, num_channels=32, channel_mult=(1, 2), attention_resolutions=(), num_head_channels=32)
    shapes = convolutions(network, (16, 16))
    layers = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)]
    assert sum(shapes.values()) == len(layers)
    weights = sum(count * shape.image[0] * shape.channels * prod(shape.kernel) for shape, count in shapes.items())
    assert weights == sum(layer.weight.numel() for layer in layers)
    assert shapes[Shape((3, 16, 16), 32, (3, 3), (1, 1), (1, 1))] == 1


def test_the_operations_of_a_strided_convolution():
    assert Shape((4, 8, 6), 5, (3, 3), (2, 2), (1, 1)).flops == 2 * 9 * 4 * 5 * 4 * 3


def test_a_ratio_is_a_median_with_an_interval_that_holds_the_truth():
    """Log-normal ratios around 1.5: the interval covers their median in about 95 of 100 experiments."""
    covered = 0
    for seed in range(100):
        spread = np.random.default_rng(seed).standard_normal(30)
        found = ratio(1.5 * np.exp(0.2 * spread), np.ones(30))
        assert found.low <= found.median <= found.high
        covered += found.low <= 1.5 <= found.high
    assert 88 <= covered <= 100


def test_two_repetitions_have_no_interval():
    assert ratio([2.0, 4.0], [1.0, 1.0]) == (3.0, None, None) and str(ratio([2.0, 4.0], [1.0, 1.0])) == "3.00"


def test_runs_alternate_and_change_order():
    seen = []
    seconds = alternate([lambda: seen.append("a"), lambda: seen.append("b")], 2, torch.device("cpu"))
    assert seen == ["a", "b", "a", "b", "b", "a"]
    assert [len(row) for row in seconds] == [2, 2]
