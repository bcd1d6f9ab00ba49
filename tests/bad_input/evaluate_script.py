"""What evaluate.py refuses: images, values, samples of other programs, comparisons."""

from __future__ import annotations

import os
import re
from pathlib import Path

from bad_input import Bad
from forks import ROOT
from tiny_evaluation import draw_images

CORES = os.cpu_count()
CPUS = ["trainer=ddp", "trainer.accelerator=cpu"]


def bad_files(folder: Path) -> None:
    (folder / "empty").mkdir()
    (folder / "broken").mkdir()
    (folder / "broken" / "text.png").write_text("no image")
    draw_images(folder / "others", 2)
    for i, path in enumerate(sorted((folder / "others").iterdir())):
        path.rename(folder / "others" / f"other-{i}.png")
    draw_images(folder / "large", 2, (32, 32))
    (folder / "file").touch()


SOLVERS = sorted(path.stem for path in (ROOT / "conf" / "solver").glob("*.yaml"))
BAD = {
    "no such root": (["data.root=nowhere"], "no image at nowhere; give a file, a folder or a glob"),
    "an empty root": (["data.root=empty"], "no images in the folder empty; it should hold files like"),
    "an image that is none": (["data.root=broken"], "cannot use the image broken/text.png: it is no image of a known format"),
    "an image twice": (["data.root=[images,images/face-00.png]"], "face-00.png is given twice"),
    "another size": (["fit@data.fit=exact"], "it is 20 x 24, wanted is 16 x 16; use fit=crop"),
    "an unknown key": (["data.rot=images"], "data.rot is unknown; known here: fit, _target_, root, degraded, split"),
    "an unknown new key": (["+sed=1"], "sed is unknown; known here: batch_size, callbacks, compare"),
    "an unknown option": (["solver=magic"], f"solver=magic is unknown; choose one of {', '.join(SOLVERS)}"),
    "the wrong kind": (["data.limit=many"], "data.limit='many' is of the wrong kind"),
    "a negative limit": (["data.limit=-3"], "a run needs at least one image, got -3; set data.limit"),
    "no limit": (["data.limit=0"], "a run needs at least one image, got 0; set data.limit"),
    "an unknown split": (["data.split=train"], "data.split='train' is of the wrong kind: input should be 'all', 'validation' or 'test'"),
    "an empty split": (["data.split=validation", "data.validation=0.001"], "data.split=validation holds none of 4 images"),
    "all for validation": (["data.validation=1.0"], "must be between 0 and 1, got 1.0; set data.validation"),
    "negative workers": (["data.workers=-1"], "data.workers=-1 is not between 0 and "),
    "no samples": (["num_samples=0"], "num_samples must be at least 1, got 0; set num_samples"),
    "no batch": (["batch_size=-1"], "batch_size must be at least 1, got -1; set batch_size"),
    "no devices": (["trainer.devices=0"], "trainer.devices must be at least 1, got 0; set trainer.devices"),
    "more devices than cores": (
        ["trainer=ddp", "trainer.accelerator=cpu", f"trainer.devices={CORES + 1}"],
        f"trainer.devices={CORES + 1}, but this machine has {CORES}",
    ),
    "an unknown objective": (["objective=speed"], "objective=speed is unknown; choose one of psnr, ssim, lpips"),
    "an untrained prior": (["prior=new"], "prior=new is an untrained network"),
    "images for a solver of none": (["solver=unconditional"], "this solver looks at no image; leave out data.root"),
    "freezing nothing": (["data.root=null", "solver=unconditional", "data.freeze=a"], "looks at no image; leave out data.root, .degraded"),
    "no such measurements": (
        ["data.root=null", "data.measurements=nowhere"],
        "no frozen measurements in nowhere",
    ),
    "images and measurements": (["data.measurements=nowhere"], "data.root and data.measurements are both given"),
    "freezing what is frozen": (["data.root=null", "data.measurements=a", "data.freeze=b"], "give one of them"),
    "freezing by two": ([*CPUS, "trainer.devices=2", "data.freeze=a"], "are frozen by one process"),
    "no folder to write to": (["output_dir=file/run"], "cannot write to"),
    "samples without truth": (["samples=images"], "samples= is given without truth="),
    "truth without samples": (["truth=images"], "truth= is given without samples="),
    "no such samples": (["samples=nowhere", "truth=images"], "no image at nowhere"),
    "samples of other names": (["samples=others", "truth=images"], "samples has other-0, other-1, …; truth has face-00"),
    "samples of another size": (
        ["samples=large", "truth=images"],
        "face-00.png is 32 x 32, but its truth images/face-00.png is 20",
    ),
    "samples that are none": (["samples=broken", "truth=broken"], "cannot use the image broken/text.png"),
    "one run": (["compare=[images]"], "compare=['images'] does not name two runs; give two folders"),
    "no runs": (["compare=images"], "compare=images does not name two runs"),
    "folders without records": (["compare=[images,empty]"], "images"),
}

ROWS = [Bad("evaluate.py", what, overrides, re.escape(says), bad_files) for what, (overrides, says) in BAD.items()]
