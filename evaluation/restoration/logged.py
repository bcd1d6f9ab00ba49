"""Which dashboards have the results of a finished run: config.yaml lists their settings under `logged`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from diffusion_priors.runs.config import read_config
from diffusion_priors.runs.exit_codes import FAILED
from diffusion_priors.runs.files import write_whole
from diffusion_priors.runs.layout import RunLayout
from diffusion_priors.runs.loggers import Dashboard


def has_logged(layout: RunLayout, logger: dict | None) -> bool:
    """Whether the dashboard with these settings, config["logger"], has the results. None stands for no dashboard.

    Earlier versions kept no list: there it is the dashboard with which the run ended. Raises what read_config raises.
    """
    content = read_config(layout.config)
    listed = content.get("logged", [content["config"].get("logger")])
    return logger is None or (isinstance(listed, list) and logger in listed)


def note_logged(layout: RunLayout, logger: dict | None) -> None:
    """Add a dashboard's settings to the list. Raises what read_config and write_whole raise."""
    content = read_config(layout.config)
    listed = content.get("logged")
    content["logged"] = [*(listed if isinstance(listed, list) else []), logger]
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=10**6)
    write_whole(layout.config, lambda stream: stream.write(text.encode()))


def log_finished(dashboard: Dashboard, folder: Path, config: dict, summary: dict, records: Sequence[dict]) -> bool:
    """Show the results of the finished run in `folder` on a dashboard that does not have them; → whether that was so."""
    layout = RunLayout(folder)
    if has_logged(layout, config.get("logger")):
        return False
    code = FAILED
    try:
        dashboard.publish(dashboard(folder, config), folder, summary, records)
        note_logged(layout, config.get("logger"))
        code = FAILED if summary["failed"] else 0
    finally:
        dashboard.finish(code)
    return True
