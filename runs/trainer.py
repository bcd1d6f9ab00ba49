"""Where a run computes: the settings of Lightning's Trainer."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from pytorch_lightning.strategies import DDPStrategy
from torch import nn

from diffusion_priors.runs.machine.cache import compiled_code, keep_compiled_code
from diffusion_priors.runs.machine.fast import choose, computes_bf16

MOST_THREADS = 1024
"""PyTorch crashes where it cannot start as many as it is told to."""
PATIENCE = timedelta(days=2)
"""How long a process that finished its share waits for the others."""


class TrainerSettings:
    """`devices` of an `accelerator` on each of `num_nodes` machines; `strategy` shares the work among several.

    No result depends on their number. `precision` is the network's alone; weights, states, optimiser and
    loss stay float32. `channels_last` is a memory layout of convolutions that is faster on CPUs and tensor
    cores. `compile` uses torch.compile, which takes minutes at first. "auto" is the precision, or the choice whether to compile, that
    is fast on this machine; `chosen` are these values. `checkpointing` computes the network's blocks again in the backward
    pass, which takes less memory and more time. `threads` limits the CPU threads of each process.

    Raises ValueError for GPUs and cores that do not exist, half precision without a GPU, numbers below one, and a precision that
    each of several machines would choose for itself.
    """

    def __init__(
        self,
        accelerator: Literal["auto", "cpu", "gpu"] = "auto",
        devices: int = 1,
        num_nodes: int = 1,
        strategy: Literal["auto", "ddp"] = "auto",
        precision: Literal[32, 16, "bf16", "auto"] = 32,
        channels_last: bool = True,
        compile: bool | Literal["auto"] = False,
        checkpointing: bool = False,
        threads: int | None = None,
    ) -> None:
        if accelerator == "gpu" and not torch.cuda.is_available():
            raise ValueError("trainer.accelerator=gpu, but torch sees no CUDA device here; use trainer=cpu")
        seen = torch.cuda.device_count()
        if accelerator != "cpu" and devices > seen > 0:
            raise ValueError(f"trainer.devices={devices}, but torch sees {seen} CUDA devices on this machine; set trainer.devices={seen}")
        cores = os.cpu_count() or 1
        if (accelerator == "cpu" or seen == 0) and devices > cores:
            raise ValueError(f"trainer.devices={devices}, but this machine has {cores} cores; set trainer.devices={cores} or less")
        if precision == "auto" and num_nodes > 1:
            raise ValueError(f"trainer.precision=auto, and {num_nodes} machines may choose differently; set trainer.precision=bf16 or 32")
        self.accelerator, self.devices, self.num_nodes, self.strategy = accelerator, devices, num_nodes, strategy
        given = {"precision": precision, "compile": compile}
        self.chosen = choose(given, self.on_gpu)
        if precision == 16 and (accelerator == "cpu" or seen == 0):
            raise ValueError("trainer.precision=16 needs a GPU; use trainer.precision=bf16 or 32")
        for name, value in (("devices", devices), ("num_nodes", num_nodes), ("threads", threads)):
            if value is not None and value < 1:
                raise ValueError(f"trainer.{name} must be at least 1, got {value}; set trainer.{name}")
        if threads is not None and threads > MOST_THREADS:
            raise ValueError(f"trainer.threads must be at most {MOST_THREADS}, got {threads}; set trainer.threads={cores}")
        used = given | {name: choice.value for name, choice in self.chosen.items()}
        self.precision = {32: "32-true", 16: "16-mixed", "bf16": "bf16-mixed"}[used["precision"]]
        self.autocast = {32: None, 16: torch.float16, "bf16": torch.bfloat16}[used["precision"]]
        self.compile = used["compile"]
        self.channels_last, self.checkpointing, self.threads = channels_last, checkpointing, threads

    @property
    def world(self) -> int:
        """The number of processes."""
        return self.devices * self.num_nodes

    @property
    def on_gpu(self) -> bool:
        return self.accelerator == "gpu" or (self.accelerator == "auto" and torch.cuda.is_available())

    @property
    def notices(self) -> list[str]:
        """Lines to print: what was chosen, a precision that this machine computes slowly, and what compiling costs."""
        lines = []
        if self.chosen:
            choices = [f"trainer.{name}={str(value).lower()} ({reason})" for name, (value, reason) in self.chosen.items()]
            lines.append(f"chosen for this machine: {', '.join(choices)}")
        if not self.on_gpu and self.autocast == torch.bfloat16 and not computes_bf16():
            kind = torch.backends.cpu.get_cpu_capability()
            lacking = f"this processor ({kind}) has neither AVX512-BF16 nor AMX"
            lines.append(f"trainer.precision=bf16 is many times slower than float32 here: {lacking}; set trainer.precision=32")
        if self.compile:
            lines.append(f"the network is compiled: minutes the first time, seconds when its code is found in {compiled_code()}")
        return lines

    def prepare(self, network: nn.Module) -> None:
        """Set threads, memory layout, recomputation and compilation of the network. Raises what `recompute` does."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        if self.channels_last:
            network.to(memory_format=torch.channels_last)
        self.recompute(network)
        if self.compile:
            keep_compiled_code()
            torch._functorch.config.donated_buffer = False  # mmps, tmpd and others go back through one call several times
            network.compile()

    def recompute(self, network: nn.Module) -> None:
        """With `checkpointing`, have the network compute its blocks again in the backward pass.

        Raises ValueError for a network in which no module has `enable_gradient_checkpointing`, as ours and those of diffusers do.
        """
        if not self.checkpointing:
            return
        able = [module for module in network.modules() if hasattr(module, "enable_gradient_checkpointing")]
        if not able:
            raise ValueError(
                f"trainer.checkpointing=true, but the prior's network ({type(network).__name__}) has no method "
                "enable_gradient_checkpointing; set trainer.checkpointing=false"
            )
        for module in able:
            module.enable_gradient_checkpointing()

    def training(
        self,
        callbacks: Sequence[pl.Callback],
        steps: int,
        validate_every: int,
        accumulate: int,
        clip: float | None,
        loggers: list,
        plugins: Sequence[object] = (),
    ) -> pl.Trainer:
        """A Trainer of `steps` optimiser steps, each taken in `accumulate` turns, in one epoch; `plugins` are Lightning's."""
        return pl.Trainer(
            **self._shared(callbacks, loggers, plugins),
            strategy=self.strategy,
            precision=self.precision,
            max_steps=steps,
            max_epochs=1,
            accumulate_grad_batches=accumulate,
            gradient_clip_val=clip,
            val_check_interval=validate_every * accumulate,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
        )

    def prediction(self, callbacks: Sequence[pl.Callback], loggers: list) -> pl.Trainer:
        """A Trainer that lets solvers differentiate. Its precision is full: solvers put the network alone under `autocast`."""
        alone = self.strategy == "auto" or self.world == 1
        return pl.Trainer(**self._shared(callbacks, loggers), strategy="auto" if alone else DDPStrategy(timeout=PATIENCE))

    def _shared(self, callbacks: Sequence[pl.Callback], loggers: list, plugins: Sequence[object] = ()) -> dict[str, Any]:
        """What both have in common: quiet, with our own files, data and progress."""
        for name in ("pytorch_lightning", "lightning_fabric"):
            logging.getLogger(name).setLevel(logging.WARNING)
        for message in (
            ".*does not have many workers.*",
            ".*LeafSpec.*",
            ".*resuming from a checkpoint that ended before.*",
            ".*Checkpoint directory.*",
            ".*srun. command is available.*",
        ):
            warnings.filterwarnings("ignore", message=message)
        by_srun = SLURMEnvironment.detect() and not TorchElasticEnvironment.detect()  # torchrun may run inside a job of one task
        slurm = [SLURMEnvironment(auto_requeue=False)] if by_srun else []
        return {
            "accelerator": self.accelerator,
            "devices": self.devices,
            "num_nodes": self.num_nodes,
            "plugins": [*plugins, *slurm],
            "callbacks": list(callbacks),
            "logger": loggers,
            "use_distributed_sampler": False,
            "inference_mode": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
        }
