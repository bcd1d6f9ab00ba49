"""Configuration: one group per concept, one yaml per class; the command line's errors; the one place that instantiates."""

from pathlib import Path

from omegaconf import OmegaConf

from diffusion_priors.conf.folders import job_folder, sweep_folder, sweep_name
from diffusion_priors.conf.groups import help_text
from diffusion_priors.runs.printable import command_of

PROJECT = Path(__file__).resolve().parent.parent

OmegaConf.register_new_resolver("project", lambda path: str(PROJECT / path), replace=True)
OmegaConf.register_new_resolver("command", command_of, replace=True)
OmegaConf.register_new_resolver("groups", help_text, replace=True)
OmegaConf.register_new_resolver("job_folder", job_folder, replace=True)
OmegaConf.register_new_resolver("sweep_folder", sweep_folder, replace=True)
OmegaConf.register_new_resolver("sweep_name", sweep_name, replace=True)
