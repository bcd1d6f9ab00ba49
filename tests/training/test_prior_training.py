"""Training a prior: the loss, its gradient, the optimiser and the average, each compared with its formula."""

from __future__ import annotations

from copy import deepcopy
from math import cos, log, pi
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
import yaml
from lazy import Lazy
from tiny_prior import images, scrambled, tiny_prior, weights
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.networks.unet import UNet
from diffusion_priors.diffusion.preconditioning import EDM, X0, Eps, Flow, Score, V
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.schedules import VE, Betas, Cosine, Linear
from diffusion_priors.training.optimisation import AdamW, CosineDecay
from diffusion_priors.training.weightings import MinSNR, Simple

if TYPE_CHECKING:
    from training_callbacks import RecordWithValidation

    from diffusion_priors.training.module import PriorTraining, TrainingBatch

tiny = Lazy("tiny_training")
recorders = Lazy("training_callbacks")
callbacks = Lazy("diffusion_priors.training.callbacks")
training = Lazy("diffusion_priors.training.module")

PRECONDITIONINGS = {"eps": Eps, "x0": X0, "v": V, "score": Score, "edm": EDM, "flow": Flow}
WEIGHTINGS = {"simple": Simple, "min_snr": MinSNR}
SCHEDULES = {"linear": Linear(50, 1e-3, 0.1), "cosine": Cosine(50), "betas": Betas([0.02, 0.03, 0.1, 0.3, 0.4, 0.5, 0.6])}
GAMMA, DATA_STD = 5.0, 0.5


# The loss as a formula of the betas, in double precision


def skip_and_out(a: float, s: float) -> tuple[float, float]:
    """c_skip and c_out of EDM, for x̂0 = c_skip x_t/α + c_out F, with u = σ/α (Karras et al. 2022, Table 1)."""
    u = s / a
    return DATA_STD**2 / (u**2 + DATA_STD**2), u * DATA_STD / (u**2 + DATA_STD**2) ** 0.5


def inputs(kind: str, x_t: Tensor, t: int, a: float, s: float) -> tuple[Tensor, Tensor]:
    """What the network is fed: for EDM c_in x_t/α and ln(σ/α)/4."""
    if kind != "edm":
        return x_t, torch.tensor([t])
    return x_t / a / ((s / a) ** 2 + DATA_STD**2) ** 0.5, torch.tensor([log(s / a) / 4.0])


def target(kind: str, p: Tensor, z: Tensor, a: float, s: float) -> Tensor:
    skip, out = skip_and_out(a, s)
    edm = (p - skip * (a * p + s * z) / a) / out
    return {"eps": z, "x0": p, "v": a * z - s * p, "score": -z / s, "edm": edm, "flow": z - p}[kind]


def clean(kind: str, x_t: Tensor, output: Tensor, a: float, s: float) -> Tensor:
    skip, out = skip_and_out(a, s)
    return {
        "eps": (x_t - s * output) / a,
        "x0": output,
        "v": a * x_t - s * output,
        "score": (x_t + s**2 * output) / a,
        "edm": skip * x_t / a + out * output,
        "flow": (x_t - s * output) / (a + s),
    }[kind]


def weight(kind: str, weighting: str, a: float, s: float) -> float:
    """Of ‖output − target‖², where α² + σ² = 1."""
    snr = a**2 / s**2
    if weighting == "simple":
        return s**2 if kind == "score" else 1.0
    gains = {"eps": snr, "x0": 1.0, "v": snr + 1.0, "score": snr / s**2, "edm": skip_and_out(a, s)[1] ** -2, "flow": (a / s + 1.0) ** 2}
    return min(snr, GAMMA) / gains[kind]


