"""Runs of this project and of other libraries on the same weights, measurements and steps, for benchmarks/peers.py."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.configured import ROOT, configured, faces64, random_prior
from diffusion_priors.diffusion.denoiser import Denoiser
from diffusion_priors.diffusion.image_random import ImageRandom, image_generator
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.images.find import find_images
from diffusion_priors.images.fit import Crop
from diffusion_priors.images.io import read_image
from diffusion_priors.operators.measurement import Measurement
from diffusion_priors.solvers.base import Problem

OURS = {"dps": (), "ddrm": (), "diffpir": ("solver.lam=7.0",), "pigdm": ()}
SAMPLERS = ("ddpm", "ddim")
TASK = ("operator=deblur_gaussian", "operator.boundary=circular")
"""An operator that is the same for every image, so that DeepInverse's DDRM takes a batch at once."""
SEED = 1


class How(NamedTuple):
    """How both sides compute. A dtype of None is float32."""

    device: torch.device
    autocast: torch.dtype | None
    their_autocast: torch.dtype | None
    compile: bool


class Pair(NamedTuple):
    """Two runs that give images (B, 3, H, W) in [-1, 1], the networks that they call, and the images to compare with."""

    name: str
    peer: str
    ours: Callable[[], Tensor]
    theirs: Callable[[], Tensor]
    networks: tuple[nn.Module, nn.Module]
    truth: Tensor | None


PRIORS: dict[str, Callable[[], Prior]] = {"ffhq": random_prior, "faces64": faces64}


def exportable() -> Prior:
    """The network of faces64 with random weights and with as many groups in every normalisation, as diffusers has it."""
    return random_prior(**faces64().network.flags | {"min_group_channels": 1, "max_groups": 8, "learn_sigma": False})


def prepared(prior: Prior, how: How) -> Prior:
    """As a run of this project prepares it."""
    network = prior.network.eval().requires_grad_(False).to(how.device, memory_format=torch.channels_last)
    if how.compile:
        network.compile()
    return prior


def faces(batch: int, device: torch.device) -> Tensor:
    """The example faces, repeated, (batch, 3, 64, 64)."""
    paths = find_images(str(ROOT / "examples" / "faces" / "*.png")).paths
    return torch.stack([read_image(paths[b % len(paths)], 3, (64, 64), Crop()) for b in range(batch)]).to(device)


def their_denoiser(prior: Prior, kind: str, how: How) -> nn.Module:
    """D(x, σ) of DeepInverse: its own network with the weights of `prior`, or ours where it has no such network."""
    from diffusion_priors.diffusion.deepinverse import to_deepinv

    if kind == "faces64":
        return to_deepinv(Denoiser(prior).to(how.device), prior.image_schedule)
    from deepinv.models import DiffUNet

    network = DiffUNet(pretrained=None).eval().to(how.device)
    network.load_state_dict(prior.network.state_dict(), strict=False)
    network.schedule = prior.image_schedule
    return network


def deepinv_pairs(kind: str, methods: Sequence[str], batch: int, steps: int, how: How) -> list[Pair]:
    """Methods that DeepInverse has too, on the same measurement."""
    from benchmarks import deepinverse

    prior = prepared(PRIORS[kind](), how)
    theirs, truth = their_denoiser(prior, kind, how), faces(batch, how.device)
    method = configured(*TASK)
    generators = [image_generator(0, b, "measurement") for b in range(batch)]
    measurement = Measurement.of(method.operator.draw(truth, generators).to(how.device), method.noise_model, truth, generators)
    with torch.device(how.device):
        peer = deepinverse.Peer(theirs, deepinverse.physics_of(measurement), deepinverse.measured(measurement), SEED)
    runs = their_runs(steps)
    denoiser = Denoiser(prior, how.autocast).to(how.device)
    networks = (prior.network, theirs if kind == "ffhq" else theirs.denoiser.network)

    def pair(name: str) -> Pair:
        ours = our_run(name, denoiser, prior, measurement, steps)
        return Pair(name, "DeepInverse", ours, their_run(runs[name], peer, how), networks, truth)

    return [pair(name) for name in methods]


