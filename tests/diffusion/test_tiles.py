"""Images larger than the prior's: fused tiles against their formula, every solver with them, the memory they take, and their seams."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from configured import SCHEDULE, SHAPE, SmallNetwork, make_operator, make_problem, make_solver, options
from torch import nn

from diffusion_priors.diffusion import tiles
from diffusion_priors.diffusion.analytic.priors import gaussian
from diffusion_priors.diffusion.analytic.shapes import PowerLaw
from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.grids import Linspace
from diffusion_priors.diffusion.image_random import image_generator
from diffusion_priors.diffusion.preconditioning import Eps
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.tiles import Overlapping, TiledNetwork, Whole


class Pointwise(nn.Module):
    """ε̂ of a pixel from that pixel alone, so that tiles change nothing."""

    def forward(self, x, t):
        return x.tanh() + x * (t / 1000.0).view(-1, 1, 1, 1)


def tiled(prior: Prior, size: tuple[int, int], overlap: int) -> Prior:
    return Overlapping(size, overlap)(prior)


def random(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal(shape))


@pytest.mark.parametrize("name", options("solver"))
def test_every_solver_restores_an_image_of_tiles_as_it_restores_the_whole_one(name, tmp_path):
    """The network looks at single pixels. Six tiles of 7 x 9 cover the 16 x 16 pixels."""
    found = []
    for size, tile in ((SHAPE[1:], Whole()), ((7, 9), Overlapping(SHAPE[1:], 2))):
        prior = tile(Prior(Pointwise(), SCHEDULE, Eps(), size=size))
        problem = replace(make_problem(make_operator("inpaint_random", tmp_path), [0, 1]), denoiser=Denoiser(prior))
        solver = make_solver(name)
        found.append(solver.solve(problem, solver.plan(Linspace(4), SCHEDULE)))
    assert prior.network.count(16, 16) == 6
    torch.testing.assert_close(found[1].x0, found[0].x0, rtol=0.0, atol=1e-9)
    assert (found[1].forwards, found[1].vjps) == (found[0].forwards, found[0].vjps)


def test_the_fused_output_is_the_mean_of_the_tiles_by_their_fading_weights():
    """On 7 x 5 pixels: rows 0, 2 and 3 begin tiles of four rows that share at least two, and columns 0 and 1 tiles of four columns."""
    network, x, t = SmallNetwork(), random(2, 3, 7, 5), torch.tensor([30.0, 500.0])
    fade = {0: [1.0, 1.0, 2 / 3, 1 / 3], 1: [1 / 3, 2 / 3, 2 / 3, 1 / 3], 2: [1 / 3, 2 / 3, 1.0, 1.0]}  # first, inner, last
    total, weights = torch.zeros_like(x), torch.zeros(7, 5, dtype=x.dtype)
    for top, down in ((0, fade[0]), (2, fade[1]), (3, fade[2])):
        for left, across in ((0, fade[0]), (1, fade[2])):
            window = torch.tensor(down, dtype=x.dtype)[:, None] * torch.tensor(across, dtype=x.dtype)
            total[:, :, top : top + 4, left : left + 4] += window * network(x[:, :, top : top + 4, left : left + 4], t)
            weights[top : top + 4, left : left + 4] += window
    torch.testing.assert_close(TiledNetwork(network, (4, 4), 2)(x, t), total / weights, rtol=1e-6, atol=1e-6)


def test_a_vector_jacobian_product_is_that_of_the_fused_output(monkeypatch):
    """Against the graph of all tiles at once, also where a second product follows."""
    x, v, level = random(1, 3, 12, 20), random(1, 3, 12, 20), SCHEDULE.level(300)
    denoiser = Denoiser(tiled(Prior(SmallNetwork(), SCHEDULE, Eps(), size=(8, 8), clip=False), (12, 20), 3))
    estimate, pull_back = denoiser.linearise(x, level)
    torch.testing.assert_close(estimate.x0, denoiser(x, level).x0, rtol=1e-12, atol=1e-12)
    first, second = pull_back(v, again=True), pull_back(2.0 * v)
    monkeypatch.setattr(tiles, "checkpoint", lambda network, *inputs, **settings: network(*inputs))
    wanted = denoiser.linearise(x, level)[1](v)
    torch.testing.assert_close(first, wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(second, 2.0 * wanted, rtol=1e-12, atol=1e-12)


def kept_for_a_product(side: int) -> int:
    """Numbers that the graph of a `side` x `side` image of 16 x 16 tiles holds besides x and x̂0."""
    kept = set()

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.add((tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes()))
        return tensor

    denoiser = Denoiser(tiled(Prior(SmallNetwork(), SCHEDULE, Eps(), size=(16, 16), clip=False), (side, side), 4))
    x = random(1, 3, side, side)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        denoiser.linearise(x, SCHEDULE.level(300))
    return sum(size for _, size in kept) // x.element_size()


def test_the_graph_of_a_large_image_holds_no_layers():
    """Those of SmallNetwork would take 14 times its memory; tiles take their weights and a copy of the image."""
    assert kept_for_a_product(64) < 3 * (3 * 64 * 64)


def seam(overlap: int) -> float:
    """The steps of x̂0 across the borders of the first tiles, relative to those one pixel before."""
    prior = gaussian(SCHEDULE, PowerLaw(), (16, 16), 1)
    side, level = 64, SCHEDULE.level(300)
    truth = gaussian(SCHEDULE, PowerLaw(), (side, side), 1).network.law.draw([image_generator(0, b, "truth") for b in range(16)])
    noise = torch.from_numpy(np.random.default_rng(1).standard_normal(truth.shape))
    x0 = Denoiser(tiled(prior, (side, side), overlap))(level.alpha * truth + level.sigma * noise, level).x0
    steps = x0.diff(dim=-1).square().mean((0, 1, 2))
    border = torch.arange(16, side, 16) - 1  # of tiles that share nothing
    return float((steps[border].mean() / steps[border - 4].mean()).sqrt())


def test_overlapping_tiles_show_no_seams():
    """x̂0 of power-law images: tiles that share nothing disagree at their borders, those that share a quarter do not."""
    assert seam(0) > 1.5
    assert seam(4) < 1.1


@pytest.mark.parametrize(
    ("size", "overlap", "message"),
    [
        (None, None, "tiles must cover an image of some size; set tile.image_size"),
        ((7, 40), None, "an image of 7 x 40 is smaller than a tile, which has the prior's 8 x 8"),
        ((20, 20), 8, "tiles of 8 x 8 can share 0 to 7 pixels, got 8; set tile.overlap"),
        ((20, 20), -1, "got -1; set tile.overlap"),
        ((20,), None, r"got \[20\]; set tile.image_size"),
    ],
)
def test_what_cannot_be_tiled_is_refused(size, overlap, message):
    with pytest.raises(ValueError, match=message):
        Overlapping(size, overlap)(Prior(Pointwise(), SCHEDULE, Eps(), size=(8, 8)))