def simple_loss(network: UNet, prior: Prior, weighting: str, x0: Tensor, z: Tensor, t: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """(loss, p's x̂0, variance channels) of one image (C, H, W); p = x0 in the network's pixels."""
    kind, bar = prior.preconditioning.name, np.cumprod(1.0 - np.array(prior.schedule.betas))[t]
    a, s = bar**0.5, (1.0 - bar) ** 0.5
    p = (x0.double() + prior.pixel_shift / prior.pixel_scale) * prior.pixel_scale
    x_t = a * p + s * z.double()
    fed, noise = inputs(kind, x_t, t, a, s)
    output, *variance = network(fed[None], noise)[0].split(len(x0))
    loss = weight(kind, weighting, a, s) * (output - target(kind, p, z.double(), a, s)).square().mean()
    return loss, clean(kind, x_t, output, a, s), variance[0] if variance else None


def bound(prior: Prior, x0: Tensor, z: Tensor, t: int, p_hat: Tensor, variance: Tensor) -> Tensor:
    """L_t of one image in bits a pixel; the mean of its x̂0 is held fixed (Nichol & Dhariwal 2021, Sec. 3.1)."""
    beta = np.array(prior.schedule.betas)
    bar = np.cumprod(1.0 - beta)
    before = np.concatenate([[1.0], bar[:-1]])
    small = beta * (1.0 - before) / (1.0 - bar)
    small[0] = small[1]
    p, p_hat = prior.pixel_scale * x0.double() + prior.pixel_shift, p_hat.detach()
    x_t = bar[t] ** 0.5 * p + (1.0 - bar[t]) ** 0.5 * z.double()

    def mean(it: Tensor) -> Tensor:
        return (before[t] ** 0.5 * beta[t] * it + (1.0 - beta[t]) ** 0.5 * (1.0 - before[t]) * x_t) / (1.0 - bar[t])

    f = (variance + 1.0) / 2.0
    std = (0.5 * (f * log(beta[t]) + (1.0 - f) * log(small[t]))).exp()
    if t > 0:
        return kl_divergence(Normal(mean(p), torch.tensor(small[t] ** 0.5)), Normal(mean(p_hat), std)).mean() / log(2.0)
    bin_width = 2.0 * prior.pixel_scale / 255.0
    above = Normal(mean(p_hat), std).cdf(p + bin_width / 2).masked_fill(x0 == 1.0, 1.0)
    below = Normal(mean(p_hat), std).cdf(p - bin_width / 2).masked_fill(x0 == -1.0, 0.0)
    return -(above - below).clamp(min=1e-12).log2().mean()


def reference(prior: Prior, weighting: str, batch: TrainingBatch, factor: float = 0.0) -> tuple[Tensor, Tensor]:
    """(each image's loss, the gradient of their mean), on a double-precision copy; `factor` λ of the bound."""
    network = deepcopy(prior.network).double().requires_grad_(True)
    losses = []
    for x0, z, t in zip(*batch, strict=True):
        loss, p_hat, variance = simple_loss(network, prior, weighting, x0, z, int(t))
        if variance is not None and factor:
            loss = loss + factor * len(prior.schedule.betas) * bound(prior, x0, z, int(t), p_hat, variance)
        losses.append(loss)
    mean = torch.stack(losses).mean()
    return torch.stack(losses).detach(), gradient(mean, network)


def gradient(loss: Tensor, network: torch.nn.Module) -> Tensor:
    found = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in zip(found, network.parameters(), strict=True)])


