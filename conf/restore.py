"""A restoration run from its command line to its table: what sample.py and evaluate.py share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from diffusion_priors.conf.errors import Stop, refusing
from diffusion_priors.conf.folders import output_folder, shares_sweep_process
from diffusion_priors.conf.kept import kept, overrides
from diffusion_priors.conf.provenance import chosen, config_text
from diffusion_priors.conf.settings import EvaluateSettings, SampleSettings
from diffusion_priors.evaluation.reporting.run_page import write_report
from diffusion_priors.evaluation.reporting.summary_text import outcome
from diffusion_priors.evaluation.restoration.logged import log_finished
from diffusion_priors.evaluation.restoration.run import RestorationRun
from diffusion_priors.runs.exit_codes import FAILED
from diffusion_priors.runs.lock import locked
from diffusion_priors.runs.printable import show

Settings = TypeVar("Settings", SampleSettings, EvaluateSettings)


def restore(
    config: DictConfig, settings: Settings, script: str, build_run: Callable[[DictConfig, Settings, Path, Sequence[str]], RestorationRun]
) -> dict | None:
    """Build the run, check it, run it and print its table; → the summary, None in a process that only helps.

    Raises Stop where it cannot be run, where it was stopped early, and where restorations failed.
    """
    hydra_config = HydraConfig.get()
    choices = hydra_config.runtime.choices
    if choices.get("prior") == "new":
        raise Stop("prior=new is an untrained network, for train.py; choose another prior")
    folder = output_folder(settings.output_dir)
    run = build_run(config, settings, folder, overrides())
    if run.trainer.world > 1 and shares_sweep_process():
        raise Stop("a sweep cannot share a job among processes of its own: each would run the sweep; use one device a job, or a launcher")
    with refusing(), locked(folder, run.first):
        summary = _run(run, config, script)
    if run.stopped is not None:
        raise Stop(*run.stopped)
    if summary is not None and summary["failed"]:
        raise Stop(f"{summary['failed']} of {summary['records']} failed; {summary['first_failure']}", FAILED)
    return summary


def _run(run: RestorationRun, config: DictConfig, script: str) -> dict | None:
    """Check the run, restore what is not on record and print the table; → the summary."""
    plain = kept(config)
    run.check(plain)
    if run.finished is not None:
        if run.first:
            _show_finished(run, plain | {"choices": chosen()})
        return run.finished
    choices, method = HydraConfig.get().runtime.choices, run.method
    measured = [choices.operator, method.noise_model.label(method.operator.unit)] if method.solver.uses_measurement else []
    title = run.title(" · ".join([choices.solver, *measured, choices.prior]))
    if run.first:
        show(title)
    summary = run.run(plain | {"choices": chosen()}, config_text(config, script, run.weights), title.splitlines()[0])
    if summary is not None:
        show(f"\n{outcome(summary, run.output)}")
    return summary


def _show_finished(run: RestorationRun, config: dict) -> None:
    """Print the table, write the page where it is missing, and log to a dashboard that does not have the results yet."""
    if not run.folder.layout.report.exists():
        write_report(run.output)
    logged = log_finished(run.logger, run.folder, config, run.finished, run.folder.sound)
    show(f"already evaluated{', now logged' if logged else ''}: {run.output}\n\n{outcome(run.finished, run.output)}")


def objective(summary: dict | None, name: str) -> float | None:
    """The mean of a metric over the restorations: what a tuner improves."""
    found = summary and summary["statistics"]["single"].get(name)
    return found and found["mean"]
