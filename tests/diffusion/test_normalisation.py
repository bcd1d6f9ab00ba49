"""The normalisation with frozen weights against torch's own, in float64, and what half precision costs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from diffusion_priors.diffusion.networks.normalisation import LARGE, MANY, GroupNorm32, activated

SIDES = {"few pixels": (64, 16, 16), "many pixels": (16, 72, 66)}
every_side = pytest.mark.parametrize("side", SIDES)


def layer(channels: int, dtype: torch.dtype = torch.float64) -> GroupNorm32:
    """The same float32 numbers in every dtype."""
    torch.manual_seed(0)
    norm = GroupNorm32(8, channels).requires_grad_(False)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm.to(dtype)


def images(side: str, batch: int = 16) -> torch.Tensor:
    """Their mean is far from zero, as that of features may be."""
    torch.manual_seed(1)
    return (3.0 + 2.0 * torch.randn(batch, *SIDES[side], dtype=torch.float64)).contiguous(memory_format=torch.channels_last)


def definition(norm: GroupNorm32, x: torch.Tensor) -> torch.Tensor:
    """(x − μ)/√(var + ε) · w + b, written out."""
    groups = x.unflatten(1, (norm.num_groups, -1))
    mean, var = groups.mean((2, 3, 4), keepdim=True), groups.var((2, 3, 4), correction=0, keepdim=True)
    found = ((groups - mean) / (var + norm.eps).sqrt()).flatten(1, 2)
    return found * norm.weight[:, None, None] + norm.bias[:, None, None]


@every_side
def test_values_and_products_are_those_of_the_definition(side):
    x, norm = images(side), layer(SIDES[side][0])
    assert x.numel() >= LARGE and (x[0, 0].numel() >= MANY) == (side == "many pixels")
    v = torch.randn_like(x)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    found, expected = norm(a), definition(norm, b)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.autograd.grad(found, a, v)[0], torch.autograd.grad(expected, b, v)[0], rtol=0, atol=1e-12)


@every_side
def test_transforms_of_functions_work(side):
    """DeepInverse differentiates denoisers with torch.func."""
    x, norm = images(side), layer(SIDES[side][0])
    tangent, vectors = torch.randn_like(x), torch.randn(2, *x.shape, dtype=x.dtype)
    pushed = torch.func.jvp(norm, (x,), (tangent,))[1]
    torch.testing.assert_close(pushed, torch.func.jvp(lambda x: definition(norm, x), (x,), (tangent,))[1], rtol=0, atol=1e-12)
    pull, exact = torch.func.vjp(norm, x)[1], torch.func.vjp(lambda x: definition(norm, x), x)[1]
    for found, vector in zip(torch.func.vmap(lambda v: pull(v)[0])(vectors), vectors, strict=True):
        torch.testing.assert_close(found, exact(vector)[0], rtol=0, atol=1e-12)


@every_side
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision_rounds_inputs_and_outputs_only(side, dtype):
    """The sums are those of float32: with sums of bfloat16, the error would grow with the number of pixels."""
    x, norm = images(side), layer(SIDES[side][0])
    low = layer(SIDES[side][0], torch.float32)
    a, b, v = x.to(dtype).requires_grad_(), x.to(dtype).double().requires_grad_(), torch.randn_like(x).to(dtype)
    found, expected = low(a), definition(norm, b)
    assert found.dtype == dtype
    bound = {torch.float32: 32 * 2.0**-24, torch.bfloat16: 2.0**-9}[dtype]
    assert (found.double() - expected).norm() < bound * expected.norm()
    pulled, exact = torch.autograd.grad(found, a, v)[0].double(), torch.autograd.grad(expected, b, v.double())[0]
    assert (pulled - exact).norm() < bound * exact.norm()


@pytest.mark.parametrize("side", [*SIDES, "small"])
def test_one_modulation_for_all_images_is_that_of_each(side):
    """The affine map takes it in; the values are those of y · (1 + scale) + shift."""
    x = images(side) if side in SIDES else torch.randn(2, 16, 4, 4, dtype=torch.float64)
    norm, shape = layer(x.shape[1]), (1, x.shape[1], 1, 1)
    scale, shift = torch.randn(2, *shape, dtype=x.dtype)
    expected = definition(norm, x) * (1 + scale) + shift
    torch.testing.assert_close(norm(x, scale, shift), expected, rtol=0, atol=1e-11)
    torch.testing.assert_close(norm(x, scale.repeat(len(x), 1, 1, 1), shift.repeat(len(x), 1, 1, 1)), expected, rtol=0, atol=1e-11)


def test_trained_weights_have_the_gradients_of_torch():
    x, norm = images("few pixels"), layer(64).requires_grad_()
    norm(x).square().sum().backward()
    weight, bias = norm.weight.detach().clone().requires_grad_(), norm.bias.detach().clone().requires_grad_()
    F.group_norm(x, 8, weight, bias, norm.eps).square().sum().backward()
    torch.testing.assert_close(norm.weight.grad, weight.grad)
    torch.testing.assert_close(norm.bias.grad, bias.grad)


def test_the_activation_takes_the_memory_of_its_input_only_without_a_graph():
    h = torch.randn(3)
    expected = h * torch.sigmoid(h)
    leaf = h.clone().requires_grad_()
    torch.testing.assert_close(activated(leaf * 1.0), expected)
    assert torch.equal(leaf.detach(), h)
    taken = activated(h)
    assert taken.data_ptr() == h.data_ptr()
    torch.testing.assert_close(taken, expected)
