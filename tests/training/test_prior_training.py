"""Training a prior: the loss, its gradient, the optimiser and the average, each against its formula written out anew."""

from copy import deepcopy
from math import cos, log, pi

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import yaml
from tiny_prior import images, scrambled, tiny_prior, weights
from tiny_training import Batches, Keep, batch_of, batches, fit, training_of
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.networks.unet import UNet
from diffusion_priors.diffusion.preconditioning import X0, Eps, Score, V
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.schedules import Betas, Cosine, Linear
from diffusion_priors.training.callbacks import average
from diffusion_priors.training.module import PriorTraining, TrainingBatch
from diffusion_priors.training.optimisation import AdamW, CosineDecay
from diffusion_priors.training.weightings import MinSNR, Simple

PRECONDITIONINGS = {"eps": Eps, "x0": X0, "v": V, "score": Score}
WEIGHTINGS = {"simple": Simple, "min_snr": MinSNR}
SCHEDULES = {"linear": Linear(50, 1e-3, 0.1), "cosine": Cosine(50), "betas": Betas([0.02, 0.03, 0.1, 0.3, 0.4, 0.5, 0.6])}
GAMMA = 5.0


# The loss written out, in double precision, from the betas


def target(kind: str, p: Tensor, z: Tensor, a: float, s: float) -> Tensor:
    return {"eps": z, "x0": p, "v": a * z - s * p, "score": -z / s}[kind]


def clean(kind: str, x_t: Tensor, output: Tensor, a: float, s: float) -> Tensor:
    return {"eps": (x_t - s * output) / a, "x0": output, "v": a * x_t - s * output, "score": (x_t + s**2 * output) / a}[kind]


def weight(kind: str, weighting: str, a: float, s: float) -> float:
    """Of ‖output − target‖², where α² + σ² = 1."""
    snr = a**2 / s**2
    if weighting == "simple":
        return s**2 if kind == "score" else 1.0
    return min(snr, GAMMA) / {"eps": snr, "x0": 1.0, "v": snr + 1.0, "score": snr / s**2}[kind]


