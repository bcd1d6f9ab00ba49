"""The convolution with frozen weights against torch's own, bit by bit, what its graph keeps, and that of a doubled image."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

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


def test_a_bias_can_be_trained_alone_after_a_call_without_gradients():
    """What is kept of frozen weights would have no graph."""
    made, x = layer("3 x 3", torch.channels_last)
    made.weight.requires_grad_(False)
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            made(x)
        made(x).float().sum().backward()
    assert made.bias.grad.tolist() == [float(x[:, 0].numel())] * len(made.bias)


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


# The convolution of a doubled image


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("bias", [True, False])
def test_a_doubled_image_is_convolved_with_four_products_a_pixel(layout, bias):
    """Against the definition: each pixel repeated in a square, then nine products. Values, and Jᵀ v."""
    torch.manual_seed(0)
    made = Convolution(6, 4, 3, padding=1, bias=bias).double().requires_grad_(False)
    x = torch.randn(2, 6, 5, 7, dtype=torch.float64).contiguous(memory_format=layout)
    found = product(lambda x: made(x, doubled=True), x)
    square = lambda x: x.repeat_interleave(2, 2).repeat_interleave(2, 3)  # noqa: E731
    for a, b in zip(found, product(lambda x: F.conv2d(square(x), made.weight, made.bias, padding=1), x), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-13)
    with FlopCounterMode(display=False) as counter:
        made(x, doubled=True)
    assert counter.get_total_flops() == 2 * 16 * 2 * 6 * 4 * 5 * 7


@pytest.mark.parametrize("settings", [{"stride": 2, "padding": 1}, {}, {"kernel": 1}], ids=str)
def test_other_convolutions_of_a_doubled_image_take_the_long_way(settings):
    made = Convolution(**({"cin": 3, "cout": 2, "kernel": 3} | settings)).double().requires_grad_(False)
    x = torch.randn(1, 3, 4, 4, dtype=torch.float64)
    doubled = F.interpolate(x, scale_factor=2.0, mode="nearest")
    assert torch.equal(made(x, doubled=True), F.conv2d(doubled, made.weight, made.bias, made.stride, made.padding))


def test_half_precision_rounds_the_weights_once():
    made, x = layer("3 x 3", torch.channels_last)
    made.requires_grad_(False)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(made(x), F.conv2d(x.bfloat16(), made.weight.bfloat16(), made.bias.bfloat16(), padding=1))
        first = made._weights(torch.bfloat16, made.weight, lambda: pytest.fail("they are kept"))
        made(x)
        assert made._weights(torch.bfloat16, made.weight, lambda: pytest.fail("they are kept")) is first


CHANGES = {
    "in place": lambda made: made.weight.mul_(2.0),
    "loaded": lambda made: made.load_state_dict({name: 2.0 * tensor for name, tensor in made.state_dict().items()}),
    "other memory": lambda made: setattr(made.weight, "data", 2.0 * made.weight.data),
    "other precision": lambda made: made.double().weight.mul_(2.0),
    "another parameter": lambda made: setattr(made, "weight", torch.nn.Parameter(2.0 * made.weight, requires_grad=False)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_weights_that_change_are_not_the_kept_ones(change):
    made, x = layer("3 x 3", torch.channels_last)
    made.requires_grad_(False)
    with torch.no_grad():
        made(x, doubled=True)
        CHANGES[change](made)
        x = x.to(made.weight)
        doubled = F.interpolate(x, scale_factor=2.0, mode="nearest")
        torch.testing.assert_close(made(x, doubled=True), F.conv2d(doubled, made.weight, made.bias, padding=1), rtol=0, atol=1e-4)


def test_a_transform_of_functions_leaves_nothing_behind():
    """What torch.func wraps during a transform has no meaning after it."""
    made = Convolution(4, 4, 3, padding=1).requires_grad_(False)
    x = torch.randn(1, 4, 4, 4)
    torch.func.jvp(lambda x: made(x, doubled=True), (x,), (x,))
    torch.func.vmap(lambda x: made(x[None], doubled=True))(x)
    assert all(tensor.data_ptr() for tensor in made._weights._made.values())
    doubled = F.interpolate(x, scale_factor=2.0, mode="nearest")
    torch.testing.assert_close(made(x, doubled=True), F.conv2d(doubled, made.weight, made.bias, padding=1), rtol=0, atol=1e-5)


def test_a_copy_keeps_its_own_weights():
    made, x = layer("3 x 3", torch.channels_last)
    made.requires_grad_(False)
    before = made(x, doubled=True)
    other = deepcopy(made)
    other.weight.mul_(2.0)
    assert torch.equal(made(x, doubled=True), before) and not torch.allclose(other(x, doubled=True), before)