def assert_same_loss(prior: Prior, weighting: str, batch: TrainingBatch, factor: float = 0.0) -> None:
    module = training.PriorTraining(prior, WEIGHTINGS[weighting](), AdamW(), CosineDecay(), 10, variance_weight=factor)
    expected, slope = reference(prior, weighting, batch, factor)
    torch.testing.assert_close(module.losses(batch).double(), expected, rtol=2e-4, atol=1e-6)
    found = gradient(module.training_step(batch), module.network).double()
    assert slope.norm() > 1e-3
    assert (found - slope).norm() < 1e-3 * slope.norm()


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("kind", PRECONDITIONINGS)
def test_loss_and_gradient_equal_the_formula(kind, weighting, schedule):
    """One batch holds levels from the first to the last, which reveals a level used for the wrong image."""
    prior = tiny_prior(schedule=SCHEDULES[schedule], preconditioning=PRECONDITIONINGS[kind]())
    last = len(prior.image_schedule.table) - 1
    assert_same_loss(prior, weighting, tiny.batch_of(images(4), [last, 0, last // 2, 3]))


def test_a_continuous_schedule_is_refused():
    with pytest.raises(ValueError, match="needs a schedule with a table of levels, and ve is continuous; set schedule=linear"):
        tiny.training_of(tiny_prior(schedule=VE()))


@pytest.mark.parametrize("pixel_range", [(0.0, 1.0), (-2.0, 1.0)])
@pytest.mark.parametrize("kind", PRECONDITIONINGS)
def test_the_loss_is_in_the_pixel_range_of_the_network(kind, pixel_range):
    prior = tiny_prior(schedule=SCHEDULES["linear"], preconditioning=PRECONDITIONINGS[kind](), pixel_range=pixel_range)
    assert_same_loss(prior, "min_snr", tiny.batch_of(images(3), [0, 20, 49]))


@pytest.mark.parametrize("pixel_range", [(-1.0, 1.0), (0.0, 1.0)])
@pytest.mark.parametrize("kind", ["eps", "v", "score"])
def test_learned_variance_adds_lambda_t_times_the_bound(kind, pixel_range):
    schedule, flags = SCHEDULES["linear"], {"learn_sigma": True}
    prior = tiny_prior(flags, schedule, PRECONDITIONINGS[kind](), pixel_range)
    assert prior.probe() is True
    for index, factor in (([0, 0, 0], 1e-2), ([1, 25, 49], 1e-1)):
        batch = tiny.batch_of(images(3), index)
        (plain, _), (whole, _) = (reference(prior, "simple", batch, value) for value in (0.0, factor))
        assert ((whole - plain) / plain).abs().min() > 1e-2  # the bound matters in this test
        assert_same_loss(prior, "simple", batch, factor)


# What the bound trains


def test_the_bound_does_not_affect_the_mean():
    """∇(L_simple + λ T L_t) = ∇L_simple + λ T ∇L_t with x̂0 a constant; the mean's output channels get the first term alone."""
    prior = tiny_prior({"learn_sigma": True}, SCHEDULES["cosine"])
    batch = tiny.batch_of(images(4), [0, 1, 24, 49])

    def slope(factor: float) -> Tensor:
        module = training.PriorTraining(prior, Simple(), AdamW(), CosineDecay(), 10, variance_weight=factor)
        return gradient(module.training_step(batch), module.network).double()

    simple, whole = slope(0.0), slope(1e-2)
    expected = reference(prior, "simple", batch, 1e-2)[1] - reference(prior, "simple", batch)[1]
    assert expected.norm() > 1e-2 * simple.norm()
    assert (whole - simple - expected).norm() < 1e-3 * expected.norm()

    sizes = [parameter.numel() for parameter in prior.network.parameters()]
    *_, last, bias = (whole - simple).split(sizes)  # of the last convolution: three channels of the mean, three of the variance
    (mean, variance), (mean_bias, variance_bias) = last.chunk(2), bias.chunk(2)
    assert mean.abs().max() == 0.0 and mean_bias.abs().max() == 0.0
    assert variance.abs().min() > 0.0 and variance_bias.abs().min() > 0.0


@pytest.mark.slow
@pytest.mark.parametrize("factor", [1e-3, 0.0])
def test_only_the_bound_trains_the_variance_channels(factor):
    prior = tiny_prior({"learn_sigma": True})
    before = prior.network.out[2].weight.detach().clone()
    module = training.PriorTraining(prior, Simple(), AdamW(1e-2), CosineDecay(0), 3, variance_weight=factor)
    tiny.fit(module, tiny.Batches(tiny.batches(3)))
    mean, variance = (prior.network.out[2].weight.detach() - before).abs().chunk(2)
    assert mean.min() > 1e-4
    assert variance.min() > 1e-4 if factor else variance.max() == 0.0


# Steps of the optimiser


def adamw(start: np.ndarray, gradients: list[np.ndarray], rates: list[float], betas: tuple, decay: float, clip: float | None) -> np.ndarray:
    """Loshchilov & Hutter 2019, Alg. 2 (η_t α is the rate, ε = 10⁻⁸)."""
    theta, m, v = start.copy(), np.zeros_like(start), np.zeros_like(start)
    for t, (g, rate) in enumerate(zip(gradients, rates, strict=True), 1):
        norm = np.sqrt((g**2).sum())
        g = g * clip / norm if clip is not None and norm > clip else g
        m = betas[0] * m + (1.0 - betas[0]) * g
        v = betas[1] * v + (1.0 - betas[1]) * g**2
        theta -= rate * (m / (1.0 - betas[0] ** t) / (np.sqrt(v / (1.0 - betas[1] ** t)) + 1e-8) + decay * theta)
    return theta


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "weighting", "flags", "pixel_range"),
    [
        ("eps", "simple", {}, (-1.0, 1.0)),
        ("v", "min_snr", {}, (0.0, 1.0)),
        ("eps", "min_snr", {"learn_sigma": True}, (0.0, 1.0)),
        ("x0", "simple", {"in_channels": 1}, (-1.0, 1.0)),
    ],
)
def test_the_steps_of_a_run_equal_clipped_adamw(kind, weighting, flags, pixel_range):
    """Three steps: loss and gradient of each at its own weights, then the weights after all, from the recorded gradients.

    One step is not enough: the first step of AdamW does not depend on the norm of the gradient.
    """
    steps, lr, betas, decay, warmup = 3, 1e-2, (0.8, 0.95), 0.1, 1
    prior = tiny_prior(flags, SCHEDULES["linear"], PRECONDITIONINGS[kind](), pixel_range)
    known = tiny.batches(steps, size=3, total=50, channels=prior.channels)
    start, record = weights(prior.network), recorders.Record()
    expected = [reference(prior, weighting, known[0], 1e-3)]
    clip = 0.3 * expected[0][1].norm().item()
    module = training.PriorTraining(prior, WEIGHTINGS[weighting](), AdamW(lr, betas, decay), CosineDecay(warmup), steps)
    tiny.fit(module, tiny.Batches(known), [record], clip=clip)

    for batch, after in zip(known[1:], record.weights, strict=False):
        moved = prior.with_network(UNet(**prior.network.flags))
        torch.nn.utils.vector_to_parameters(after, moved.network.parameters())
        expected.append(reference(moved, weighting, batch, 1e-3))
    for loss, slope, (losses, reference_slope) in zip(record.losses, record.gradients, expected, strict=True):
        assert loss == pytest.approx(losses.mean().item(), rel=1e-3)
        assert np.linalg.norm(slope - reference_slope.numpy()) < 1e-3 * reference_slope.norm()

    rates = [lr * min(1.0, (step + 1) / (warmup + 1)) * 0.5 * (1.0 + cos(pi * step / steps)) for step in range(steps)]
    found, begun = record.weights[-1].double().numpy(), start.double().numpy()
    by_hand = adamw(begun, record.gradients, rates, betas, decay, clip)
    assert np.abs(found - by_hand).max() < 1e-3 * lr
    for other in (
        adamw(begun, record.gradients, rates, betas, decay, None),
        adamw(begun, record.gradients, rates, betas, 0.0, clip),
        adamw(begun, record.gradients, rates[::-1], betas, decay, clip),
    ):
        assert np.abs(found - other).max() > 1e-2 * lr  # so the comparison above is sharp enough


@pytest.mark.slow
@pytest.mark.parametrize("flags", [{}, {"learn_sigma": True}])
def test_micro_batches_give_the_same_step_as_one_batch(flags):
    """A batch of four, whole and in two micro-batches."""
    whole = tiny.batches(3, size=4)
    halves = [training.TrainingBatch(*(part[cut] for part in batch)) for batch in whole for cut in (slice(0, 2), slice(2, 4))]
    one, two = recorders.Record(), recorders.Record()
    for known, record, accumulate in ((whole, one, 1), (halves, two, 2)):
        tiny.fit(tiny.training_of(tiny_prior(flags), steps=3, lr=1e-4), tiny.Batches(known), [record], clip=1.0, accumulate=accumulate)
    for mine, theirs in zip(one.gradients, two.gradients, strict=True):
        assert np.linalg.norm(mine - theirs) < 1e-3 * np.linalg.norm(mine)
    assert [first + second for first, second in zip(two.losses[::2], two.losses[1::2], strict=True)] == pytest.approx(one.losses, rel=1e-4)


@pytest.mark.slow
def test_the_validation_loss_is_the_mean_over_images():
    """Batches of unequal length are weighted by their number of images."""
    x0 = images(5)
    uneven = [tiny.batch_of(x0[:4], [0, 3, 5, 9], 1), tiny.batch_of(x0[4:], [2], 2)]
    prior = tiny_prior()
    module = tiny.training_of(prior, steps=1, lr=1e-30)
    trainer = tiny.fit(module, tiny.Batches(tiny.batches(1), uneven), validate_every=1)
    expected = torch.cat([reference(prior, "simple", batch)[0] for batch in uneven]).mean().item()
    assert trainer.callback_metrics["val/loss"].item() == pytest.approx(expected, rel=1e-3)


@pytest.mark.slow
def test_dropout_depends_only_on_seed_and_step():
    """Earlier draws do not matter. Another seed gives another run, and the steps of a run differ."""
    same = [tiny.batches(1)[0]] * 3

    def losses(seed: int, before: int) -> list[float]:
        prior, record = tiny_prior({"dropout": 0.5}), recorders.Record()
        module = training.PriorTraining(prior, Simple(), AdamW(1e-30), CosineDecay(), 3, seed=seed)
        torch.manual_seed(before)
        tiny.fit(module, tiny.Batches(same), [record])
        return record.losses

    first = losses(0, 1)
    assert first == losses(0, 2)
    assert len({*first, *losses(1, 1)}) == 6


@pytest.mark.slow
def test_a_network_frozen_by_a_denoiser_can_be_trained():
    prior = tiny_prior()
    Denoiser(prior)
    before = weights(prior.network)
    tiny.fit(tiny.training_of(prior, steps=1), tiny.Batches(tiny.batches(1)))
    assert ((weights(prior.network) - before).abs() > 0).double().mean() > 0.99


@pytest.mark.slow
def test_a_tiny_network_memorises_eight_images():
    """The loss averaged over all levels: 1 for an output of zeros, 0.43 for the best estimate from each pixel alone.

    The latter knows the images' variance v: E(ε − ε̂)² = α² v/(α² v + σ²). Measured: 0.125; 0.22 leaves a margin.
    """
    total, steps, generator = 100, 200, torch.Generator().manual_seed(1)
    x0 = images(8)[..., ::8, ::8].repeat_interleave(8, 2).repeat_interleave(8, 3)
    torch.manual_seed(0)
    prior = tiny_prior(schedule=Cosine(total)).with_network(UNet(**tiny_prior().network.flags))
    module = training.PriorTraining(prior, Simple(), AdamW(1e-2), CosineDecay(20), steps)

    def normal(count: int) -> Tensor:
        return torch.randn((count, 3, 16, 16), generator=generator)

    fixed = [training.TrainingBatch(x0, normal(8), torch.full((8,), t)) for t in range(total)]
    index = torch.randint(0, total, (steps, 16), generator=generator)
    known = [training.TrainingBatch(x0.repeat(2, 1, 1, 1), normal(16), t) for t in index]

    def loss() -> float:
        with torch.no_grad():
            return torch.stack([module.losses(batch).mean() for batch in fixed]).mean().item()

    variance = x0.square().mean().item()
    signals = [(level.alpha**2 * variance, level.sigma**2) for level in prior.image_schedule.table]
    pixelwise = np.mean([signal / (signal + noise) for signal, noise in signals])
    assert loss() == pytest.approx(1.0, abs=0.02)  # a new network outputs zeros
    tiny.fit(module, tiny.Batches(known), clip=1.0)
    assert pixelwise == pytest.approx(0.43, abs=0.01)
    assert loss() < 0.22


# The average of the weights


def trained(
    record: RecordWithValidation, steps: int = 6, decay: float = 0.7, seed: int = 0, keep=(), resume=None, **flags
) -> PriorTraining:
    module = tiny.training_of(tiny_prior(flags, seed=seed), steps)
    tiny.fit(
        module,
        tiny.Batches(tiny.batches(6), tiny.batches(1, seed=9)),
        [record, callbacks.average(decay), *keep],
        validate_every=1,
        clip=1.0,
        resume=resume,
    )
    return module


@pytest.mark.slow
def test_the_average_follows_its_recurrence_and_only_validation_uses_it():
    record = recorders.RecordWithValidation()
    module = trained(record)
    expected = record.weights[0].double()
    for k, (after, seen) in enumerate(zip(record.weights, record.validated, strict=True)):
        expected = expected if k == 0 else 0.7 * expected + 0.3 * after.double()
        assert (seen - expected).abs().max() < 1e-6
        assert k == 0 or (seen - after).abs().max() > 1e-3  # the average differs from the weights
    for before, after in zip(record.started[1:], record.weights, strict=False):
        assert torch.equal(before, after)  # training continues from its own weights
    assert torch.equal(weights(module), record.validated[-1])  # the run ends with the averaged weights


@pytest.mark.slow
def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path):
    """Weights, average, optimiser, rate and dropout, bit for bit, although the resuming network starts with other weights."""
    path = tmp_path / "three.ckpt"
    whole, rest = recorders.RecordWithValidation(), recorders.RecordWithValidation()
    end = trained(whole, keep=[tiny.Keep(path, 3)], dropout=0.2)
    again = trained(rest, seed=5, resume=path, dropout=0.2)
    assert torch.equal(rest.started[0], whole.weights[2])
    assert len(rest.weights) == len(rest.validated) == 3
    assert rest.losses == whole.losses[3:]
    for mine, theirs in zip(rest.weights + rest.validated, whole.weights[3:] + whole.validated[3:], strict=True):
        assert torch.equal(mine, theirs)
    assert torch.equal(weights(again), weights(end))


