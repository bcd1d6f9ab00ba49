"""Which dashboards have the results of a finished run: summary.json lists their settings under `logged`."""

from __future__ import annotations

from collections.abc import Sequence

from diffusion_priors.evaluation.restoration.folder import RestorationFolder
from diffusion_priors.evaluation.summary import Summary
from diffusion_priors.runs.config import read_config
from diffusion_priors.runs.exit_codes import FAILED
from diffusion_priors.runs.loggers import Dashboard


def has_logged(folder: RestorationFolder, summary: Summary, logger: dict | None) -> bool:
    """Whether the dashboard with these settings, config["logger"], has the results. None stands for no dashboard.

    Earlier versions kept no list: there it is the dashboard with which the run ended. Raises what read_config raises.
    """
    listed = summary["logged"] if "logged" in summary else [read_config(folder.layout.config)["config"].get("logger")]
    return logger is None or logger in listed


def log_finished(dashboard: Dashboard, folder: RestorationFolder, config: dict, summary: Summary, records: Sequence[dict]) -> bool:
    """Show the results of a finished run on a dashboard that does not have them; → whether that was so."""
    logger = config.get("logger")
    if has_logged(folder, summary, logger):
        return False
    code = FAILED
    try:
        loggers = dashboard(folder.root, config)
        if not loggers:
            return False
        dashboard.publish(loggers, folder.root, summary, records)
        folder.finish(summary | {"logged": [*summary.get("logged", []), logger]})
        code = FAILED if summary["failed"] else 0
    finally:
        dashboard.finish(code)
    return True
