"""What sample.py refuses: images, masks, kernels, checkpoints, values."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from bad_input import Bad
from forks import ROOT
from PIL import Image


class Trap:
    """Unpickling this writes a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return exec, (f"open({self.path!r}, 'w').write('x')",)


def bad_files(folder: Path) -> None:
    (folder / "text.png").write_text("no image")
    (folder / "cut.png").write_bytes((folder / "face.png").read_bytes()[:2000])
    (folder / "empty").mkdir()
    Image.new("L", (16, 16), 255).save(folder / "white.png")
    Image.new("L", (16, 16), 0).save(folder / "black.png")
    half = Image.new("L", (16, 16), 0)
    half.paste(255, (0, 0, 8, 16))
    half.save(folder / "half.png")
    half.resize((20, 20)).save(folder / "other.png")
    np.save(folder / "large.npy", np.ones((17, 17)))
    np.save(folder / "nan.npy", np.array([[1.0, np.nan]]))
    np.save(folder / "zero.npy", np.array([[1.0, -1.0]]))
    np.save(folder / "wrong.npy", np.ones((3, 16, 17), np.complex64))
    np.savez(folder / "several.npz", kspace=np.ones((3, 16, 16), np.complex64), mask=np.ones(16))
    weights = {"gain": torch.ones(())}
    torch.save(weights, folder / "good.pt")
    (folder / "cut.pt").write_bytes((folder / "good.pt").read_bytes()[:300])
    torch.save([1, 2], folder / "list.pt")
    torch.save({"gain": torch.ones(3)}, folder / "shapes.pt")
    torch.save({"gain": torch.ones(()), "trap": Trap(str(folder / "sprung"))}, folder / "code.pt")