@pytest.mark.slow
def test_a_checkpoint_holds_the_average_the_weights_and_the_card(tmp_path):
    path, record = tmp_path / "three.ckpt", recorders.RecordWithValidation()
    module = trained(record, keep=[tiny.Keep(path, 3)], learn_sigma=True)
    content = torch.load(path, weights_only=True)

    def under(key: str) -> Tensor:
        state = content[key]
        assert state.keys() == {f"network.{name}" for name in module.network.state_dict()}
        return torch.cat([state[f"network.{name}"].flatten() for name, _ in module.network.named_parameters()])

    assert torch.equal(under("state_dict"), record.validated[2])
    assert torch.equal(under("current_model_state"), record.weights[2])
    assert content["prior"] == module.prior.describe()
    assert yaml.safe_load(yaml.safe_dump(content["prior"])) == content["prior"]


# The denoiser during training


@pytest.mark.slow
def test_the_denoiser_is_a_frozen_copy():
    prior = tiny_prior({"dropout": 0.5}, pixel_range=(0.0, 1.0))
    module = tiny.training_of(prior, steps=1)
    twin = prior.with_network(UNet(**prior.network.flags))
    twin.network.load_state_dict(prior.network.state_dict())
    x, level = images(2), prior.image_schedule.table[5]

    denoiser = module.denoiser()
    expected = Denoiser(twin)(x, level).x0  # without dropout
    assert torch.equal(denoiser(x, level).x0, expected)
    assert not any(parameter.requires_grad for parameter in denoiser.parameters()) and not denoiser.network.training

    assert module.network.training and all(parameter.requires_grad for parameter in module.network.parameters())
    before = weights(module.network)
    tiny.fit(module, tiny.Batches(tiny.batches(1)))
    assert (weights(module.network) - before).abs().max() > 1e-3
    assert torch.equal(denoiser(x, level).x0, expected)
    scrambled(denoiser.network)
    assert not torch.equal(weights(module.network), weights(denoiser.network))
    moved = module.denoiser()(x, level).x0
    assert not torch.equal(moved, expected)
