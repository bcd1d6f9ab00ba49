"""The parameters of a sweep and their texts."""

from __future__ import annotations

import pytest
from sweep_folder import base_choices, base_config, node, records_of, write_job
from swept_jobs import csv_rows, dps, ranked, sdedit

from diffusion_priors.evaluation.sweeps.jobs import read_jobs
from diffusion_priors.evaluation.sweeps.leaderboard import csv_text
from diffusion_priors.evaluation.sweeps.parameters import swept_parameters


def columns(root) -> dict[str, list[str]]:
    """Parameter → its text in each job; the jobs are sorted by folder."""
    jobs = read_jobs(root)
    return {p.name: [p.text(job) for job in jobs] for p in swept_parameters(jobs)}


def test_a_solver_is_named_by_its_option_and_a_parameter_of_one_solver_is_empty_for_others(tmp_path):
    dps(tmp_path / "a", 0.3)
    dps(tmp_path / "b", 1.0)
    sdedit(tmp_path / "c", 250)
    assert columns(tmp_path) == {"solver": ["dps", "dps", "sdedit"], "zeta": ["0.3", "1", ""]}


def test_arguments_that_follow_from_the_option_are_not_columns(tmp_path):
    gaussian = node("diffusion_priors.operators.blur.DeblurGaussian", size=9, std=1.5)
    motion = node("diffusion_priors.operators.blur.DeblurMotion", size=15, intensity=0.5)
    for name, operator, option in (("a", gaussian, "deblur_gaussian"), ("b", motion, "deblur_motion")):
        write_job(tmp_path / name, config=base_config(operator=operator), choices=base_choices(operator=option))
    assert columns(tmp_path) == {"operator": ["deblur_gaussian", "deblur_motion"]}
    write_job(tmp_path / "c", config=base_config(operator=motion | {"size": 31}), choices=base_choices(operator="deblur_motion"))
    assert columns(tmp_path) == {"operator": ["deblur_gaussian", "deblur_motion", "deblur_motion"], "size": ["9", "15", "31"]}


def test_a_nested_group_is_a_column_if_it_varies_within_one_option_of_the_outer_group(tmp_path):
    def job(name, annealing, option, **arguments):
        solver = node("diffusion_priors.solvers.score_ald.ScoreALD", annealing=node(annealing, **arguments))
        choices = base_choices(solver="score_ald") | {"annealing@solver.annealing": option}
        write_job(tmp_path / name, config=base_config(solver=solver), choices=choices)

    dps(tmp_path / "a", 1.0)
    job("b", "diffusion_priors.solvers.annealing.Likelihood", "likelihood")
    assert columns(tmp_path) == {"solver": ["dps", "score_ald"]}
    job("c", "diffusion_priors.solvers.annealing.Power", "power", exponent=1.0)
    assert columns(tmp_path) == {"solver": ["dps", "score_ald", "score_ald"], "annealing": ["", "likelihood", "power"]}
    job("d", "diffusion_priors.solvers.annealing.Power", "power", exponent=2.0)
    assert columns(tmp_path)["exponent"] == ["", "", "1", "2"]


def test_options_of_one_class_are_named_by_option_and_classes_of_one_option_by_class(tmp_path):
    for name, option, size in (("a", "small", 64), ("b", "large", 256)):
        config, choices = base_config(prior=node("p.Prior", size=size)), base_choices(prior=option)
        write_job(tmp_path / "one" / name, config=config, choices=choices)
    assert columns(tmp_path / "one") == {"prior": ["small", "large"]}
    for name, target in (("a", "p.First"), ("b", "p.Second")):
        write_job(tmp_path / "two" / name, config=base_config(prior=node(target)), choices=base_choices(prior="custom"))
    assert columns(tmp_path / "two") == {"prior": ["First", "Second"]}


def test_a_component_that_is_left_out_is_null(tmp_path):
    for name, lpips in (("a", None), ("b", node("diffusion_priors.evaluation.metrics.lpips.LPIPS", net="alex", trunk=None))):
        write_job(tmp_path / name, config=base_config(metrics={"lpips": lpips}))
    assert columns(tmp_path) == {"lpips": ["null", "LPIPS"]}


@pytest.mark.parametrize(("precision", "found"), [(("32", "32"), {}), (("32", "bf16"), {"precision": ["32", "bf16"]})])
def test_where_a_job_ran_is_not_a_parameter_but_its_precision_is(tmp_path, precision, found):
    for i, name in enumerate("ab"):
        machine = node("t.T", accelerator=name, devices=i, num_nodes=i, strategy=name, threads=i, precision=precision[i])
        beside = {"logger": node(f"l.{name}", project=name), "callbacks": {name: node("c.C")}, "table": {"row": name, "place": i}}
        config = base_config(output_dir=name, overwrite=bool(i), trainer=machine, **beside)
        write_job(tmp_path / name, config=config, choices=base_choices(logger=name, trainer="cpu"))
    assert columns(tmp_path) == found


def test_names_are_as_short_as_they_are_unique(tmp_path):
    for i, name in enumerate("ab"):
        write_job(tmp_path / name, config=base_config(data={"size": i, "root": name}, prior={"size": i}))
    assert list(columns(tmp_path)) == ["data.size", "root", "prior.size"]


def test_values_are_printed_as_a_user_types_them(tmp_path):
    values = [0.30000000000000004, 2, True, None, [128, 64], "deep blue", {}]
    for i, value in enumerate(values):
        write_job(tmp_path / str(i), config=base_config(x=value))
    write_job(tmp_path / "7")
    assert columns(tmp_path) == {"x": ["0.3", "2", "true", "null", "[128, 64]", "deep blue", "{}", ""]}


def test_1_equals_1_0_but_not_true(tmp_path):
    for name, value in (("a", 1), ("b", 1.0)):
        dps(tmp_path / name, value)
    assert columns(tmp_path) == {}
    dps(tmp_path / "c", True)
    assert columns(tmp_path) == {"zeta": ["1", "1", "true"]}


def test_a_sigma_is_printed_on_both_scales(tmp_path):
    for name, sigma in (("a", 0.05), ("b", 0.1)):
        write_job(
            tmp_path / name,
            records_of([20.0, 21.0]),
            base_config(noise_model=node("diffusion_priors.operators.noise_models.Gaussian", sigma=sigma)),
        )
    board = ranked(tmp_path)
    assert "sigma in [-1, 1]" in board.text and "0.05 = 0.025 in [0, 1]" in board.text
    assert [row["noise_model.sigma"] for row in csv_rows(csv_text(board))] == ["0.05", "0.1"]
