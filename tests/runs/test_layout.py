"""The paths in a run's folder."""

from __future__ import annotations

from diffusion_priors.runs.layout import MEASUREMENT, RunLayout, restoration


def test_two_kinds_of_files_never_share_a_path(tmp_path):
    layout = RunLayout(tmp_path)
    names = ("config", "records", "images", "posterior", "figure", "reliability", "report", "summary", "error", "not_applicable")
    paths = [getattr(layout, name) for name in names] + [layout.exact_posterior, layout.clouds, layout.records_of(1)]
    paths += [layout.measurement("a"), layout.image("a", MEASUREMENT), layout.image("a", restoration(0))]
    assert len({*paths}) == len(paths)


def test_restorations_come_in_the_order_of_their_samples(tmp_path):
    """Sample 10 follows sample 9, and other images of the folder are left out."""
    layout = RunLayout(tmp_path)
    layout.image_folder("a").mkdir(parents=True)
    made = [layout.image("a", restoration(sample)) for sample in range(12)]
    for path in (*made, layout.image("a", "truth"), layout.image("a", "restoration-3-old"), layout.image("a", "restoration-")):
        path.touch()
    assert layout.restorations("a") == made
    assert layout.restorations("b") == []


def test_a_process_appends_to_a_file_of_its_own_and_all_files_are_found(tmp_path):
    layout = RunLayout(tmp_path)
    assert layout.all_records() == []
    for rank in (0, 1, 11):
        layout.records_of(rank).touch()
    assert {*layout.all_records()} == {layout.records_of(rank) for rank in (0, 1, 11)}
    assert layout.all_records()[0] == layout.records
