"""What is refused of solvers, schedules, grids, metrics and of the number of images at once."""

from __future__ import annotations

from bad_input import Bad

TINY = ["prior=custom", "prior.network._target_=tiny_evaluation.Convolution", "prior.checkpoint=null", "prior.size=[16,16]"]
LINEAR = [*TINY, "prior.schedule.steps=4000"]

BAD = {
    "a film without images": (["trajectory=0"], "trajectory=0 is out of bounds"),
    "a film of words": (["trajectory=all"], "trajectory='all' is of the wrong kind"),
    "a group of no images": (["images_per_call=0"], "images_per_call must be at least 1, got 0; set images_per_call"),
    "a negative group": (["images_per_call=-2"], "images_per_call must be at least 1, got -2"),
    "half an image in a group": (["images_per_call=1.5"], "images_per_call=1.5 is of the wrong kind"),
    "a group of words": (["images_per_call=all"], "images_per_call='all' is of the wrong kind"),
    "a huge group": (["images_per_call=1000000"], "images_per_call=1000000 is out of bounds"),
    "a true group": (["images_per_call=true"], "images_per_call=true is of the wrong kind"),
    "a negative zeta": (["solver.zeta=-0.5"], r"the step size must be finite and not negative, got zeta=-0.5; set solver.zeta"),
    "a zeta of nothing": (["solver.zeta=null"], "solver.zeta=null is of the wrong kind"),
    "a list of zetas": (["solver.zeta=[0.1,0.2]"], r"solver.zeta=\[0.1, 0.2\] is of the wrong kind"),
    "a number for a switch of DPS": (["solver.per_level=2"], "solver.per_level=2 is of the wrong kind"),
    "a word for a switch of DPS": (["solver.limit=sometimes"], "solver.limit='sometimes' is of the wrong kind"),
    "a switch of DPS for another solver": (
        ["solver=dps_score", "+solver.per_level=false"],
        "solver.per_level is unknown; DPSScore takes zeta",
    ),
    "a negative zeta of dps_score": (["solver=dps_score", "solver.zeta=-1"], "got zeta=-1; set solver.zeta"),
    "few steps of a linear schedule": (
        [*TINY, "prior.schedule.steps=10"],
        "got 0.01 to 2 for 10 steps; set schedule.beta_start and schedule.beta_end",
    ),
    "no steps of a schedule": ([*TINY, "prior.schedule.steps=0"], "a schedule has 1 to 100000 steps, got steps=0"),
    "a beta of one": ([*TINY, "prior.schedule.beta_end=1.0"], r"between 0 and 1 \(exclusive\), got 0.0001 to 1 for 1000 steps"),
    "a negative beta": ([*TINY, "prior.schedule.beta_start=-0.1"], r"between 0 and 1 \(exclusive\), got -0.1 to 0.02"),
    "a beta that is no number": ([*TINY, "prior.schedule.beta_end=large"], "prior.schedule.beta_end='large' is of the wrong kind"),
    "rescaled timesteps without steps": (
        [*TINY, "schedule@prior.schedule=flow", "prior.rescale_timesteps=true"],
        "this one is continuous; set prior.rescale_timesteps=false",
    ),
    "a number for rescaled timesteps": ([*TINY, "prior.rescale_timesteps=1000"], "prior.rescale_timesteps=1000 is of the wrong kind"),
    "more steps than levels": ([*LINEAR, "grid.steps=4001"], "steps=4001 is more than the 4000 levels .* set grid.steps=4000"),
    "half a step": (["grid.steps=2.5"], "grid.steps=2.5 is of the wrong kind"),
    "a negative exponent of a grid": (["grid=karras", "grid.rho=-7"], "set grid.rho"),
    "an unknown boundary": (
        ["operator=super_resolution_bicubic", "operator.boundary=mirror"],
        "operator.boundary='mirror' is of the wrong kind: input should be 'circular', 'reflect', 'symmetric' or 'zero'",
    ),
    "a boundary that blurs do not have": (
        ["operator=deblur_gaussian", "operator.boundary=symmetric"],
        "operator.boundary='symmetric' is of the wrong kind: input should be 'circular', 'reflect' or 'zero'",
    ),
    "a factor that does not divide": (
        ["operator=super_resolution_bicubic", "operator.factor=3"],
        "a side of 16 pixels is no multiple of the factor 3",
    ),
    "a factor of one": (["operator=super_resolution", "operator.factor=1"], "a factor of at least 2, got 1"),
    "an unstable Langevin step": (["solver=score_ald_langevin", "solver.step_size=2.0"], "diverges outside 0 < step_size < 2, got 2.0"),
    "no Langevin step": (["solver=score_ald_langevin", "solver.inner=0"], "at least one Langevin step, got inner=0"),
    "an eta beyond one": (["solver=ddrm", "solver.eta_b=1.5"], "eta_b must lie in .0, 1., got 1.5; set solver.eta_b"),
    "an objective of no metric": (["objective=lpips_vgg"], "objective=lpips_vgg is unknown; choose one of psnr, ssim, lpips"),
    "an unknown trunk": (["metrics.lpips.net=resnet", "metrics.lpips.trunk=x.pth"], "metrics.lpips"),
}
ROWS = [Bad("sample.py", what, overrides, says=says) for what, (overrides, says) in BAD.items()]
ROWS += [
    Bad("train.py", "few steps of a linear schedule", ["schedule.steps=10"], "got 0.01 to 2 for 10 steps"),
    Bad("train.py", "a word for a beta", ["schedule.beta_end=big"], "schedule.beta_end='big' is of the wrong kind"),
    Bad(
        "train.py", "rescaled timesteps without steps", ["schedule=ve", "prior.rescale_timesteps=true"], "set prior.rescale_timesteps=false"
    ),
    Bad("evaluate.py", "a group of no images", ["images_per_call=0"], "images_per_call must be at least 1, got 0"),
    Bad(
        "evaluate.py",
        "another group in a finished run",
        ["data.root=images", "num_samples=2", "output_dir=run", "images_per_call=1"],
        "images_per_call was None, is 1",
        run=True,
    ),
    Bad(
        "evaluate.py",
        "another rule of DPS in a finished run",
        ["num_samples=2", "output_dir=run", "solver.limit=false"],
        "solver.limit was True, is False",
        run=True,
    ),
]
