"""What the three scripts refuse of a configuration: values without their type, classes that are not those of their group, bounds."""

from __future__ import annotations

from bad_input import Bad

SCRIPTS = ("sample.py", "evaluate.py", "train.py")
HUGE = str(2**70)


def every(what: str, overrides: list[str], says: str, scripts: tuple[str, ...] = SCRIPTS) -> list[Bad]:
    return [Bad(script, what, overrides, says) for script in scripts]


FOLDERS = [
    row
    for given in ("7", "20240611", "true", "1.5", "[a]", "[]", "{a: 1}")
    for row in every(f"output_dir={given}", [f"output_dir={given}"], r"output_dir=.* names no folder; .* output_dir=\./")
]

KINDS = [
    *every("no output_dir", ["output_dir="], "output_dir='' is out of bounds: string should have at least 1 character"),
    *every("a folder that is no folder in a sweep", ["output_dir=7", "-m"], r"output_dir=7 names no folder"),
    *every("null for output_dir", ["output_dir=null"], "output_dir=null is of the wrong kind", ("sample.py", "train.py")),
    *every("output_dir taken out", ["~output_dir"], "output_dir is missing; leave out ~output_dir"),
    *every("a seed beyond 64 bits", [f"seed={2**64}"], f"seed={2**64} is out of bounds: input should be less than"),
    *every("a negative seed", ["seed=-1"], "seed=-1 is out of bounds: input should be greater than or equal to 0"),
    *every("a seed that is no whole number", ["seed=1.5"], "seed=1.5 is of the wrong kind: input should be a valid integer"),
    *every("a seed that is not set", ["seed=???"], "seed is not set; add seed=VALUE"),
    *every("a seed that is true", ["seed=true"], "seed=true is of the wrong kind"),
    *every("a batch beyond any memory", [f"batch_size={HUGE}"], f"batch_size={HUGE} is out of"),
    *every("a batch that is nothing", ["batch_size=null"], "batch_size=null is of the wrong kind"),
    *every("a value that is an unknown one's", ["seed=${nowhere}"], "seed: Interpolation key 'nowhere' not found"),
    *every(
        "values that are each other's", ["seed=${batch_size}", "batch_size=${seed}"], r"(seed|batch_size): Recursive interpolation detected"
    ),
    *every("a variable that is not set", ["seed=${oc.env:NOT_SET_HERE}"], "seed: .*'NOT_SET_HERE' not found"),
    *every("overwrite=maybe", ["overwrite=maybe"], "overwrite='maybe' is of the wrong kind: input should be a valid boolean"),
    *every("a size of fractions", ["prior.size=[16.0,16.0]"], r"prior\.size=\[16\.0, 16\.0\] is of the wrong kind"),
    *every("a size beyond any memory", ["prior.size=[100000000,100000000]"], "at most 16777216 pixels here, got 100000000 x 100000000"),
    *every("a size of one side", ["prior.size=[16]"], r"prior\.size=\[16\] is out of bounds"),
    *every("a text for a size", ["prior.size=big"], "prior.size='big' is of the wrong kind"),
    *every("channels beyond colour", [f"prior.channels={HUGE}"], r"prior\.channels=\d+ is out of bounds|1 or 3 channels"),
    *every("a trainer's number that is a text", ["trainer.devices=two"], "trainer.devices='two' is of the wrong kind"),
    *every(
        "a choice that is none",
        ["trainer.precision=7"],
        "trainer.precision=7 is of the wrong kind: input should be 32, 16, 'bf16' or 'auto'",
    ),
]

