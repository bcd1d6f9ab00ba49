"""The folder of a finished run, written by hand from the example faces."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml
from PIL import Image, ImageFilter

from diffusion_priors.evaluation.statistics import estimate

FACES = sorted((Path(__file__).parents[2] / "examples" / "faces").glob("*.png"))

HOSTILE = ("<img src=x onerror=alert(1)>", "<script>alert(2)<!--", '"><svg onload=alert(3)>', "{{ 7 * 7 }} & ünï %2F #?")


def psnr(x: np.ndarray, truth: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((x / 255.0 - truth / 255.0) ** 2)))


def save(path: Path, x: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(x.clip(0, 255).round().astype(np.uint8)).save(path)


class WrittenRun:
    """The folder of a run over images called `names`, made of the example faces, `size` pixels wide and high."""

    metrics = ("psnr", "ssim", "lpips")

    def __init__(
        self, root: Path, names: Sequence[str], samples: int = 1, size: int = 48, truth: bool = True, measured: bool = True
    ) -> None:
        self.root, self.names, self.samples, self.size = root, names, samples, size
        self.truth, self.measured = truth, measured
        self.rng = np.random.default_rng(0)
        self.records: list[dict] = []
        self.posterior: list[dict] = []
        for number, name in enumerate(names):
            self.add(number, name)

    def add(self, number: int, name: str) -> None:
        folder = self.root / "images" / name
        with Image.open(FACES[number % len(FACES)]) as face:
            whole = face.convert("RGB").resize((self.size, self.size))
        truth = np.asarray(whole, dtype=np.float64)
        small = np.asarray(whole.resize((self.size // 4, self.size // 4), Image.Resampling.BOX), dtype=np.float64)
        given = small + self.rng.normal(0, 6, small.shape)
        soft = np.asarray(whole.filter(ImageFilter.GaussianBlur(1 + number % 5)), dtype=np.float64)
        made = [soft + self.rng.normal(0, 4 + number % 3, soft.shape) for _ in range(self.samples)]
        if self.truth:
            save(folder / "truth.png", truth)
        if self.measured:
            save(folder / "measurement.png", given)
        for sample, x in enumerate(made):
            save(folder / f"restoration-{sample}.png", x)
            self.records.append(self.record(name, number, sample, self.scores(x, truth), given.repeat(4, 0).repeat(4, 1), truth))
        if self.samples > 1:
            mean, std = np.mean(made, axis=0), np.std(made, axis=0)
            save(folder / "mean.png", mean)
            save(folder / "std.png", std.mean(-1) * 12)
            line = {"id": name, "samples": self.samples, **self.scores(mean, truth), "deviation": float(std.mean() / 255)}
            self.posterior.append(line)

    def scores(self, x: np.ndarray, truth: np.ndarray) -> dict:
        if not self.truth:
            return dict.fromkeys(self.metrics)
        value = psnr(x, truth)
        return {"psnr": value, "ssim": value / 40, "lpips": None}

    def record(self, name: str, number: int, sample: int, scores: dict, given: np.ndarray, truth: np.ndarray) -> dict:
        measured = {f"{key}_measurement": value for key, value in self.scores(given, truth).items()}
        if not self.measured:
            measured = dict.fromkeys(measured)
        cost = {"nfe_forward": 250, "nfe_vjp": 250, "seconds": 1.5 + 0.01 * number, "peak_memory_mib": 812.4}
        problem = {"residual": 0.05 + 0.001 * number, "sigma_y": 0.05, "measurement_hash": f"{number:016x}"}
        if not self.measured:
            problem = dict.fromkeys(problem)
        return {"id": name, "sample": sample, "seed": 0} | scores | measured | cost | problem | {"error": None}

    def fail(self, name: str, sample: int, error: str) -> None:
        record = next(r for r in self.records if (r["id"], r["sample"]) == (name, sample))
        record |= dict.fromkeys((*self.metrics, "residual")) | {"error": error}
        (self.root / "images" / name / f"restoration-{sample}.png").unlink()

    def write(self, **changes: object) -> Path:
        """config.yaml, records.jsonl, posterior.jsonl and summary.json; `changes` go into the summary."""
        self.root.mkdir(parents=True, exist_ok=True)
        config = {
            "seed": 0,
            "solver": {"_target_": "diffusion_priors.solvers.dps.DPS", "zeta": 1.0},
            "data": {"root": "faces <b>of</b> & </script>"},
        }
        source = {"python": "3.11.7", "packages": {"torch": "2.8.0"}, "git": {"commit": "0123456789abcdef", "dirty": True}}
        command = "python evaluate.py solver=dps operator=super_resolution data.root='faces <b>of</b> & </script>'"
        settings = {"config": config, "choices": {"solver": "dps"}, "overrides": ["solver=dps"], "command": command, "source": source}
        (self.root / "config.yaml").write_text(yaml.safe_dump(settings))
        (self.root / "records.jsonl").write_text("".join(json.dumps(r) + "\n" for r in self.records))
        if self.posterior:
            (self.root / "posterior.jsonl").write_text("".join(json.dumps(r) + "\n" for r in self.posterior))
        (self.root / "summary.json").write_text(json.dumps(self.summary() | changes))
        return self.root

    def summary(self) -> dict:
        def row(found: list[dict], *keys: str, suffix: str = "") -> dict:
            own = [[record for record in found if record["id"] == name] for name in self.names]
            made = {key: [estimate([record[key + suffix] for record in records]) for records in own] for key in keys}
            means = {key: estimate([one and one.mean for one in values]) for key, values in made.items()}
            return {key: None if value is None else value.to_dict() for key, value in means.items()}

        rows = {
            "measurement": row(self.records, *self.metrics, suffix="_measurement"),
            "single": row(self.records, *self.metrics, "residual"),
        }
        if self.samples > 1:
            rows |= {"posterior_mean": row(self.posterior, *self.metrics), "best_of_n": row(self.posterior, *self.metrics)}
        seconds = row(self.records, "seconds")["seconds"]
        return {
            "title": "dps · super_resolution · sigma_y 0.05 in [-1, 1] = 0.025 in [0, 1] · faces64 · 250 steps",
            "complete": True,
            "images": len(self.names),
            "records": len(self.records),
            "failed": sum(r["error"] is not None for r in self.records),
            "num_samples": self.samples,
            "metrics": list(self.metrics),
            "statistics": rows,
            "cost": {"nfe_forward": 250.0, "nfe_vjp": 250.0, "seconds": seconds, "peak_memory_mib": 812.4},
            "sigma_y": 0.05 if self.measured else None,
            "measurements": "00112233aabbccdd" if self.measured else None,
            "footnote": "LPIPS: its trunk is not here <i>at all</i>",
        }
