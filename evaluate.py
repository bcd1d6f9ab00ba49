"""Evaluate solvers on a folder of images, score images made elsewhere, compare runs: python evaluate.py --help."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from diffusion_priors.conf.command import command, importing, job
from diffusion_priors.conf.errors import refusing
from diffusion_priors.conf.folders import name_sweep, output_folder, two_runs
from diffusion_priors.conf.kept import kept, overrides
from diffusion_priors.runs.printable import show

if TYPE_CHECKING:
    from diffusion_priors.conf.settings import EvaluateSettings

SCRIPT = "evaluate.py"


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
@job
def main(config: DictConfig) -> float | None:
    """Returns what a tuner improves: `objective`, or the distance to an exact posterior."""
    from diffusion_priors.conf.checks import settings_of
    from diffusion_priors.conf.settings import EvaluateSettings

    settings = settings_of(config, EvaluateSettings)
    if settings.compare is not None:
        return comparison(config)
    if "exact_problem" in config:
        return exact_posterior(config, settings)
    if settings.samples is not None or settings.truth is not None:
        return scoring(config, settings)
    return evaluation(config, settings)


def evaluation(config: DictConfig, settings: EvaluateSettings) -> float | None:
    """Restore and score a folder of images; → the objective."""
    with importing():
        from diffusion_priors.conf.build import build_evaluation
        from diffusion_priors.conf.restore import objective, restore

    return objective(restore(config, settings, SCRIPT, build_evaluation), settings.objective)


def exact_posterior(config: DictConfig, settings: EvaluateSettings) -> float | None:
    """Compare one solver with an exact posterior; → the distance, for a tuner to minimise."""
    with importing():
        from diffusion_priors.conf.build import build_exact, tune
        from diffusion_priors.conf.provenance import config_text
        from diffusion_priors.evaluation.exact import results
        from diffusion_priors.evaluation.exact.table import text
        from diffusion_priors.runs.lock import locked

    folder, solver = output_folder(settings.output_dir), HydraConfig.get().runtime.choices.get("solver")
    tuned = tune(config, solver, overrides())
    run = build_exact(config, settings, overrides())
    plain = kept(config)
    with refusing(), locked(folder):
        found = results.find(folder, plain, settings.overwrite)
        if found is None:
            run.check()
            found = results.write(folder, run.run(), solver, tuned, plain, config_text(config, SCRIPT))
    show(f"{text([found | {'label': solver}])}\n\nresults: {folder}\n")
    return found["distances"].get("w2")


def scoring(config: DictConfig, settings: EvaluateSettings) -> float | None:
    """Score images that were made elsewhere; → the objective."""
    with importing():
        from diffusion_priors.conf.build import build_scoring
        from diffusion_priors.conf.provenance import config_text
        from diffusion_priors.conf.restore import objective
        from diffusion_priors.evaluation.reporting.summary_text import outcome
        from diffusion_priors.runs.lock import locked

    folder = output_folder(settings.output_dir)
    run = build_scoring(config, settings, folder)
    with refusing(), locked(folder):
        run.check(kept(config))
        show(f"already scored: {folder}" if run.finished else run.title())
        summary = run.finished or run.run(config_text(config, SCRIPT))
    show(f"\n{outcome(summary, folder)}")
    return objective(summary, settings.objective)


def comparison(config: DictConfig) -> None:
    """Compare two runs, image by image."""
    from diffusion_priors.evaluation.comparison.compare import compare

    with refusing():
        show(compare(*two_runs(config)).text())


if __name__ == "__main__":
    sys.argv = name_sweep(sys.argv)
    command(main)