GROUPS = [
    *(Bad("sample.py", f"{group}=null", [f"{group}=null"], f"{group}=null names no option; choose one of ") for group in (
        "solver", "operator", "noise_model", "sampler", "grid", "fit", "metrics", "trainer", "prior",
    )),
    *(Bad("evaluate.py", f"{group}=null", [f"{group}=null"], f"{group}=null names no option; choose one of ") for group in (
        "data", "callbacks", "logger", "exact_problem", "row", "experiment",
    )),
    *(Bad("train.py", f"{group}=null", [f"{group}=null"], f"{group}=null names no option; choose one of ") for group in (
        "network", "schedule", "preconditioning", "weighting", "optimiser", "lr_schedule", "validation", "export",
    )),
    Bad("sample.py", "a group that is a number", ["solver=7"], "solver=7 names no option; choose one of adam_dps"),
    Bad("sample.py", "a group that is true", ["solver=true"], "solver=true names no option"),
    Bad("sample.py", "a group that is a list of numbers", ["solver=[1,2]"], "names no option"),
    Bad("sample.py", "two options of one group", ["solver=[dps,sdedit]"], "solver.zeta is unknown; SDEdit takes t_star"),
    Bad("sample.py", "a group taken out", ["~solver"], "solver is missing; leave out ~solver; choose one of adam_dps"),
    Bad("train.py", "a group taken out", ["~optimiser"], "optimiser is missing; leave out ~optimiser"),
    Bad("evaluate.py", "callbacks that are numbers", ["callbacks=[1]"], r"callbacks=\[1\] names no option"),
    Bad("evaluate.py", "a callback that is a number", ["+callbacks.x=3"], r"callbacks\.x=3 is no .*Callback"),
    Bad("evaluate.py", "a callback that is a list", ["+callbacks.x=[a]"], r"callbacks\.x=\[\"a\"\] is no .*Callback"),
    Bad("evaluate.py", "a callback without a class", ["+callbacks.x={a: 1}"], r"callbacks\.x=.* is no .*Callback"),
    Bad("evaluate.py", "a callback of another class", ["+callbacks.x._target_=decimal.Decimal"], r"callbacks\.x\._target_=.*"),
    Bad("evaluate.py", "a table that is none", ["table={_target_: pathlib.Path}"], "table._target_=pathlib.Path is no .*PaperTable"),
    Bad("evaluate.py", "a table that runs a command", ["table={_target_: os.system, command: touch x}"], "os.system is no class"),
]  # fmt: skip

CLASSES = [
    Bad("sample.py", "a module for a class", ["solver._target_=os"], "solver._target_=os is no class but a module; choose one of adam_dps"),
    Bad("sample.py", "a command for a class", ["solver._target_=os.system"], "solver._target_=os.system is no class but a builtin"),
    Bad("sample.py", "a constant for a class", ["solver._target_=math.pi"], "solver._target_=math.pi is no class but a float"),
    Bad("sample.py", "a function for a class", ["solver._target_=json.dumps"], "solver.obj is not set"),
    Bad("sample.py", "another class", ["solver._target_=pathlib.Path"], r"solver._target_=pathlib.Path is no .*solvers\.base\.Solver"),
    Bad("sample.py", "a type of Python", ["solver._target_=builtins.int"], "solver._target_=builtins.int does not say what it takes"),
    Bad(
        "sample.py",
        "an operator for a solver",
        ["solver._target_=diffusion_priors.operators.identity.Identity"],
        "Identity is no .*Solver; choose one of adam_dps",
    ),
    Bad("sample.py", "a class that is not there", ["solver._target_=no.such.Class"], "solver._target_=no.such.Class cannot be imported"),
    Bad("sample.py", "a class that is a number", ["solver._target_=7"], "solver._target_=7 "),
    Bad("sample.py", "a class that is a list", ["solver._target_=[a]"], "solver._target_"),
    Bad("sample.py", "no class", ["solver._target_="], "solver._target_= "),
    Bad("sample.py", "a null class", ["solver._target_=null"], "solver._target_=None "),
    Bad("sample.py", "a class with a control character", ['solver._target_="a\x1b[31mb"'], r"solver\._target_="),
    Bad("sample.py", "a class that is not set", ["solver._target_=???"], "solver._target_ is not set; set it to a class"),
    Bad("sample.py", "Hydra's own keys", ["+solver._partial_=true"], "solver._partial_ is unknown; DPS takes zeta"),
    Bad("sample.py", "arguments without a name", ["+solver._args_=[1]"], "solver._args_ is unknown; DPS takes zeta"),
    Bad("sample.py", "a network that is null", ["prior.network=null"], r"prior\.network=null is no torch.*Module"),
    Bad("sample.py", "a network that is a number", ["prior.network=3"], r"prior\.network=3 is no torch.*Module"),
    Bad("sample.py", "a network of another class", ["prior.network._target_=decimal.Decimal"], r"prior\.network\._target_=.*Decimal"),
    Bad(
        "sample.py",
        "an argument of a network that takes none",
        ["prior.network._target_=broken_networks.WrongChannels", "+prior.network.x=1"],
        r"prior\.network\.x is unknown; WrongChannels takes no argument",
    ),
    Bad("sample.py", "LPIPS that is a number", ["metrics.lpips=3"], r"metrics\.lpips=3 is no .*LPIPS"),
]

