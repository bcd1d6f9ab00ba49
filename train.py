"""Train or fine-tune a diffusion prior: python train.py --help."""

from __future__ import annotations

from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from diffusion_priors.conf import PROJECT
from diffusion_priors.conf.command import FAILED, command, importing, job
from diffusion_priors.conf.errors import Stop, refusing
from diffusion_priors.conf.kept import kept, kept_overrides, overrides

SET_BY_PRIOR = ("network", "schedule", "preconditioning")
"""Groups that only prior=new takes: any other prior comes with its own."""


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
@job
def main(config: DictConfig) -> None:
    with importing():
        from diffusion_priors.conf.build import build_training
        from diffusion_priors.conf.checks import settings_of
        from diffusion_priors.conf.provenance import chosen, source_state
        from diffusion_priors.conf.settings import TrainSettings
        from diffusion_priors.runs.lock import locked
        from diffusion_priors.training.run import NotFinite

    hydra_config = HydraConfig.get()
    sweeping = hydra_config.mode == RunMode.MULTIRUN
    prior = hydra_config.runtime.choices.get("prior")
    settings = settings_of(config, TrainSettings)
    for override in overrides():
        group = override.lstrip("+~").split("=")[0].split(".")[0]
        if prior != "new" and group in SET_BY_PRIOR:
            raise Stop(f"prior={prior} brings its own network, schedule and preconditioning; leave out {override}, or prior={prior}")
    folder = Path(hydra_config.runtime.output_dir if sweeping else settings.output_dir)
    run = build_training(config, settings, folder)
    if sweeping and run.trainer.world > 1:
        raise Stop("a sweep cannot run a job in several processes, because each would run the whole sweep; set trainer.devices=1")

    record = {
        "config": kept(config),
        "choices": chosen(),
        "overrides": kept_overrides(),
        "source": source_state(PROJECT),
    }
    with refusing(), locked(folder, run.first):
        try:
            run.check(record["config"])
            if run.first:
                print(run.title(prior))
            run.run(record["config"] | {"choices": record["choices"]}, OmegaConf.to_yaml(OmegaConf.create(record)))
        except NotFinite as error:
            raise Stop(str(error), FAILED) from error
    if run.stopped is not None:
        raise Stop(*run.stopped)
    if run.first:
        print(run.outcome())


if __name__ == "__main__":
    command(main)
