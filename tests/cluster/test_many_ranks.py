"""64 jobs of 8 ranks each, without a cluster: where the command would write, and how what they write is merged."""

from __future__ import annotations

import json
from pathlib import Path

import hydra
import pytest
from evaluations import ROOT
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf, open_dict

from diffusion_priors.conf.folders import name_sweep
from diffusion_priors.evaluation.restoration.folder import RestorationFolder, pending
from diffusion_priors.evaluation.restoration.groups import batches_of
from diffusion_priors.runs.files import append_line
from diffusion_priors.runs.layout import RunLayout
from diffusion_priors.runs.reading.records import Record

JOBS, RANKS, IMAGES, BATCH = 64, 8, 20, 2
LINE = [
    *("data.root=/data/faces", "solver=dps,sitcom,diffpir,ddrm", "operator=inpaint_box,deblur_gaussian,super_resolution,hdr"),
    *("seed=0,1,2,3", "trainer=ddp", f"trainer.devices={RANKS}", f"hydra.launcher.tasks_per_node={RANKS}", "hydra/launcher=slurm"),
]


@pytest.fixture(scope="module")
def folders() -> list[Path]:
    """The folder of each job, as the command's own configuration names it."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    named = name_sweep(["evaluate.py", "-m", *LINE])[2:]
    (jobs,) = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(named), max_batch_size=None)
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = hydra.compose("evaluate", list(jobs[0]), return_hydra_config=True)
    assert (config.hydra.launcher.tasks_per_node, config.trainer.devices) == (RANKS, RANKS)
    with open_dict(config):
        return [Path(config.hydra.sweep.dir) / subfolder(config, job) for job in jobs]


def subfolder(config, job: list[str]) -> str:
    config.hydra.overrides.task = OmegaConf.create([override for override in job if not override.startswith("hydra")])
    return config.hydra.sweep.subdir


def test_every_rank_of_every_job_has_a_file_of_its_own(folders):
    assert len(folders) == JOBS and len({folder.parent for folder in folders}) == 1
    files = {RunLayout(folder).records_of(rank) for folder in folders for rank in range(RANKS)}
    assert len(files) == JOBS * RANKS
    assert max(len(folder.name.encode()) for folder in folders) < 256


def test_what_the_ranks_of_each_job_write_is_merged_and_nothing_else(folders, tmp_path):
    """The shares of the ranks are those of a run: every eighth batch. One record is there twice."""
    keys = [(f"{number:02}", 0) for number in range(IMAGES)]
    batches = pending(batches_of(IMAGES, BATCH), keys, set())
    for seed, folder in enumerate(folders):
        for rank in range(RANKS):
            for index in (index for batch in batches[rank::RANKS] for index in batch):
                append_line(RunLayout(tmp_path / folder).records_of(rank), line(keys[index][0], seed))
        append_line(RunLayout(tmp_path / folder).records_of(RANKS - 1), line(keys[0][0], seed))
    for seed, folder in enumerate(folders):
        records = RestorationFolder(tmp_path / folder).merge()
        assert [(record["id"], record["seed"]) for record in records] == [(name, seed) for name, _ in keys]
        assert RunLayout(tmp_path / folder).all_records() == [RunLayout(tmp_path / folder).records]


def line(name: str, seed: int) -> str:
    return json.dumps(Record(id=name, sample=0, seed=seed, scores={"psnr": 20.0}, measurement_scores={"psnr": 15.0}).to_dict())