NUMBERS = [
    Bad("sample.py", "a list of no images", ["input=[]"], r"input=\[\] is out of bounds: list should have at least 1 item"),
    Bad("evaluate.py", "a list of no images", ["data.root=[]"], r"data\.root=\[\] is out of bounds"),
    Bad("evaluate.py", "a list of numbers for images", ["data.root=[3]"], r"data\.root=\[3\] is of the wrong kind"),
    Bad("sample.py", "a trillion samples", [f"num_samples={10**12}"], f"num_samples={10**12} is out of bounds: input should be less"),
    Bad("evaluate.py", "a trillion samples", [f"num_samples={10**12}"], f"num_samples={10**12} is out of bounds: input should be less"),
    Bad("evaluate.py", "a thousand workers", ["data.workers=1000"], r"data\.workers=1000 is not between 0 and \d+, for a machine with"),
    Bad("train.py", "a thousand workers", ["data.workers=1000"], r"data\.workers=1000 is not between 0 and \d+, for a machine with"),
    Bad("evaluate.py", "a file for frozen measurements", ["data.freeze=face.png"], "data.freeze=face.png is no folder and"),
    Bad("evaluate.py", "frozen measurements within a file", ["data.freeze=face.png/a"], "data.freeze=face.png/a is no folder"),
    Bad("sample.py", "steps beyond any schedule", [f"grid.steps={10**12}"], "a sampling grid has 1 to 100000 steps"),
    Bad("sample.py", "a schedule of a billion steps", [f"prior.schedule.steps={10**9}"], "a schedule has 1 to 100000 steps"),
    Bad("train.py", "a schedule of a billion steps", [f"schedule.steps={10**9}"], "a schedule has 1 to 100000 steps"),
    Bad("sample.py", "photons beyond counting", ["noise_model=poisson", "noise_model.peak=1e20"], "at most 1e\\+12, got peak=1e\\+20"),
    Bad("sample.py", "no angle", ["operator=tomography", "operator.angles=0"], "at least one angle, got 0; set operator.angles"),
    Bad("sample.py", "a JPEG beyond quality", ["operator=jpeg", "operator.quality=100"], "between 1 and 95, got 100; set operator.qual"),
    Bad("sample.py", "one level", ["operator=quantisation", "operator.levels=1"], "2 to 65536 levels, got 1; set operator.levels"),
    Bad("sample.py", "a gain that clips nothing", ["operator=hdr", "operator.gain=1"], "got 1; set operator.gain"),
    Bad(
        "sample.py",
        "a range of pixels upside down",
        ["operator=phase_retrieval", "operator.pixel_range=[1,0]"],
        r"got \[1, 0\]; set operator.pixel_range",
    ),
    Bad("sample.py", "no coil", ["operator=mri_multicoil", "operator.maps.coils=0"], "at least one coil, got 0; set operator.maps.coils"),
    Bad(
        "sample.py",
        "a mask of k-space that is an image",
        ["operator=mri", "kspace_mask@operator.mask=file", "operator.mask.path=face.png"],
        "cannot read the mask face.png: its name ends neither in .npy nor in",
    ),
    Bad("sample.py", "all values lost", ["noise_model=salt_and_pepper", "noise_model.probability=1.5"], "got 1.5; set noise_model.prob"),
    Bad(
        "sample.py",
        "a density without gradient",
        ["noise_model=uniform", "solver=daps", "inner@solver.inner=langevin"],
        "DAPS needs noise with a density and its gradient, .* Uniform noise does not give it",
    ),
    Bad("sample.py", "a number that is not one", ["solver.zeta=nan"], "solver.zeta=NaN is out of bounds: input should be a finite number"),
    Bad("sample.py", "an infinite number", ["solver.zeta=inf"], "solver.zeta=Infinity is out of bounds"),
    Bad("sample.py", "a number beyond single precision", ["solver.zeta=1e300"], r"solver\.zeta=1e\+300 is out of bounds: numbers must lie"),
    Bad(
        "sample.py",
        "a number beyond any format",
        ["solver.zeta=" + "9" * 401],
        r"solver\.zeta=\d+… \(\d+ more char",
    ),
    Bad(
        "sample.py",
        "a value below null",
        ["metrics.lpips=null", "metrics.lpips.net=vgg"],
        "net cannot be set, because metrics",
    ),
    Bad("sample.py", "threads beyond any machine", ["trainer.threads=1000000"], "trainer.threads must be at most 1024, got 1000000"),
    Bad("sample.py", "a grid without curve", ["grid=karras", "grid.rho=1e-20"], "Karras' grid needs a positive rho, from 0.1 to 1000"),
    Bad("sample.py", "a grid upside down", ["grid=karras", "grid.smallest=5", "grid.largest=1"], "the grid's ends are in the wrong order"),
    Bad(
        "sample.py",
        "a cosine without offset",
        ["schedule@prior.schedule=cosine", "prior.schedule.s=-1"],
        "a cosine schedule needs 0 <= s",
    ),
    Bad("sample.py", "a measurement beyond memory", ["operator=phase_retrieval", "operator.oversampling=1e9"], "more memory than there is"),
    Bad("sample.py", "a range of one end", ["prior.pixel_range=[0]"], r"prior\.pixel_range=\[0\] is out of bounds: it has too few items"),
    Bad(
        "sample.py",
        "a mixture of a billion",
        ["prior=gmm", "prior.means.components=1000000000", "grid.steps=2", "output_dir=out"],
        "a mixture has 1 to 10000 components, got 1000000000",
        alone=True,
    ),
    *(
        Bad(
            "evaluate.py", f"an exact problem of a trillion {key}", ["exact_problem=box", f"exact_problem.{key}={10**12}"], says, alone=True
        )
        for key, says in {name: rf"exact_problem\.{name} must be \d+ to 1000000" for name in ("samples", "posteriors", "axes")}.items()
    ),
    Bad(
        "evaluate.py",
        "an exact problem in tiles",
        ["exact_problem=box", "tile=overlapping"],
        "leave out tile=, or exact_problem=",
        alone=True,
    ),
    Bad("evaluate.py", "an exact problem and an unknown key", ["exact_problem=box", "+foo=1"], "foo is unknown; known here", alone=True),
    Bad(
        "evaluate.py",
        "an exact problem without a solver",
        ["exact_problem=box", "~solver"],
        "solver is missing; leave out ~sol",
        alone=True,
    ),
    Bad("train.py", "a weight decay that is no number", ["optimiser.weight_decay=nan"], "optimiser.weight_decay=NaN is out of bounds"),
    Bad("train.py", "a negative weight decay", ["optimiser.weight_decay=-1"], "the weight decay must not be negative, got -1"),
    Bad("train.py", "a learning rate beyond single precision", ["optimiser.lr=1e300"], "optimiser.lr=1e\\+300 is out of bounds"),
    Bad("train.py", "a variance weight that is no number", ["variance_weight=nan"], "variance_weight=NaN is out of bounds"),
    Bad("train.py", "an infinite clip", ["clip=inf"], "clip=Infinity is out of bounds"),
    Bad("train.py", "steps beyond counting", [f"steps={HUGE}"], f"steps={HUGE} is out of bounds"),
    Bad("train.py", "a network of a billion channels", [f"network.num_channels={10**9}"], "num_channels must be between 1 and 4096"),
    Bad("train.py", "a network of a billion blocks", [f"network.num_res_blocks={10**9}"], "num_res_blocks must be between 1 and 64"),
    Bad("train.py", "a network without levels", ["network.channel_mult=[]"], "channel_mult=\\[\\] must be 1 to 16 levels"),
    Bad(
        "train.py", "a network whose levels grow", ["network.channel_mult=[1,1e9]"], "channel_mult=.* must be 1 to 16 levels of 1 to 16384"
    ),
    Bad("train.py", "a trillion samples to look at", [f"validation.samples={10**12}"], r"validation\.samples must be 0 to 1000"),
    Bad("train.py", "one momentum", ["optimiser.betas=[0.9]"], r"optimiser\.betas=\[0\.9\] is out of bounds"),
    Bad("train.py", "workers that are a list", ["data.workers=[1]"], r"data\.workers=\[1\] is of the wrong kind"),
]

