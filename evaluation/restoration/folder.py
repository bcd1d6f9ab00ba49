"""Writing the folder of a restoration run: resumable, shared by processes, each file whole."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from diffusion_priors.evaluation.reporting.figure import draw_figure, enlarged
from diffusion_priors.evaluation.reporting.finished_run import read_summary
from diffusion_priors.evaluation.reporting.format import counted
from diffusion_priors.evaluation.restoration.batches import Restored
from diffusion_priors.evaluation.restoration.kept import fault, hashes
from diffusion_priors.evaluation.summary import Summary
from diffusion_priors.images.io import save_animation, save_image, to_image
from diffusion_priors.runs.config import differences, listed, read_config, refuse
from diffusion_priors.runs.files import append_line, delete_partial, write_whole
from diffusion_priors.runs.layout import MEASUREMENT, NOISY, TRUTH, RunLayout, film, restoration
from diffusion_priors.runs.reading.record_line import RecordLine
from diffusion_priors.runs.reading.records import drop_partial_line, key_of, once, read_records, scan_lines
from diffusion_priors.solvers.trajectory import kept_steps

MAY_DIFFER_ON_RESUME = (
    *(
        f"trainer.{name}"
        for name in ("accelerator", "devices", "num_nodes", "strategy", "channels_last", "compile", "checkpointing", "threads")
    ),
    *(f"metrics.{lpips}.{name}" for lpips in ("lpips", "lpips_vgg", "lpips_squeeze") for name in ("trunk", "download", "url")),
    *(f"prior.{name}" for name in ("path", "checkpoint.path", "checkpoint.url", "checkpoint.name")),
    "batch_size",
    "callbacks",
    "logger",
    "output_dir",
    "overwrite",
    "repair",
    "objective",
    "use_tuned",
    "report",
    "table",
    "trajectory",
    "data.freeze",
    "data.workers",
)
"""Configuration keys on which no result depends. The path of the weights may differ; the weights themselves are compared."""


IN_A_STRIP = 8
FILM_SECONDS = 4.0


class RestorationFolder:
    """The files of a run under `root`, as runs/layout.py names them.

    Process `rank` appends its records to a file of its own; the first process merges them. The images of a restoration
    are written before its record, and the record holds their hashes. Records that are damaged, and those whose images are
    not what was written, are refused; with `repair` they are removed instead, and their restorations are computed again.
    """

    def __init__(self, root: Path, rank: int = 0, overwrite: bool = False, repair: bool = False) -> None:
        self.root, self.rank, self.overwrite, self.repair = root, rank, overwrite, repair
        self.layout = RunLayout(root)
        self.sound: list[dict] = []
        self.faults: list[str] = []

    def check_writable(self) -> None:
        """Raises PermissionError where nothing can be written."""
        nearest = next(p for p in (self.root, *self.root.resolve().parents) if p.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK):
            raise PermissionError(f"cannot write to {nearest}; set output_dir to a folder that can be written")

    def check_unused(self) -> None:
        """Raises FileExistsError where a run has left records."""
        if self.layout.all_records() and not self.overwrite:
            raise FileExistsError(f"{self.root} already holds the records of a run; choose another output_dir or add overwrite=true")

    def find(self, config: dict, weights: str | None = None, metrics: Sequence[str] = ()) -> set[tuple[str, int]]:
        """The items on record, as (id, sample), of an earlier run with this configuration, these weights and `metrics`.

        Raises ValueError where the run here has another configuration, or something on record is damaged and `repair` is
        not set, and PermissionError where nothing can be written.
        """
        self.check_writable()
        if self.overwrite or not self.layout.all_records():
            return set()
        changes = differences(self.layout.config, config, MAY_DIFFER_ON_RESUME)
        kept = self._weights()
        if weights is not None and kept not in (None, weights):
            changes.append(f"the prior's weights were those of {kept}, are those of {weights}")
        refuse(self.root, changes)
        self.sound, self.faults = self._examine(metrics)
        if self.faults and not self.repair:
            raise ValueError(
                f"{self.root}: {listed(self.faults, None)}; add repair=true to compute this again, or overwrite=true to start over"
            )
        return {key_of(record) for record in self.sound}

    def _examine(self, metrics: Sequence[str]) -> tuple[list[dict], list[str]]:
        """The records that can be used, and what is wrong with the others."""
        needed = (*metrics, *(f"{name}_measurement" for name in metrics))
        lines = [line for path in self.layout.all_records() for line in scan_lines(path, RecordLine, needed)]
        faults = [str(line) for line in lines if line.fault is not None]
        sound = []
        for record in once(line.value for line in lines if line.fault is None):
            wrong = fault(self.layout, record)
            sound += [record] if wrong is None else []
            faults += [] if wrong is None else [wrong]
        return sound, faults

    def _weights(self) -> str | None:
        try:
            return read_config(self.layout.config).get("weights")
        except FileNotFoundError:
            return None

    def check_images(self, known: set[tuple[str, int]], keys: set[tuple[str, int]]) -> None:
        """Raises ValueError where an item that is `known` is not among the items `keys`: its image was deleted."""
        gone = sorted({name for name, _ in known - keys})
        if gone:
            shown, verb = ", ".join(gone[:3]) + (", …" if len(gone) > 3 else ""), "is" if len(gone) == 1 else "are"
            raise ValueError(
                f"{self.root} has records of {counted(len(gone), 'image')} that {verb} not here any more ({shown}); "
                "choose another output_dir, or overwrite=true to start over"
            )

    def open(self, text: str) -> None:
        """Write config.yaml and remove what a killed process left; with `overwrite`, remove all of the earlier run.

        With `repair`, records that cannot be used are removed, and what was computed from them. An old summary is removed in
        any case: it says that a run is complete.
        """
        if self.overwrite:
            for path in [*self.layout.all_records(), *self.layout.results()]:
                path.unlink(missing_ok=True)
            shutil.rmtree(self.layout.images, ignore_errors=True)
        if self.faults:
            self._write_records(self.sound)
            self.layout.posterior.unlink(missing_ok=True)
        for path in [*self.layout.all_records(), self.layout.posterior]:
            drop_partial_line(path)
        for folder in (self.root, *self.layout.images.glob("*")):
            delete_partial(folder)
        for path in (self.layout.error, self.layout.not_applicable, self.layout.summary):
            path.unlink(missing_ok=True)
        write_whole(self.layout.config, lambda stream: stream.write(text.encode()))

    def add(self, done: Restored, known: set[tuple[str, int]]) -> None:
        """Write the images and records of a batch; those `known` from before stay as they are."""
        for b, record in enumerate(done.records):
            if key_of(record) not in known:
                save_images(self.layout, done, b)
                line = json.dumps(record | {"hashes": hashes(done, b)}, allow_nan=False)
                append_line(self.layout.records_of(self.rank), line)

    def merge(self) -> list[dict]:
        """All records, in order, in one file; the files of the other processes are removed."""
        records = read_records(self.root)
        self._write_records(records)
        return records

    def _write_records(self, records: Sequence[dict]) -> None:
        """Write one file and remove those of the other processes."""
        write_whole(self.layout.records, lambda stream: stream.writelines(json.dumps(r).encode() + b"\n" for r in records))
        for path in self.layout.all_records():
            if path != self.layout.records:
                path.unlink()

    def check_kept(self, records: Sequence[dict], keys: Collection[tuple[str, int]]) -> None:
        """Raises ValueError where an item of `keys` has no record, or the images of a record are not what was written."""
        found = {key_of(record) for record in records}
        lost = [f"sample {sample} of {name}" for name, sample in keys if (name, sample) not in found]
        if lost:
            raise ValueError(
                f"{self.root}: records were deleted during the run: {listed(lost, None)}; the same command computes them again"
            )
        faults = [wrong for record in records if (wrong := fault(self.layout, record)) is not None]
        if faults:
            raise ValueError(
                f"{self.root}: images were changed during the run: {listed(faults, None)}; add repair=true to compute them again"
            )

    def complete_summary(self) -> Summary | None:
        """The summary of all the sound records; None where there is none, or the file is damaged: it is made again then."""
        try:
            found = read_summary(self.layout.summary)
        except (FileNotFoundError, ValueError):
            return None
        return found if found["complete"] and found["records"] == len(self.sound) else None

    def finish(self, summary: dict) -> None:
        content = json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False).encode(errors="backslashreplace") + b"\n"
        write_whole(self.layout.summary, lambda stream: stream.write(content))


def pending(groups: Sequence[Sequence[int]], keys: Sequence[tuple[str, int]], known: set[tuple[str, int]]) -> list[Sequence[int]]:
    """The batches of which something is not on record yet."""
    return [group for group in groups if any(keys[index] not in known for index in group)]


def changed(root: Path, name: str) -> ValueError:
    """The error for an image on record whose content has changed."""
    return ValueError(f"{name} is not the image that {root} has a record of; choose another output_dir, or overwrite=true to start over")


def save_images(layout: RunLayout, done: Restored, b: int) -> None:
    """The images of item b → images/<id>/; no restoration where it failed. A y that is no image is kept as a tensor."""
    record = done.records[b]
    made = done.x0 if record["error"] is None else None
    kinds = {TRUTH: done.truth, MEASUREMENT: done.measurement_image, NOISY: done.start, restoration(record["sample"]): made}
    for kind, images in kinds.items():
        if images is not None:
            save_image(layout.image(record["id"], kind), images[b])
    if done.trajectory is not None and made is not None:
        save_film(layout, record["id"], record["sample"], done.trajectory[b])
    for view in done.views[b] if done.views else []:
        save_image(layout.image(record["id"], view.kind), view.image, view.text)
    if done.y is not None and done.measurement_image is None:
        content = save({"y": done.y[b].cpu().contiguous()})
        write_whole(layout.measurement(record["id"]), lambda stream: stream.write(content))


def save_film(layout: RunLayout, name: str, sample: int, frames: Tensor) -> None:
    """The x̂0 (frames, C, H, W) of one sample: a strip of at most eight, and an animation of all."""
    images = [to_image(frame) for frame in frames]
    row = [(f"{k + 1} of {len(images)}", images[k]) for k in kept_steps(len(images), IN_A_STRIP)]
    strip = draw_figure([row], f"{name}, sample {sample}: estimates of the clean image")
    write_whole(layout.image(name, film(sample)), lambda stream: strip.save(stream, "PNG"))
    save_animation(layout.animation(name, sample), [enlarged(image) for image in images], FILM_SECONDS)
