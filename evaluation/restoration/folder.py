"""The folder of an evaluation: gone on with, shared by processes, never doubled."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from diffusion_priors.evaluation.restoration.module import Restored
from diffusion_priors.images.io import save_image
from diffusion_priors.runs.config import differences, read_config, refuse
from diffusion_priors.runs.files import append_line, write_whole
from diffusion_priors.runs.layout import MEASUREMENT, NOISY, TRUTH, RunLayout, restoration
from diffusion_priors.runs.records import drop_partial_line, read_lines, read_records

FREE = (
    *(f"trainer.{name}" for name in ("accelerator", "devices", "num_nodes", "strategy", "channels_last", "compile", "threads")),
    *(f"metrics.{lpips}.{name}" for lpips in ("lpips", "lpips_vgg", "lpips_squeeze") for name in ("trunk", "download", "url")),
    *(f"prior.{name}" for name in ("path", "checkpoint.path", "checkpoint.url", "checkpoint.name")),
    "batch_size",
    "callbacks",
    "logger",
    "output_dir",
    "overwrite",
    "objective",
    "report",
    "table",
    "data.freeze",
    "data.workers",
)
"""What may change between a run and the one that goes on from it: nothing that an image's result depends on.

Where the weights lie is free; what they are is compared.
"""


class EvaluationFolder:
    """config.yaml, records.jsonl, images/<id>/…, posterior.jsonl, figure.png, report.html and summary.json under `root`.

    Process `rank` appends to a file of its own; the first one merges them. Images are written before their
    record, so a record vouches for them.
    """

    def __init__(self, root: Path, rank: int, overwrite: bool = False) -> None:
        self.root, self.rank, self.overwrite = root, rank, overwrite
        self.layout = RunLayout(root)

    def find(self, config: dict, weights: str | None = None) -> set[tuple[str, int]]:
        """The items on record by an earlier run with this configuration and these weights, as (id, sample).

        Raises ValueError where the run here is another one, and PermissionError where nothing can be written.
        """
        nearest = next(p for p in (self.root, *self.root.resolve().parents) if p.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK):
            raise PermissionError(f"cannot write to {nearest}; set output_dir to a folder that can be written")
        if self.overwrite or not self.layout.all_records():
            return set()
        changes = differences(self.layout.config, config, FREE)
        kept = self._weights()
        if weights is not None and kept not in (None, weights):
            changes.append(f"the prior's weights were those of {kept}, are those of {weights}")
        refuse(self.root, changes)
        return {(record["id"], record["sample"]) for path in self.layout.all_records() for record in read_lines(path)}

    def _weights(self) -> str | None:
        try:
            return read_config(self.layout.config).get("weights")
        except FileNotFoundError:
            return None

    def check_images(self, known: set[tuple[str, int]], keys: set[tuple[str, int]]) -> None:
        """Raises ValueError where something `known` is not among the items `keys`: the figures would be of images that are gone."""
        gone = sorted({name for name, _ in known - keys})
        if gone:
            shown = ", ".join(gone[:3]) + (", …" if len(gone) > 3 else "")
            raise ValueError(
                f"{self.root} has records of {len(gone)} images that are not here any more ({shown}); "
                "choose another output_dir, or overwrite=true to begin anew"
            )

    def open(self, text: str) -> None:
        """Write config.yaml and mend what a killed process left; with `overwrite`, what an earlier run left here goes.

        An old summary goes in any case: it is what says that a run is complete.
        """
        if self.overwrite:
            for path in [*self.layout.all_records(), *self.layout.results()]:
                path.unlink(missing_ok=True)
            shutil.rmtree(self.layout.images, ignore_errors=True)
        for path in [*self.layout.all_records(), self.layout.posterior]:
            drop_partial_line(path)
        for partial in [*self.root.glob(".*.????????"), *self.layout.images.glob("*/.*.png.*")]:
            partial.unlink(missing_ok=True)
        for path in (self.layout.error, self.layout.summary):
            path.unlink(missing_ok=True)
        write_whole(self.layout.config, lambda stream: stream.write(text.encode()))

    def add(self, done: Restored, known: set[tuple[str, int]]) -> None:
        """Write the images and records of a batch; those `known` from before stay as they are."""
        for b, record in enumerate(done.records):
            if (record["id"], record["sample"]) not in known:
                save_images(self.root, done, b)
                append_line(self.layout.records_of(self.rank), json.dumps(record, allow_nan=False))

    def merge(self) -> list[dict]:
        """All records, in order in one file; the other parts go."""
        records = read_records(self.root)
        write_whole(self.layout.records, lambda stream: stream.writelines(json.dumps(r).encode() + b"\n" for r in records))
        for path in self.layout.all_records()[1:]:
            path.unlink()
        return records

    def summary(self) -> dict | None:
        """What an earlier run wrote last, or None."""
        try:
            return json.loads(self.layout.summary.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def finish(self, summary: dict) -> None:
        write_whole(self.layout.summary, lambda f: f.write(json.dumps(summary, indent=2, ensure_ascii=False).encode() + b"\n"))


def pending(groups: Sequence[Sequence[int]], keys: Sequence[tuple[str, int]], known: set[tuple[str, int]]) -> list[Sequence[int]]:
    """The batches of which something is not on record yet."""
    return [group for group in groups if any(keys[index] not in known for index in group)]


def changed(root: Path, name: str) -> ValueError:
    """What is wrong where an image on record is another one by now."""
    return ValueError(f"{name} is not the image that {root} has a record of; choose another output_dir, or overwrite=true to begin anew")


def save_images(root: Path, done: Restored, b: int) -> None:
    """The images of item b → images/<id>/; no restoration where it failed."""
    record = done.records[b]
    layout = RunLayout(root)
    made = done.x0 if record["error"] is None else None
    for kind, images in (
        (TRUTH, done.truth),
        (MEASUREMENT, done.y),
        (NOISY, done.start),
        (restoration(record["sample"]), made),
    ):
        if images is not None:
            save_image(layout.image(record["id"], kind), images[b])
