"""Restore images with a diffusion prior: python sample.py --help."""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from diffusion_priors.conf.command import command, importing, job


@hydra.main(version_base="1.3", config_path="conf", config_name="sample")
@job
def main(config: DictConfig) -> float | None:
    """Returns what a tuner improves, `objective`."""
    with importing():
        from diffusion_priors.conf.build import build_sample
        from diffusion_priors.conf.checks import settings_of
        from diffusion_priors.conf.restore import objective, restore
        from diffusion_priors.conf.settings import SampleSettings

    settings = settings_of(config, SampleSettings)
    return objective(restore(config, settings, "sample.py", build_sample), settings.objective)


if __name__ == "__main__":
    command(main)