def simple_loss(network: UNet, prior: Prior, weighting: str, x0: Tensor, z: Tensor, t: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """(loss, p's x̂0, variance channels) of one image (C, H, W); p = x0 in the network's pixels."""
    kind, bar = prior.preconditioning.name, np.cumprod(1.0 - np.array(prior.schedule.betas))[t]
    a, s = bar**0.5, (1.0 - bar) ** 0.5
    p = (x0.double() + prior.pixel_shift / prior.pixel_scale) * prior.pixel_scale
    x_t = a * p + s * z.double()
    output, *variance = network(x_t[None], torch.tensor([t]))[0].split(len(x0))
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
    module = PriorTraining(prior, WEIGHTINGS[weighting](), AdamW(), CosineDecay(), 10, variance_weight=factor)
    expected, slope = reference(prior, weighting, batch, factor)
    torch.testing.assert_close(module.losses(batch).double(), expected, rtol=2e-4, atol=1e-6)
    found = gradient(module.training_step(batch), module.network).double()
    assert slope.norm() > 1e-3
    assert (found - slope).norm() < 1e-3 * slope.norm()


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("kind", PRECONDITIONINGS)
def test_loss_and_gradient_are_the_formula_s(kind, weighting, schedule):
    """Levels from the first to the last in one batch, so that a level that strays to another image is seen."""
    prior = tiny_prior(schedule=SCHEDULES[schedule], preconditioning=PRECONDITIONINGS[kind]())
    last = len(prior.image_schedule.table) - 1
    assert_same_loss(prior, weighting, batch_of(images(4), [last, 0, last // 2, 3]))


@pytest.mark.parametrize("pixel_range", [(0.0, 1.0), (-2.0, 1.0)])
@pytest.mark.parametrize("kind", PRECONDITIONINGS)
def test_other_pixel_ranges_are_trained_in_the_network_s_own_units(kind, pixel_range):
    prior = tiny_prior(schedule=SCHEDULES["linear"], preconditioning=PRECONDITIONINGS[kind](), pixel_range=pixel_range)
    assert_same_loss(prior, "min_snr", batch_of(images(3), [0, 20, 49]))


@pytest.mark.parametrize("pixel_range", [(-1.0, 1.0), (0.0, 1.0)])
@pytest.mark.parametrize("kind", ["eps", "v", "score"])
def test_learned_variance_adds_lambda_t_times_the_bound(kind, pixel_range):
    schedule, flags = SCHEDULES["linear"], {"learn_sigma": True}
    prior = tiny_prior(flags, schedule, PRECONDITIONINGS[kind](), pixel_range)
    assert prior.probe() is True
    for index, factor in (([0, 0, 0], 1e-2), ([1, 25, 49], 1e-1)):
        batch = batch_of(images(3), index)
        (plain, _), (whole, _) = (reference(prior, "simple", batch, value) for value in (0.0, factor))
        assert ((whole - plain) / plain).abs().min() > 1e-2  # it is no small matter here
        assert_same_loss(prior, "simple", batch, factor)


# What the bound teaches


def test_the_bound_does_not_pull_at_the_mean():
    """∇(L_simple + λ T L_t) = ∇L_simple + λ T ∇L_t with x̂0 a constant; the mean's output channels get the first term alone."""
    prior = tiny_prior({"learn_sigma": True}, SCHEDULES["cosine"])
    batch = batch_of(images(4), [0, 1, 24, 49])

    def slope(factor: float) -> Tensor:
        module = PriorTraining(prior, Simple(), AdamW(), CosineDecay(), 10, variance_weight=factor)
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


@pytest.mark.parametrize("factor", [1e-3, 0.0])
def test_variance_channels_are_trained_by_the_bound_alone(factor):
    prior = tiny_prior({"learn_sigma": True})
    before = prior.network.out[2].weight.detach().clone()
    module = PriorTraining(prior, Simple(), AdamW(1e-2), CosineDecay(0), 3, variance_weight=factor)
    fit(module, Batches(batches(3)))
    mean, variance = (prior.network.out[2].weight.detach() - before).abs().chunk(2)
    assert mean.min() > 1e-4
    assert variance.min() > 1e-4 if factor else variance.max() == 0.0


# Steps of the optimiser


class Record(pl.Callback):
    """What a run did, step by step: the gradient before it is clipped, the loss, the weights afterwards."""

    def __init__(self) -> None:
        self.gradients, self.losses, self.weights = [], [], []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        self.gradients.append(torch.cat([p.grad.flatten() for p in pl_module.parameters()]).double().numpy().copy())

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.losses.append(outputs["loss"].item())
        self.weights.append(weights(pl_module))


def adamw(start: np.ndarray, gradients: list[np.ndarray], rates: list[float], betas: tuple, decay: float, clip: float | None) -> np.ndarray:
    """Loshchilov & Hutter 2019, Alg. 2, as it stands there (η_t α is the rate, ε = 10⁻⁸)."""
    theta, m, v = start.copy(), np.zeros_like(start), np.zeros_like(start)
    for t, (g, rate) in enumerate(zip(gradients, rates, strict=True), 1):
        norm = np.sqrt((g**2).sum())
        g = g * clip / norm if clip is not None and norm > clip else g
        m = betas[0] * m + (1.0 - betas[0]) * g
        v = betas[1] * v + (1.0 - betas[1]) * g**2
        theta -= rate * (m / (1.0 - betas[0] ** t) / (np.sqrt(v / (1.0 - betas[1] ** t)) + 1e-8) + decay * theta)
    return theta


@pytest.mark.parametrize(
    ("kind", "weighting", "flags", "pixel_range"),
    [
        ("eps", "simple", {}, (-1.0, 1.0)),
        ("v", "min_snr", {}, (0.0, 1.0)),
        ("eps", "min_snr", {"learn_sigma": True}, (0.0, 1.0)),
        ("x0", "simple", {"in_channels": 1}, (-1.0, 1.0)),
    ],
)
def test_steps_of_a_run_are_the_clipped_adamw_s(kind, weighting, flags, pixel_range):
    """Three steps: loss and gradient of each at its own weights, then the weights after all, from the recorded gradients.

    One step would not do: AdamW's first is the same however long the gradient is.
    """
    steps, lr, betas, decay, warmup = 3, 1e-2, (0.8, 0.95), 0.1, 1
    prior = tiny_prior(flags, SCHEDULES["linear"], PRECONDITIONINGS[kind](), pixel_range)
    known = batches(steps, size=3, total=50, channels=prior.channels)
    start, record = weights(prior.network), Record()
    expected = [reference(prior, weighting, known[0], 1e-3)]
    clip = 0.3 * expected[0][1].norm().item()
    module = PriorTraining(prior, WEIGHTINGS[weighting](), AdamW(lr, betas, decay), CosineDecay(warmup), steps)
    fit(module, Batches(known), [record], clip=clip)

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
        assert np.abs(found - other).max() > 1e-2 * lr  # the comparison above can tell


@pytest.mark.parametrize("flags", [{}, {"learn_sigma": True}])
def test_turns_make_the_same_step_as_one_batch(flags):
    """A batch of four, whole and in two turns."""
    whole = batches(3, size=4)
    halves = [TrainingBatch(*(part[cut] for part in batch)) for batch in whole for cut in (slice(0, 2), slice(2, 4))]
    one, two = Record(), Record()
    for known, record, turns in ((whole, one, 1), (halves, two, 2)):
        fit(training_of(tiny_prior(flags), steps=3, lr=1e-4), Batches(known), [record], clip=1.0, accumulate=turns)
    for mine, theirs in zip(one.gradients, two.gradients, strict=True):
        assert np.linalg.norm(mine - theirs) < 1e-3 * np.linalg.norm(mine)
    assert [first + second for first, second in zip(two.losses[::2], two.losses[1::2], strict=True)] == pytest.approx(one.losses, rel=1e-4)


def test_the_validation_loss_is_the_mean_over_images():
    """Batches of unequal length count by their images."""
    x0 = images(5)
    uneven = [batch_of(x0[:4], [0, 3, 5, 9], 1), batch_of(x0[4:], [2], 2)]
    prior = tiny_prior()
    module = training_of(prior, steps=1, lr=1e-30)
    trainer = fit(module, Batches(batches(1), uneven), validate_every=1)
    expected = torch.cat([reference(prior, "simple", batch)[0] for batch in uneven]).mean().item()
    assert trainer.callback_metrics["val/loss"].item() == pytest.approx(expected, rel=1e-3)


def test_dropout_is_a_function_of_seed_and_step():
    """A run is repeated whatever was drawn before it; another seed is another run, and steps differ among themselves."""
    same = [batches(1)[0]] * 3

    def losses(seed: int, before: int) -> list[float]:
        prior, record = tiny_prior({"dropout": 0.5}), Record()
        module = PriorTraining(prior, Simple(), AdamW(1e-30), CosineDecay(), 3, seed=seed)
        torch.manual_seed(before)
        fit(module, Batches(same), [record])
        return record.losses

    first = losses(0, 1)
    assert first == losses(0, 2)
    assert len({*first, *losses(1, 1)}) == 6


def test_a_frozen_network_is_trained_all_the_same():
    """What a denoiser froze, fine-tuning thaws."""
    prior = tiny_prior()
    Denoiser(prior)
    before = weights(prior.network)
    fit(training_of(prior, steps=1), Batches(batches(1)))
    assert ((weights(prior.network) - before).abs() > 0).double().mean() > 0.99


@pytest.mark.slow
def test_a_tiny_network_learns_eight_images_by_heart():
    """The loss at every level of a schedule, averaged: 1 for zeros, 0.43 for the best that looks at each pixel alone.

    That one knows the images' variance v: E(ε − ε̂)² = α² v/(α² v + σ²). Measured: 0.125; 0.22 leaves a margin.
    """
    total, steps, generator = 100, 200, torch.Generator().manual_seed(1)
    x0 = images(8)[..., ::8, ::8].repeat_interleave(8, 2).repeat_interleave(8, 3)
    torch.manual_seed(0)
    prior = tiny_prior(schedule=Cosine(total)).with_network(UNet(**tiny_prior().network.flags))
    module = PriorTraining(prior, Simple(), AdamW(1e-2), CosineDecay(20), steps)

    def normal(count: int) -> Tensor:
        return torch.randn((count, 3, 16, 16), generator=generator)

    fixed = [TrainingBatch(x0, normal(8), torch.full((8,), t)) for t in range(total)]
    index = torch.randint(0, total, (steps, 16), generator=generator)
    known = [TrainingBatch(x0.repeat(2, 1, 1, 1), normal(16), t) for t in index]

    def loss() -> float:
        with torch.no_grad():
            return torch.stack([module.losses(batch).mean() for batch in fixed]).mean().item()

    variance = x0.square().mean().item()
    pixelwise = np.mean([level.alpha**2 * variance / (level.alpha**2 * variance + level.sigma**2) for level in prior.image_schedule.table])
    assert loss() == pytest.approx(1.0, abs=0.02)  # a new network gives zeros
    fit(module, Batches(known), clip=1.0)
    assert pixelwise == pytest.approx(0.43, abs=0.01)
    assert loss() < 0.22


# The average of the weights


class Seen(Record):
    """Besides, the weights that a validation saw."""

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.begun = [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.begun.append(weights(pl_module))

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0) -> None:
        self.seen.append(weights(pl_module))


def trained(record: Seen, steps: int = 6, decay: float = 0.7, seed: int = 0, keep=(), resume=None, **flags) -> PriorTraining:
    module = training_of(tiny_prior(flags, seed=seed), steps)
    fit(module, Batches(batches(6), batches(1, seed=9)), [record, average(decay), *keep], validate_every=1, clip=1.0, resume=resume)
    return module


def test_the_average_follows_its_recurrence_and_validation_alone_sees_it():
    record = Seen()
    module = trained(record)
    expected = record.weights[0].double()
    for k, (after, seen) in enumerate(zip(record.weights, record.seen, strict=True)):
        expected = expected if k == 0 else 0.7 * expected + 0.3 * after.double()
        assert (seen - expected).abs().max() < 1e-6
        assert k == 0 or (seen - after).abs().max() > 1e-3  # they are not the same thing
    for before, after in zip(record.begun[1:], record.weights, strict=False):
        assert torch.equal(before, after)  # training goes on from its own weights
    assert torch.equal(weights(module), record.seen[-1])  # the run ends with the averaged ones


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    """Weights, average, optimiser, rate and dropout, bit for bit; the network that resumes began elsewhere."""
    path = tmp_path / "three.ckpt"
    whole, rest = Seen(), Seen()
    end = trained(whole, keep=[Keep(path, 3)], dropout=0.2)
    again = trained(rest, seed=5, resume=path, dropout=0.2)
    assert torch.equal(rest.begun[0], whole.weights[2])
    assert len(rest.weights) == len(rest.seen) == 3
    assert rest.losses == whole.losses[3:]
    for mine, theirs in zip(rest.weights + rest.seen, whole.weights[3:] + whole.seen[3:], strict=True):
        assert torch.equal(mine, theirs)
    assert torch.equal(weights(again), weights(end))


def test_a_checkpoint_holds_the_average_the_weights_and_the_card(tmp_path):
    path, record = tmp_path / "three.ckpt", Seen()
    module = trained(record, keep=[Keep(path, 3)], learn_sigma=True)
    content = torch.load(path, weights_only=True)

    def under(key: str) -> Tensor:
        state = content[key]
        assert state.keys() == {f"network.{name}" for name in module.network.state_dict()}
        return torch.cat([state[f"network.{name}"].flatten() for name, _ in module.network.named_parameters()])

    assert torch.equal(under("state_dict"), record.seen[2])
    assert torch.equal(under("current_model_state"), record.weights[2])
    assert content["prior"] == module.prior.describe()
    assert yaml.safe_load(yaml.safe_dump(content["prior"])) == content["prior"]


# The denoiser on the way


def test_the_denoiser_is_a_frozen_copy():
    prior = tiny_prior({"dropout": 0.5}, pixel_range=(0.0, 1.0))
    module = training_of(prior, steps=1)
    twin = prior.with_network(UNet(**prior.network.flags))
    twin.network.load_state_dict(prior.network.state_dict())
    x, level = images(2), prior.image_schedule.table[5]

    denoiser = module.denoiser()
    expected = Denoiser(twin)(x, level).x0  # without dropout
    assert torch.equal(denoiser(x, level).x0, expected)
    assert not any(parameter.requires_grad for parameter in denoiser.parameters()) and not denoiser.network.training

    assert module.network.training and all(parameter.requires_grad for parameter in module.network.parameters())
    before = weights(module.network)
    fit(module, Batches(batches(1)))
    assert (weights(module.network) - before).abs().max() > 1e-3
    assert torch.equal(denoiser(x, level).x0, expected)
    scrambled(denoiser.network)
    assert not torch.equal(weights(module.network), weights(denoiser.network))
    moved = module.denoiser()(x, level).x0
    assert not torch.equal(moved, expected)
