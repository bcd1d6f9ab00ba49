"""Restore images with a diffusion prior: python sample.py --help."""

from __future__ import annotations

from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from diffusion_priors.conf import PROJECT
from diffusion_priors.conf.command import FAILED, Stop, command, job, refusing

BUNDLED_FACE = PROJECT / "examples" / "faces" / "face-1.png"


@hydra.main(version_base="1.3", config_path="conf", config_name="sample")
@job
def main(config: DictConfig) -> None:
    from diffusion_priors.conf.build import build_restoration, source_state
    from diffusion_priors.evaluation.restoration.output import table

    hydra_config = HydraConfig.get()
    if hydra_config.runtime.choices.prior == "new":
        raise Stop("prior=new is an untrained network, for train.py; choose another prior")
    sweeping = hydra_config.mode == RunMode.MULTIRUN
    folder = Path(hydra_config.runtime.output_dir if sweeping else config.output_dir)
    run = build_restoration(config, folder)
    if run.input is None and run.measurement is None and run.solver.uses_measurement:
        run.input = config.input = str(BUNDLED_FACE)
    with refusing():
        run.check()

    choices = hydra_config.runtime.choices
    problem = f"{choices.operator} · {run.noise_model.label(run.operator.unit)} · " if run.solver.uses_measurement else ""
    title = f"{choices.solver} · {problem}{choices.prior} · {len(run.levels) - 1} steps"
    print(title)
    resolved = OmegaConf.to_container(config, resolve=True)
    record = {"config": resolved, "overrides": list(hydra_config.overrides.task), "source": source_state(PROJECT)}
    try:
        with refusing():
            run.run(OmegaConf.to_yaml(OmegaConf.create(record)), title)
    finally:
        tally = run.output.tally
        if tally.records:
            print(f"\n{table(tally, run.metrics.footnote)}\n")
            print(f"images: {folder / 'images'}\nfigure:   {folder / 'figure.png'}")
    if tally.first_failure is not None:
        first = tally.first_failure
        raise Stop(f"{tally.failed} of {tally.records} failed; {first['id']}: {first['error']}", FAILED)


if __name__ == "__main__":
    command(main)