BASE = [
    *("prior=custom", "prior.network._target_=broken_networks.Shrink", "prior.checkpoint.path=good.pt", "prior.size=[16,16]"),
    *("grid.steps=4", "input=face.png", "output_dir=out"),
]
GIVEN = ["input=null", "operator=mri"]
SOLVERS = sorted(path.stem for path in (ROOT / "conf" / "solver").glob("*.yaml"))
BAD = {
    "untrained prior": (["prior=new"], "prior=new is an untrained network"),
    "a set's metric": (["metrics=calibration"], "calibration of num_samples=1 is not meaningful, at least 4 samples per image are needed"),
    "a set's metric without clean images": (
        ["input=null", "measurement=face.png", "operator=identity", "metrics=calibration", "num_samples=4"],
        "compare with clean images, and there are none",
    ),
    "several devices": (["trainer=cpu", "trainer.devices=2"], "sample.py uses one device, got trainer.devices=2"),
    "recomputation by a network that cannot": (
        ["trainer.checkpointing=true"],
        "network (Shrink) has no method enable_gradient_checkpointing; set trainer.checkpointing=false",
    ),
    "an image for a solver without one": (["solver=unconditional"], "this solver looks at no image; leave out input= and measurement="),
    "tiles of no image": (
        ["tile=overlapping", "input=null", "solver=unconditional"],
        "tiles must cover an image of some size; set tile.image_size=",
    ),
    "an image smaller than a tile": (
        ["tile=overlapping", "tile.image_size=[8,40]"],
        "an image of 8 x 40 is smaller than a tile, which has the prior's 16 x 16",
    ),
    "tiles that share all": (["tile=overlapping", "tile.overlap=16"], "can share 0 to 15 pixels, got 16; set tile.overlap"),
    "tiles larger than any memory": (
        ["tile=overlapping", "tile.image_size=[100000,100000]"],
        "at most 16777216 pixels here, got 100000 x 100000; set tile.image_size",
    ),
    "an unknown objective": (["objective=speed"], "objective=speed is unknown; choose one of psnr, ssim, lpips"),
    "missing image": (["input=nowhere.png"], "no image at nowhere.png"),
    "unreadable image": (["input=text.png"], "cannot use the image text.png"),
    "truncated image": (["input=[face.png,cut.png]"], "cannot use the image cut.png"),
    "empty folder": (["input=empty"], "no images in the folder empty"),
    "image twice": (["input=[face.png,face.png]"], "is given twice"),
    "exact size": (["fit=exact"], "it is 64 x 64, wanted is 16 x 16"),
    "mask of another size": (["operator=inpaint_mask", "operator.path=other.png"], "is 20 x 20, the image face.png is 64 x 64"),
    "nothing missing": (["operator=inpaint_mask", "operator.path=white.png"], "nothing missing"),
    "nothing known": (["operator=inpaint_mask", "operator.path=black.png"], "nothing known"),
    "no mask": (["operator=inpaint_mask"], "operator.path is not set"),
    "large kernel": (["operator=deblur_kernel", "operator.path=large.npy"], "is 17 x 17, the image face.png is 64 x 64"),
    "nan kernel": (["operator=deblur_kernel", "operator.path=nan.npy"], "1 entries that are not finite"),
    "zero kernel": (["operator=deblur_kernel", "operator.path=zero.npy"], "sums to zero"),
    "unknown solver": (["solver=magic"], f"solver=magic is unknown; choose one of {', '.join(SOLVERS)}"),
    "unknown operator": (["operator=magic"], "operator=magic is unknown; choose one of blur_nonlinear"),
    "unknown key": (["solver.zta=1"], "solver.zta is unknown; known here: _target_, zeta"),
    "unknown new key": (["+seeds=1"], "seeds is unknown"),
    "wrong kind": (["solver.zeta=large"], "solver.zeta='large' is of the wrong kind"),
    "t_star": (["solver=sdedit", "solver.t_star=1001"], "solver.t_star=1001 lies outside"),
    "zero steps": (["grid.steps=0"], "got steps=0"),
    "negative steps": (["grid.steps=-5"], "got steps=-5"),
    "negative sigma": (["noise_model.sigma=-0.1"], "got sigma=-0.1"),
    "both inputs": (["measurement=face.png"], "give one of them"),
    "random operator": (["input=null", "measurement=face.png", "operator=inpaint_random"], "draws its mask or kernel at random"),
    "truncated checkpoint": (["prior.checkpoint.path=cut.pt"], "cut.pt is damaged or no checkpoint"),
    "no state dict": (["prior.checkpoint.path=list.pt"], "list.pt is not a state dict"),
    "other shapes": (["prior.checkpoint.path=shapes.pt"], "gain should be () and is (3,)"),
    "pickled code": (["prior.checkpoint.path=code.pt"], "holds pickled code besides tensors and was refused"),
    "missing checkpoint": (["prior.checkpoint.path=none.pt"], "no checkpoint at none.pt"),
    "wrong channels": (["prior.network._target_=broken_networks.WrongChannels", "prior.checkpoint=null"], "gave (1, 5, 16, 16)"),
    "no such class": (["prior.network._target_=broken_networks.Nobody"], "broken_networks.Nobody cannot be imported"),
    "learned variance": (["sampler=ddpm_learned"], "needs a prior with learned variance"),
    "an operator without a spectrum": (["solver=ddrm", "operator=deblur_motion"], "DDRM needs an operator with a known singular value"),
    "a sampler that is not used": (["solver=ddrm", "sampler=ddim"], "DDRM moves by itself and uses no sampler; leave out sampler=ddim"),
    "a file for a measurement that is no image": (
        ["input=null", "measurement=face.png", "operator=identity", "operator._target_=own_operators.PhaseRetrieval"],
        "the measurement of PhaseRetrieval is no image, so the image file face.png cannot hold it; give an .npy, .npz or",
    ),
    "a measurement of another shape": ([*GIVEN, "measurement=wrong.npy"], "wrong.npy is (3, 16, 17) complex64, and the operator gives"),
    "a real k-space": ([*GIVEN, "measurement=large.npy"], "large.npy is (17, 17) float64, and the operator gives (3, 16, 16) or"),
    "a measurement with NaN": ([*GIVEN, "measurement=nan.npy"], "the measurement nan.npy has 1 entries that are not finite"),
    "several arrays": ([*GIVEN, "measurement=several.npz"], "it holds 2 arrays (kspace, mask), and none is called y; set measurement"),
    "a folder of images for k-space": ([*GIVEN, "measurement=empty"], "no images in the folder empty; it should hold files like .npy, "),
    "ffhq is not here": (["prior=ffhq256"], "no checkpoint ffhq_10m.pt in"),
    "no samples": (["num_samples=0"], "num_samples must be at least 1, got 0"),
    "unwritable": (["output_dir=face.png/out"], "cannot write to"),
}

ROWS = [
    Bad("sample.py", what, [*(BASE[4:] if "prior=" in str(overrides) else BASE), *overrides], re.escape(says), bad_files, alone=True)
    for what, (overrides, says) in BAD.items()
]