COMMANDS = [
    *every("an option that is none", ["--nonsense"], "--nonsense is not understood; write all overrides in one piece"),
    *every("overrides in two pieces", ["-m", "seed=1"], "is not understood; write all overrides in one piece", ("train.py",)),
    *every("a word", ["nonsense"], "nonsense is no override: missing EQUAL"),
    *every("an open bracket", ["seed=[1"], r"seed=\[1 is no override"),
    *every("no key", ["=3"], "=3 is no override; write group=option or key=value"),
    *every("a control character", ["seed=\x1b[2J"], r"seed=\\x1b\[2J is no override"),
    *every("a configuration that is nowhere", ["-cn", "nowhere"], "Cannot find primary config 'nowhere'"),
    *every("a folder of options that is nowhere", ["-cd", "nowhere"], "Additional config directory '.*nowhere' not found"),
    *every("a launcher that is a number", ["hydra/launcher=7"], "hydra/launcher=7 is no override"),
    *every("a choice of Hydra that is none", ["--cfg", "nonsense"], "invalid choice: 'nonsense'"),
    Bad(
        "sample.py",
        "a group of other scripts",
        ["logger=csv"],
        "^error: sample.py has no group logger; it is one of evaluate.py and train.py;",
    ),
    Bad(
        "sample.py",
        "a group of other scripts, added",
        ["+logger=csv"],
        "sample.py has no group logger; it is one of evaluate.py and train.py",
    ),
    Bad("sample.py", "a group of other scripts, taken out", ["~logger"], "sample.py has no group logger"),
    Bad("sample.py", "a key of other scripts", ["data.root=images"], "sample.py has no group data; it is one of evaluate.py and train.py"),
    Bad(
        "sample.py",
        "a group inside others",
        ["schedule=cosine"],
        "use schedule@prior.schedule=OPTION with prior=custom or prior=ddpm or prior=empirical",
    ),
    Bad("sample.py", "a group inside others that is a number", ["schedule@prior.schedule=3"], "as in schedule@prior.schedule=betas"),
    Bad("sample.py", "an experiment of evaluate.py", ["experiment=tune_dps"], "experiment=tune_dps is for evaluate.py, not for sample.py"),
    Bad("train.py", "a solver", ["solver=dps"], "use solver@validation.solver=OPTION with validation=default"),
    Bad("train.py", "images to restore", ["data=images"], "data=images is for evaluate.py, not for train.py"),
    Bad("evaluate.py", "images to train on", ["data=folder"], "data=folder is for train.py, not for evaluate.py"),
    Bad("evaluate.py", "an experiment of train.py", ["experiment=train_faces64"], "experiment=train_faces64 is for train.py"),
]

ROWS = [*COMMANDS, *FOLDERS, *KINDS, *GROUPS, *CLASSES, *NUMBERS]
