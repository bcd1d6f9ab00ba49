"""What is refused of operators: settings without meaning, sizes that do not suit, functions that are no forward model."""

from __future__ import annotations

from bad_input import Bad

CUSTOM = ["operator=custom", "operator.function._target_=own_operators.exposed"]
LINEAR = ["operator=custom_linear", "operator.function._target_=own_operators.exposed"]
PHYSICS = ["operator=deepinv", "operator.physics._target_=own_operators.Ghosted"]

BAD = {
    "a known middle of the whole image": (["operator=outpaint", "operator.size=[16,16]"], "known box of 16 x 16 leaves nothing missing"),
    "a half in the middle": (["operator=half", "operator.missing=middle"], "operator.missing='middle' is of the wrong kind"),
    "a stride of one": (["operator=every_other_pixel", "operator.stride=[1,1]"], r"got \[1, 1\]; set operator.stride"),
    "three strides": (["operator=every_other_pixel", "operator.stride=[2,2,2]"], r"operator.stride=\[2, 2, 2\] is out of bounds"),
    "strokes over everything": (["operator=strokes", "operator.missing=1.0"], r"between 0 and 1 .* got 1.0; set operator.missing"),
    "no line dead": (["operator=dead_lines", "operator.rows=0.0", "operator.columns=0.01"], "leave no line missing of a 16 x 16 image"),
    "two weights of three channels": (
        ["operator=colorization", "operator.weights=[1.0,1.0]"],
        "2 weights are given for images of 3 channels",
    ),
    "a negative weight": (["operator=colorization", "operator.weights=[1.0,-1.0,1.0]"], r"got \[1.0, -1.0, 1.0\]; set operator.weights"),
    "no lobe": (["operator=super_resolution_lanczos", "operator.lobes=0"], "at least one lobe, got lobes=0; set operator.lobes"),
    "a narrow Gaussian": (["operator=super_resolution_gaussian", "operator.std=0.01"], "std=0.01 pixels of y is too narrow"),
    "a blur of no width": (["operator=deblur_anisotropic", "operator.stds=[2.0,0.0]"], r"got \[2.0, 0.0\]; set operator.stds"),
    "a varying blur of no width": (["operator=deblur_varying", "operator.stds=[0.0,2.0]"], r"got \[0.0, 2.0\]; set operator.stds"),
    "a side that is no power of two": (["operator=walsh_hadamard", "prior.size=[16,24]"], "a side of 24 pixels is no power of two"),
    "more rows than there are": (["operator=walsh_hadamard", "operator.keep=1.5"], "got 1.5; set operator.keep"),
    "less than all frequencies": (["operator=fourier_random", "operator.mask.acceleration=0.5"], "at least 1, got 0.5; set operator.mask"),
    "an operator after k-space": (
        ["operator=compose", "operator@operator.operators.first=mri", "operator@operator.operators.second=inpaint_box"],
        "InpaintBox would follow an operator whose y is complex; put that one last",
    ),
    "a solver among operators": (
        ["operator=compose", "operator.operators.first._target_=diffusion_priors.solvers.dps.DPS"],
        "operator.operators.first._target_=diffusion_priors.solvers.dps.DPS is no diffusion_priors.operators.base.Operator",
    ),
    "a composition for a spectral solver": (["operator=compose", "solver=ddrm"], "DDRM needs an operator with a known singular value"),
    "no function": (["operator=custom"], "operator.function._target_ is not set; add operator.function._target_=VALUE"),
    "a function that is not there": (["operator=custom", "operator.function._target_=own_operators.nothing"], "cannot be imported"),
    "an unknown setting of a function": ([*CUSTOM, "+operator.function.gian=2.0"], "gian is unknown; exposed takes x0, gain"),
    "a function that is not linear": (LINEAR, "exposed is not linear: .* use operator=custom"),
    "a solver for linear operators": ([*CUSTOM, "solver=ddnm"], "DDNM needs a linear operator"),
    "an adjoint that is none": (
        [*PHYSICS, "+operator.physics.exact=false"],
        "the adjoint of Ghosted is wrong: .* operator.own_adjoint",
    ),
    "a range of a linear physics": ([*PHYSICS, "operator.pixel_range=[0.0,1.0]"], "Ghosted is linear, .* drop operator.pixel_range"),
}
ROWS = [Bad("sample.py", what, overrides, says=says) for what, (overrides, says) in BAD.items()]
