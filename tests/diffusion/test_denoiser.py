"""The denoiser: what it counts, what its gradient is, what the network is shown and what leaves it."""

import pytest
import torch
from torch import nn

from diffusion_priors.diffusion.analytic.priors import gaussian
from diffusion_priors.diffusion.analytic.shapes import PowerLaw
from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.grids import Linspace
from diffusion_priors.diffusion.levels import NoiseLevel
from diffusion_priors.diffusion.networks.ddpm import DDPMUNet
from diffusion_priors.diffusion.networks.edm import DhariwalUNet, SongUNet
from diffusion_priors.diffusion.networks.unet import UNet
from diffusion_priors.diffusion.preconditioning import X0, Eps
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.schedules import Flow, Linear

LEVEL = Linear().table[400]


class Recording(nn.Module):
    """A 1 x 1 convolution that keeps what it was shown and what it answered."""

    def __init__(self, channels: int = 3, out_channels: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out_channels, 1)
        self.dropout = nn.Dropout(0.5)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            nn.init.normal_(self.conv.weight, std=0.3)
            nn.init.normal_(self.conv.bias, std=0.3)

    def forward(self, x, t):
        self.x, self.t = x, t
        self.answer = self.dropout(self.conv(x))
        return self.answer


def make(network: nn.Module | None = None, preconditioning=None, autocast=None, **settings) -> Denoiser:
    network = network if network is not None else Recording()
    settings = {"clip": False, "size": (8, 8)} | settings
    return Denoiser(Prior(network, Linear(), preconditioning or Eps(), **settings), autocast)


