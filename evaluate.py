"""Evaluate solvers on a folder of pictures: python evaluate.py --help."""

from __future__ import annotations

from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from conf import PROJECT
from conf.command import FAILED, Stop, command, job, refusing
from conf.folders import ROOT, job_folder

BUNDLED_FACES = PROJECT / "examples" / "faces"


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
@job
def main(config: DictConfig) -> float | None:
    from conf.build import build_evaluation, source_state

    hydra_config = HydraConfig.get()
    choices = hydra_config.runtime.choices
    if choices.prior == "new":
        raise Stop("prior=new is an untrained network, for train.py; choose another prior")
    sweeping = hydra_config.mode == RunMode.MULTIRUN
    overrides = list(hydra_config.overrides.task)
    folder = Path(hydra_config.runtime.output_dir if sweeping else config.output_dir or f"{ROOT}/{job_folder(overrides)}")
    run = build_evaluation(config, folder)
    if run.solver.uses_measurement and run.data.root is None and run.data.measurements is None:
        run.data.root = config.data.root = str(BUNDLED_FACES)
    plain = OmegaConf.to_container(config, resolve=True)
    with refusing():
        run.check(plain)
    if run.finished is not None:
        if run.first:
            print(f"already evaluated: {folder}\n\n{run.outcome(run.finished)}")
        return objective(config, run.finished)

    problem = f"{choices.operator} · {run.noise.label} · " if run.solver.uses_measurement else ""
    title = run.title(f"{choices.solver} · {problem}{choices.prior}")
    if run.first:
        print(title)
    record = {
        "config": plain,
        "choices": OmegaConf.to_container(choices),
        "overrides": overrides,
        "command": " ".join(["python", "evaluate.py", *overrides]),
        "source": source_state(PROJECT),
    }
    with refusing():
        summary = run.run(plain, OmegaConf.to_yaml(OmegaConf.create(record)), title.splitlines()[0])
    if run.stopped is not None:
        raise Stop(*run.stopped)
    if summary is None:
        return None
    print(f"\n{run.outcome(summary)}")
    if summary["failed"]:
        raise Stop(f"{summary['failed']} of {summary['records']} failed; {summary['first_failure']}", FAILED)
    return objective(config, summary)


def objective(config: DictConfig, summary: dict) -> float | None:
    """The figure that a tuner improves."""
    found = summary["statistics"]["single"].get(config.objective)
    return None if found is None else found["mean"]


if __name__ == "__main__":
    command(main)
