"""The convolution with frozen weights against torch's own, bit by bit, and what its graph keeps."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from diffusion_priors.diffusion.networks.convolution import Convolution

CASES = {
    "3 x 3": ((4, 6, 3), {"padding": 1}, (7, 9)),
    "1 x 1": ((5, 3, 1), {}, (4, 4)),
    "strided": ((3, 8, 3), {"stride": 2, "padding": 1}, (8, 6)),
    "without bias": ((16, 16, 3), {"padding": 1, "bias": False}, (16, 16)),
}
every_case = pytest.mark.parametrize("case", CASES)


def layer(case: str, layout: torch.memory_format, dtype: torch.dtype = torch.float32) -> tuple[Convolution, torch.Tensor]:
    torch.manual_seed(0)
    (cin, cout, kernel), settings, sides = CASES[case]
    made = Convolution(cin, cout, kernel, **settings).to(dtype, memory_format=layout)
    return made, torch.randn(2, cin, *sides, dtype=dtype).contiguous(memory_format=layout)


def product(compute, x: torch.Tensor, autocast: bool = False) -> list[torch.Tensor]:
    """The output, and Jᵀ v for two v through one graph."""
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        output = compute(x)
    v = torch.randn(output.shape, generator=torch.Generator().manual_seed(1)).to(output)
    return [output.detach(), *(torch.autograd.grad(output, x, w, retain_graph=True)[0] for w in (v, v.square()))]


@every_case
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64, "autocast"])
def test_values_and_products_are_those_of_torch(case, layout, kind):
    autocast = kind == "autocast"
    made, x = layer(case, layout, torch.float32 if autocast else kind)
    made.requires_grad_(False)
    found = product(made, x, autocast)
    expected = product(lambda x: F.conv2d(x, made.weight, made.bias, made.stride, made.padding), x, autocast)
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b) and a.dtype == b.dtype and a.stride() == b.stride()


def kept(made: Convolution, x: torch.Tensor) -> list[tuple[int, ...]]:
    shapes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: shapes.append(tuple(tensor.shape)) or tensor, lambda tensor: tensor):
        made(x.requires_grad_())
    return shapes


@every_case
def test_the_graph_keeps_the_input_only_where_the_weights_are_trained(case):
    made, x = layer(case, torch.channels_last)
    assert tuple(x.shape) in kept(made, x)
    assert kept(made.requires_grad_(False), x) == [tuple(made.weight.shape)]


def test_trained_weights_have_the_gradients_of_torch():
    made, x = layer("3 x 3", torch.channels_last)
    made(x).square().sum().backward()
    weight, bias = made.weight.detach().clone().requires_grad_(), made.bias.detach().clone().requires_grad_()
    F.conv2d(x, weight, bias, padding=1).square().sum().backward()
    assert torch.equal(made.weight.grad, weight.grad) and torch.equal(made.bias.grad, bias.grad)


def test_a_product_can_be_differentiated_in_its_vector():
    """Jᵀ v is linear in v, so that its gradient is J w."""
    made, x = layer("strided", torch.contiguous_format, torch.float64)
    made.requires_grad_(False)
    output = made(x.requires_grad_())
    v, w = torch.randn_like(output).requires_grad_(), torch.randn_like(x)
    (pulled,) = torch.autograd.grad(output, x, v, create_graph=True)
    (pushed,) = torch.autograd.grad(pulled, v, w)
    torch.testing.assert_close(pushed, F.conv2d(w, made.weight, None, made.stride, made.padding))


@every_case
def test_transforms_of_functions_work_as_on_torchs_own(case):
    """DeepInverse differentiates denoisers with torch.func."""
    made, x = layer(case, torch.channels_last, torch.float64)
    made.requires_grad_(False)
    tangent = torch.randn_like(x)
    output, pull = torch.func.vjp(made, x)
    vectors = torch.randn(3, *output.shape, dtype=x.dtype)
    exact = torch.func.vjp(lambda x: F.conv2d(x, made.weight, made.bias, made.stride, made.padding), x)[1]
    for found, vector in zip(torch.func.vmap(lambda v: pull(v)[0])(vectors), vectors, strict=True):
        torch.testing.assert_close(found, exact(vector)[0])
    pushed = torch.func.jvp(made, (x,), (tangent,))[1]
    torch.testing.assert_close(pushed, F.conv2d(tangent, made.weight, None, made.stride, made.padding))