def our_run(name: str, denoiser: Denoiser, prior: Prior, measurement: Measurement, steps: int) -> Callable[[], Tensor]:
    method = configured(f"solver={name}", f"grid.steps={steps}", *OURS[name])
    like = torch.zeros(measurement.operator.image_shape, device=measurement.y.device)
    plan = method.solver.plan(method.grid, prior.image_schedule)

    def run() -> Tensor:
        rng = ImageRandom([image_generator(0, b, "sampling") for b in range(len(like))])
        return method.solver.solve(Problem(denoiser, measurement, method.sampler, rng, like), plan).x0

    return run


def their_runs(steps: int) -> dict[str, Callable]:
    """DPS, DDRM, DiffPIR and ΠGDM of DeepInverse; all but DiffPIR on the levels of ours."""
    import deepinv

    from benchmarks import deepinverse

    def dps() -> nn.Module:
        return deepinv.sampling.DPSDataFidelity(weight=100.0, clip=(-1.0, 1.0))

    return {
        "dps": deepinverse.guided(dps, steps),
        "ddrm": deepinverse.ddrm(steps, deepinverse.our_sigmas),
        "diffpir": deepinverse.diffpir(steps=steps),
        "pigdm": deepinverse.guided(deepinv.sampling.PiGDMDataFidelity, steps),
    }


def their_run(restore: Callable, peer: object, how: How) -> Callable[[], Tensor]:
    def run() -> Tensor:
        with torch.no_grad(), _autocast(how), torch.device(how.device):
            return 2.0 * restore(peer).float() - 1.0

    return run


def _autocast(how: How):
    return torch.autocast(how.device.type, how.their_autocast) if how.their_autocast else nullcontext()


class Drawn:
    """The draws of a pipeline of diffusers: whole batches from one generator. It starts from z where we start from `sigma` z."""

    def __init__(self, device: torch.device, sigma: float) -> None:
        self.generator, self.divisor = torch.Generator(device).manual_seed(SEED), sigma

    def normal(self, like: Tensor) -> Tensor:
        drawn = torch.randn(like.shape, generator=self.generator, device=like.device) / self.divisor
        self.divisor = 1.0
        return drawn


def diffusers_pairs(samplers: Sequence[str], batch: int, steps: int, how: How) -> list[Pair]:
    """Unconditional samples of a prior and of its export, from the same noise."""
    import diffusers

    from diffusion_priors.checkpoints.diffusers_export import export_diffusers

    prior = exportable()
    with tempfile.TemporaryDirectory() as folder:
        export_diffusers(prior, Path(folder))
        loaded = diffusers.DDPMPipeline.from_pretrained(folder).to(how.device)
    prior = prepared(prior, how)
    unet, config = loaded.unet.eval(), loaded.scheduler.config
    pipelines = {
        "ddpm": diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler.from_config(config)),
        "ddim": diffusers.DDIMPipeline(unet, diffusers.DDIMScheduler.from_config(config)),
    }
    denoiser, like = Denoiser(prior, how.autocast).to(how.device), torch.zeros(batch, 3, *prior.size, device=how.device)

    def pair(name: str) -> Pair:
        method = configured("solver=unconditional", f"sampler={name}", "grid=leading", f"grid.steps={steps}", "operator=identity")
        measurement = Measurement.of(method.operator, method.noise_model, like, [image_generator(0, b) for b in range(batch)])
        plan = method.solver.plan(method.grid, prior.image_schedule)
        start = method.grid(prior.image_schedule)[0].sigma
        own = {"use_clipped_model_output": True} if name == "ddim" else {}  # ε̂ of the clamped x̂0, as ours
        pipeline = pipelines[name]
        pipeline.set_progress_bar_config(disable=True)

        def ours() -> Tensor:
            problem = Problem(denoiser, measurement, method.sampler, Drawn(how.device, start), like)
            return method.solver.solve(problem, plan).x0.clamp(-1.0, 1.0)

        def theirs() -> Tensor:
            generator = torch.Generator(how.device).manual_seed(SEED)
            with _autocast(how):
                images = pipeline(batch, generator, num_inference_steps=steps, output_type="np", **own).images
            return 2.0 * torch.from_numpy(images).permute(0, 3, 1, 2).to(how.device) - 1.0

        return Pair(f"{name} sampling", "diffusers", ours, theirs, (prior.network, unet), None)

    return [pair(name) for name in samplers]