def noisy(batch: int = 2, channels: int = 3, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(batch, channels, 8, 8, dtype=dtype, generator=torch.Generator().manual_seed(0))


# What is spent


def test_forwards_and_vector_jacobian_products_are_counted_apart():
    denoiser, x = make(), noisy().requires_grad_()
    x0 = denoiser(x, LEVEL).x0
    assert (denoiser.forwards, denoiser.vjps) == (1, 0)
    torch.autograd.grad(x0.square().sum(), x, retain_graph=True)
    assert (denoiser.forwards, denoiser.vjps) == (1, 1)
    torch.autograd.grad(x0.sum(), x)
    assert (denoiser.forwards, denoiser.vjps) == (1, 2)
    denoiser(x, LEVEL)
    assert (denoiser.forwards, denoiser.vjps) == (2, 2)
    denoiser.reset()
    assert (denoiser.forwards, denoiser.vjps) == (0, 0)


def test_one_gradient_through_many_uses_of_x0_is_one_product():
    denoiser, x = make(), noisy().requires_grad_()
    x0 = denoiser(x, LEVEL).x0
    torch.autograd.grad(x0.sum() + (x0**3).sum() + x.sum(), x)
    assert denoiser.vjps == 1


def test_a_gradient_through_two_calls_is_two_products():
    denoiser, x = make(), noisy().requires_grad_()
    once = denoiser(x, LEVEL).x0
    torch.autograd.grad(denoiser(once, LEVEL).x0.sum(), x)
    assert (denoiser.forwards, denoiser.vjps) == (2, 2)


def test_no_product_is_counted_where_none_was_taken():
    denoiser, x = make(), noisy()
    with torch.no_grad():
        denoiser(x.clone().requires_grad_(), LEVEL)
    assert not denoiser(x, LEVEL).x0.requires_grad  # the parameters ask for no gradient
    y = x.clone().requires_grad_()
    denoiser(y, LEVEL)
    torch.autograd.grad(y.square().sum(), y)  # a gradient that does not pass the network
    assert (denoiser.forwards, denoiser.vjps) == (3, 0)


def test_products_are_counted_with_learned_variance_and_under_autocast():
    denoiser, x = make(Recording(3, 6), autocast=torch.bfloat16), noisy().requires_grad_()
    torch.autograd.grad(denoiser(x, LEVEL).x0.sum(), x)
    assert (denoiser.forwards, denoiser.vjps) == (1, 1)


# What the gradient is


def test_the_gradient_is_that_of_the_formula():
    """x̂0 = (x − σ W x − σ b)/α, so ∂⟨u, x̂0⟩/∂x = (u − σ Wᵀu)/α."""
    network = Recording().double()
    denoiser, x, u = make(network), noisy(dtype=torch.float64).requires_grad_(), noisy(dtype=torch.float64).flip(-1)
    (gradient,) = torch.autograd.grad((u * denoiser(x, LEVEL).x0).sum(), x)
    transposed = torch.einsum("oi,bohw->bihw", network.conv.weight[:, :, 0, 0], u)
    torch.testing.assert_close(gradient, (u - LEVEL.sigma * transposed) / LEVEL.alpha, rtol=1e-10, atol=1e-10)


def test_a_saturated_pixel_passes_no_gradient():
    x = noisy().requires_grad_()
    free = make()(x, LEVEL).x0
    clipped = make(clip=True)(x, LEVEL).x0
    saturated = free.detach().abs() > 1
    assert 0.1 < saturated.float().mean() < 0.9  # both kinds are there
    assert torch.equal(clipped, free.clamp(-1, 1))
    (of_saturated,) = torch.autograd.grad(clipped[saturated].sum(), x, retain_graph=True)
    assert of_saturated.count_nonzero() == 0
    (of_clipped,) = torch.autograd.grad(clipped.sum(), x)
    (of_rest,) = torch.autograd.grad(free[~saturated].sum(), x)
    torch.testing.assert_close(of_clipped, of_rest)


def test_the_network_is_frozen_and_in_evaluation_mode():
    network = Recording().train()
    denoiser, x = make(network), noisy().requires_grad_()
    x0 = denoiser(x, LEVEL).x0
    x0.sum().backward()
    assert x.grad is not None and all(p.grad is None and not p.requires_grad for p in denoiser.parameters())
    assert torch.equal(denoiser(x, LEVEL).x0, x0)  # no dropout


# What the network is shown


def test_the_network_gets_the_original_index_of_a_respaced_level():
    network, x = Recording(), noisy()
    denoiser = make(network)
    levels = Linspace(7)(Prior(network, Linear(), Eps()).image_schedule)[:-1]
    for level, t in zip(levels, (999, 832, 666, 500, 333, 166, 0), strict=True):
        denoiser(x, level)
        assert network.t.dtype == torch.int64 and network.t.tolist() == [t, t]


def test_a_level_between_two_indices_reaches_the_network_unchanged():
    network = Recording()
    make(network)(noisy(), NoiseLevel(499.5, 0.3, 0.9))
    assert network.t.is_floating_point() and network.t.tolist() == [499.5, 499.5]


UNETS = {
    UNet: {
        "image_size": 8,
        "num_channels": 8,
        "channel_mult": (1, 2),
        "attention_resolutions": (4,),
        "num_head_channels": 8,
        "max_groups": 4,
    },
    DDPMUNet: {"image_size": 8, "num_channels": 8, "channel_mult": (1, 2), "attention_resolutions": (4,), "max_groups": 4},
    SongUNet: {"image_size": 8, "model_channels": 8, "channel_mult": (1, 2), "num_blocks": 1, "attention_resolutions": (4,)},
    DhariwalUNet: {"image_size": 8, "model_channels": 64, "channel_mult": (1, 2), "num_blocks": 1, "attention_resolutions": (4,)},
}


@pytest.mark.parametrize("kind", UNETS)
def test_our_networks_see_one_time_for_all_images(kind):
    """The embedding is computed once, and the images are what they are with a time for each."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = kind(**UNETS[kind]).double()
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.2)
    shown = []
    network.register_forward_pre_hook(lambda network, inputs: shown.append(inputs[1]))
    x = noisy(3, dtype=torch.float64)
    x0 = make(network)(x, LEVEL).x0
    assert shown[0].tolist() == [LEVEL.t]
    each = Eps().x0(x, network(x, torch.full((3,), LEVEL.t))[:, :3], LEVEL)
    torch.testing.assert_close(x0, each, rtol=1e-9, atol=1e-9)


def test_any_other_network_sees_a_time_for_each_image():
    denoiser = make()
    denoiser(noisy(3), LEVEL)
    assert denoiser.network.t.tolist() == [LEVEL.t] * 3


def test_autocast_wraps_the_network_alone():
    """The network's answer is bfloat16; what is made of it is float32 arithmetic, bit for bit."""
    network, x = Recording(), noisy()
    x0 = make(network, autocast=torch.bfloat16)(x, LEVEL).x0
    assert network.x.dtype == torch.float32 and network.answer.dtype == torch.bfloat16
    assert x0.dtype == torch.float32
    assert torch.equal(x0, Eps().x0(x, network.answer.float(), LEVEL))
    make(network)(x, LEVEL)
    assert network.answer.dtype == torch.float32


def test_outside_the_network_autocast_is_off():
    class Product(X0):
        def x0(self, x, output, level):
            self.dtype = (x.flatten(2) @ x.flatten(2).transpose(1, 2)).dtype
            return output

    product = Product()
    make(preconditioning=product, autocast=torch.bfloat16)(noisy(), LEVEL)
    assert product.dtype == torch.float32


@pytest.mark.parametrize("preconditioning", [Eps(), X0()], ids=["eps", "x0"])
@pytest.mark.parametrize(("dtype", "autocast"), [(torch.float32, None), (torch.float64, None), (torch.float32, torch.bfloat16)], ids=str)
def test_what_leaves_has_the_type_of_x(dtype, autocast, preconditioning):
    x0, fraction, *_ = make(Recording(3, 6).to(dtype), preconditioning, autocast)(noisy(dtype=dtype), LEVEL)
    assert x0.dtype is dtype and fraction.dtype is dtype


# What leaves it


@pytest.mark.parametrize("channels", [1, 3])
def test_learned_variance_is_split_off_and_brought_to_fractions(channels):
    """Channels 0 … C−1 are ε̂, C … 2C−1 are v in [-1, 1], and the fraction is (v + 1)/2 (Nichol & Dhariwal 2021, Sec. 3.1)."""
    network = Recording(channels, 2 * channels)
    x = noisy(channels=channels)
    x0, fraction, *_ = make(network, channels=channels)(x, LEVEL)
    assert torch.equal(x0, Eps().x0(x, network.answer[:, :channels], LEVEL))
    torch.testing.assert_close(2 * fraction - 1, network.answer[:, channels:], rtol=0, atol=1e-6)


def test_a_network_without_variance_has_no_fraction():
    assert make()(noisy(), LEVEL).variance_fraction is None


@pytest.mark.parametrize("out_channels", [1, 2, 4, 5, 9])
def test_a_wrong_number_of_channels_is_refused(out_channels):
    with pytest.raises(ValueError, match=f"gave {out_channels} channels for an image of 3"):
        make(Recording(3, out_channels))(noisy(), LEVEL)


def test_images_of_a_batch_do_not_meet():
    denoiser, x = make(Recording(3, 6).double(), clip=True), noisy(4, dtype=torch.float64)
    together = denoiser(x, LEVEL)
    for b in range(4):
        alone = denoiser(x[b : b + 1], LEVEL)
        torch.testing.assert_close(alone.x0[0], together.x0[b], rtol=0, atol=1e-13)
        torch.testing.assert_close(alone.variance_fraction[0], together.variance_fraction[b], rtol=0, atol=1e-13)


@pytest.mark.parametrize("pixel_range", [(0.0, 1.0), (0.0, 255.0)])
def test_clipping_is_to_the_images_range_whatever_the_network_s(pixel_range):
    x = noisy()
    network = Recording()
    free = make(network, X0(), pixel_range=pixel_range)(x, LEVEL).x0
    clipped = make(network, X0(), pixel_range=pixel_range, clip=True)(x, LEVEL).x0
    assert torch.equal(clipped, free.clamp(-1, 1))
    low, high = pixel_range
    torch.testing.assert_close(free, (network.answer - low) / (high - low) * 2 - 1, rtol=1e-5, atol=1e-5)


def test_the_pull_back_is_the_transposed_jacobian_and_one_forward_pass_serves_several():
    """Jᵀ v from `linearise` is autograd's through `denoiser`; forward and vector-Jacobian products are counted."""
    denoiser, x = make(Recording().double()), noisy(dtype=torch.float64)
    v, w = torch.randn(2, *x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    wanted = [torch.autograd.functional.vjp(lambda x: denoiser(x, LEVEL).x0, x, u)[1] for u in (v, w)]
    denoiser.reset()
    denoised, pull_back = denoiser.linearise(x, LEVEL)
    assert not denoised.x0.requires_grad
    torch.testing.assert_close(pull_back(v, again=True), wanted[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(pull_back(w), wanted[1], rtol=1e-12, atol=1e-12)
    assert (denoiser.forwards, denoiser.vjps) == (1, 2)
    assert not x.requires_grad


def test_the_pull_back_is_zero_where_the_estimate_does_not_depend_on_x():
    """An exact prior's x̂0 is its mean where no signal is left (α = 0)."""
    prior = gaussian(Flow(), PowerLaw(), size=(4, 4), mean=0.2)
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    denoised, pull_back = Denoiser(prior).linearise(x, Flow().level(1.0))
    torch.testing.assert_close(denoised.x0, torch.full_like(x, 0.2))
    assert torch.equal(pull_back(torch.ones_like(x)), torch.zeros_like(x))
