"""Evaluate solvers on a folder of images, score images made elsewhere, compare runs: python evaluate.py --help."""

from __future__ import annotations

import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from diffusion_priors.conf import PROJECT
from diffusion_priors.conf.command import FAILED, Stop, command, job, refusing
from diffusion_priors.conf.folders import ROOT, job_folder, name_sweep

BUNDLED_FACES = PROJECT / "examples" / "faces"


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
@job
def main(config: DictConfig) -> float | None:
    """What a tuner improves, `objective`, is returned."""
    if config.compare is not None:
        return comparison(config)
    if "exact_problem" in config:
        return exact_posterior(config)
    summary = scoring(config) if config.samples is not None or config.truth is not None else evaluation(config)
    found = summary and summary["statistics"]["single"].get(config.objective)
    return found and found["mean"]


def evaluation(config: DictConfig) -> dict | None:
    """Restore and score a folder of images; → the summary, None in a process that only helps."""
    from diffusion_priors.conf.build import build_evaluation
    from diffusion_priors.evaluation.reporting.summary_text import outcome

    hydra_config = HydraConfig.get()
    choices = hydra_config.runtime.choices
    if choices.prior == "new":
        raise Stop("prior=new is an untrained network, for train.py; choose another prior")
    folder = output_folder(config)
    run = build_evaluation(config, folder)
    if run.trainer.world > 1 and alone():
        raise Stop("a sweep cannot share a job among processes of its own: each would run the sweep; use one device a job, or a launcher")
    if run.solver.uses_measurement and run.data.root is None and run.data.measurements is None:
        run.data.root = config.data.root = str(BUNDLED_FACES)
    plain = OmegaConf.to_container(config, resolve=True)
    with refusing():
        run.check(plain)
    if run.finished is not None:
        if run.first:
            run.mend()
            print(f"already evaluated: {folder}\n\n{outcome(run.finished, folder)}")
        return run.finished

    problem = f"{choices.operator} · {run.noise_model.label(run.operator.unit)} · " if run.solver.uses_measurement else ""
    title = run.title(f"{choices.solver} · {problem}{choices.prior}")
    if run.first:
        print(title)
    with refusing():
        summary = run.run(plain, record(config, run.weights), title.splitlines()[0])
    if run.stopped is not None:
        raise Stop(*run.stopped)
    if summary is not None:
        print(f"\n{outcome(summary, folder)}")
        if summary["failed"]:
            raise Stop(f"{summary['failed']} of {summary['records']} failed; {summary['first_failure']}", FAILED)
    return summary


def exact_posterior(config: DictConfig) -> float | None:
    """One solver against an exact posterior; → its distance to it, for a tuner to make small."""
    from diffusion_priors.conf.build import build_exact, tune
    from diffusion_priors.evaluation.exact import results as truths
    from diffusion_priors.evaluation.exact.table import text

    folder, solver = output_folder(config), HydraConfig.get().runtime.choices.solver
    tune(config, solver, HydraConfig.get().overrides.task)
    run = build_exact(config)
    plain = OmegaConf.to_container(config, resolve=True)
    with refusing():
        found = truths.find(folder, plain, config.overwrite)
        if found is None:
            run.check()
            found = truths.write(folder, run.run(), solver, plain, record(config))
    print(f"{text([found | {'label': solver}])}\n\nfigures: {folder}\n")
    return found["figures"].get("w2")


def scoring(config: DictConfig) -> dict:
    """Score images that were made elsewhere; → the summary."""
    from diffusion_priors.conf.build import build_scoring
    from diffusion_priors.evaluation.reporting.summary_text import outcome

    folder = output_folder(config)
    run = build_scoring(config, folder)
    with refusing():
        run.check(OmegaConf.to_container(config, resolve=True))
        print(f"already scored: {folder}" if run.finished else run.title())
        summary = run.finished or run.run(record(config))
    print(f"\n{outcome(summary, folder)}")
    return summary


def comparison(config: DictConfig) -> None:
    """Two runs, image by image."""
    from diffusion_priors.conf.build import two_runs
    from diffusion_priors.evaluation.comparison.compare import compare

    with refusing():
        print(compare(*two_runs(config)).text())


def output_folder(config: DictConfig) -> Path:
    """A sweep's job has its own; otherwise output_dir, or a name made of the overrides."""
    hydra_config = HydraConfig.get()
    if hydra_config.mode == RunMode.MULTIRUN:
        return Path(hydra_config.runtime.output_dir)
    return Path(config.output_dir or f"{ROOT}/{job_folder(hydra_config.overrides.task)}")


def alone() -> bool:
    """Whether this is a job of a sweep in the sweep's own process, which Lightning would start again as a whole."""
    hydra_config = HydraConfig.get()
    return hydra_config.mode == RunMode.MULTIRUN and hydra_config.launcher._target_.endswith("BasicLauncher")


def record(config: DictConfig, weights: str | None = None) -> str:
    """The text of config.yaml: all that made this run."""
    from diffusion_priors.conf.build import source_state

    hydra_config = HydraConfig.get()
    overrides = list(hydra_config.overrides.task)
    content = {
        "config": OmegaConf.to_container(config, resolve=True),
        "choices": OmegaConf.to_container(hydra_config.runtime.choices),
        "overrides": overrides,
        "command": " ".join(["python", "evaluate.py", *overrides]),
        "weights": weights,
        "source": source_state(PROJECT),
    }
    return OmegaConf.to_yaml(OmegaConf.create(content))


if __name__ == "__main__":
    name_sweep(sys.argv)
    command(main)
