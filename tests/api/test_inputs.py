"""What `restore` takes and returns: images and measurements in every form, and what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_prior import images, tiny_prior

import diffusion_priors as dp

BOX = {"operator": "inpaint_box", "steps": 2, "progress": False, "trainer": "cpu"}


@pytest.fixture(scope="module")
def prior():
    return tiny_prior()


@pytest.fixture(scope="module")
def clean():
    """(2, 3, 16, 16) on the grid of 8 bits."""
    return images(2)


@pytest.fixture(scope="module")
def expected(prior, clean):
    return dp.restore(prior, image=clean, **BOX)


def as_bytes(clean):
    return [((image + 1.0) * 127.5).round().to(torch.uint8) for image in clean]


FORMS = {
    "a list of tensors": list,
    "floats in [0, 1]": lambda clean: (clean + 1.0) / 2.0,
    "bytes as tensors": as_bytes,
    "arrays of bytes": lambda clean: np.stack([image.permute(1, 2, 0).numpy() for image in as_bytes(clean)]),
    "PIL images": lambda clean: [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in as_bytes(clean)],
    "arrays of floats": lambda clean: [image.permute(1, 2, 0).numpy() for image in clean],
}


@pytest.mark.parametrize("form", FORMS)
def test_an_image_in_every_form_has_the_same_restoration(form, prior, clean, expected):
    pixel_range = (0, 1) if "[0, 1]" in form else None
    found = dp.restore(prior, image=FORMS[form](clean), pixel_range=pixel_range, **BOX)
    tolerance = 0.0 if pixel_range is None else 1e-4
    assert found.ids == ("image-0", "image-1")
    torch.testing.assert_close(found.truth, clean, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.samples, expected.samples, rtol=0, atol=tolerance)


def test_files_and_images_in_memory_with_their_ids_are_the_same(prior, clean, expected, tmp_path):
    paths = [tmp_path / f"{name}.png" for name in ("image-0", "image-1")]
    for path, image in zip(paths, FORMS["PIL images"](clean), strict=True):
        image.save(path)
    for given in (paths, str(tmp_path), tmp_path / "*.png"):
        assert torch.equal(dp.restore(prior, image=given, **BOX).samples, expected.samples)
    with pytest.raises(ValueError, match="the ids of image files are their names"):
        dp.restore(prior, image=paths, ids=["a", "b"], **BOX)


def test_a_result_depends_on_the_id_the_seed_and_the_sample_alone(prior, clean, expected):
    """The second image alone, with its id, as the second of two; other ids and seeds are other noise."""
    alone = dp.restore(prior, image=clean[1], ids=["image-1"], images_per_call=1, num_samples=2, **BOX)
    together = dp.restore(prior, image=clean, images_per_call=1, num_samples=2, batch_size=3, **BOX)
    assert torch.equal(alone.samples[0], together.samples[1]) and alone.records[1]["sample"] == 1
    assert not torch.equal(alone.samples[0, 0], alone.samples[0, 1])
    for other in ({"ids": ["other"]}, {"ids": ["image-1"], "seed": 1}):
        assert not torch.equal(dp.restore(prior, image=clean[1], **other, **BOX).samples[0], expected.samples[1])


def test_a_photo_of_another_size_is_cropped_and_reduced_as_its_file(prior, tmp_path):
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 25, 3), dtype=np.uint8))
    photo.save(tmp_path / "image-0.png")
    for fit in ("crop", "stretch"):
        found = [dp.restore(prior, image=given, fit=fit, **BOX).truth for given in (tmp_path, photo, np.asarray(photo))]
        floats = dp.restore(prior, image=np.asarray(photo) / 255.0, pixel_range=(0, 1), fit=fit, **BOX).truth
        assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
        torch.testing.assert_close(floats, found[0], rtol=0, atol=0.5 / 127.5 + 1e-6)  # files are rounded to 8 bits


def test_a_measurement_as_numbers_and_as_an_image(prior, expected, tmp_path):
    """y itself gives the restoration of the simulation; an image of y holds it up to 8 bits. Neither has scores."""
    again = dp.restore(prior, measurement=expected.y, **BOX)
    assert torch.equal(again.samples, expected.samples)
    assert torch.equal(dp.restore(prior, measurement=expected.y.double().numpy(), **BOX).samples, expected.samples)
    assert again.truth is None and again.records[0]["psnr"] is None and again.records[0]["residual"] is not None
    y = Image.fromarray((((expected.y[0] + 1.0) * 127.5).round().clamp(0, 255)).byte().permute(1, 2, 0).numpy())
    y.save(tmp_path / "image-0.png")
    as_image, as_file = (dp.restore(prior, measurement=given, **BOX) for given in (y, tmp_path / "image-0.png"))
    assert torch.equal(as_image.samples, as_file.samples)
    assert (as_image.y - expected.y[:1]).abs()[expected.y[:1].abs() < 1.0].max() <= 0.5 / 127.5 + 1e-6


def test_a_measurement_that_is_no_image_is_given_as_numbers(prior, clean):
    keys = BOX | {"operator": "mri"}
    made = dp.restore(prior, image=clean, **keys)
    assert made.y.is_complex() and made.measurement is None
    assert torch.equal(dp.restore(prior, measurement=made.y, **keys).samples, made.samples)
    with pytest.raises(ValueError, match=r"the measurement of MRI is no image; give measurement= as a tensor \(3, 16, 16\)"):
        dp.restore(prior, measurement=Image.new("RGB", (16, 16)), **keys)


def test_parts_by_hand_are_those_by_name(prior, clean, expected):
    """The same numbers from the classes alone, with the generators of the image."""
    x0 = clean[:1]
    generators = [dp.image_generator(0, "image-0", "measurement")]
    operator = dp.operator("inpaint_box").draw(x0, generators)
    measurement = dp.Measurement.of(operator, dp.noise_model("gaussian"), x0, generators)
    noise = dp.ImageRandom([dp.image_generator(0, "image-0", 0, "sampling")])
    problem = dp.Problem(dp.Denoiser(prior), measurement, dp.sampler("ddpm"), noise, torch.zeros_like(x0))
    solver = dp.solver("dps")
    solution = solver.solve(problem, solver.plan(dp.grid("linspace", steps=2), prior.image_schedule))
    torch.testing.assert_close(solution.x0, expected.samples[0, :1], rtol=1e-5, atol=1e-5)


def test_a_mask_in_memory_is_that_of_a_file(prior, clean, tmp_path):
    mask = np.ones((16, 16), dtype=bool)
    mask[3:9, 5:12] = False
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "mask.png")
    by_file = dp.operator("inpaint_mask", path=tmp_path / "mask.png")
    found = [dp.restore(prior, image=clean, **BOX | {"operator": one}) for one in (by_file, dp.inpainting(mask))]
    assert torch.equal(found[0].samples, found[1].samples)


def test_the_trajectory_ends_in_the_last_estimate_and_changes_nothing(prior, clean):
    """Of every group of the batch, also of the filled one, without the copies that fill it."""
    keys = BOX | {"steps": 6, "images_per_call": 2, "num_samples": 3, "image": clean}
    plain, every, some = (dp.restore(prior, trajectory=frames, **keys) for frames in (False, True, 3))
    assert plain.trajectory is None and every.trajectory.shape == (2, 3, 6, 3, 16, 16)
    assert torch.equal(plain.samples, every.samples)
    assert every.steps == (1, 2, 3, 4, 5, 6) and torch.equal(some.trajectory, every.trajectory[:, :, [step - 1 for step in some.steps]])
    assert some.steps[0] == 1 and some.steps[-1] == 6 and len(some.steps) == 3
    assert not torch.equal(every.trajectory[:, 0], every.trajectory[:, 1])
    alone = dp.restore(prior, trajectory=True, **keys | {"image": clean[1], "ids": ["image-1"]})
    assert torch.equal(alone.trajectory[0], every.trajectory[1])
    assert every.film(1, 2).width > 6 * 192
    with pytest.raises(ValueError, match="no trajectory was kept"):
        plain.film()


def test_a_walk_without_a_measurement(prior):
    result = dp.restore(prior, solver="unconditional", num_samples=3, steps=2, progress=False, trajectory=True)
    assert (result.samples.shape, result.y, result.ids) == ((1, 3, 3, 16, 16), None, ("unconditional",))
    assert torch.equal(result.trajectory[0, :, -1], result.samples[0])  # the last step of DDPM ends in x̂0
    assert result.std.max() > 0.0 and torch.equal(result.mean, result.samples.mean(1))


def test_what_is_saved_is_what_a_run_leaves(expected, tmp_path):
    folder = expected.save(tmp_path / "run")
    records = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    assert [record["id"] for record in records] == list(expected.ids)
    assert np.array_equal(np.asarray(Image.open(folder / "images" / "image-1" / "restoration-0.png")), np.asarray(expected.pil(1)))
    assert (folder / "figure.png").is_file()
    with pytest.raises(FileExistsError):
        expected.save(folder)


def wrong(message, **keys):
    return pytest.param(keys, message, id=message[:40])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        wrong("there is nothing to restore; give image= "),
        wrong("image= is clean and measurement= is degraded", image="a.png", measurement="b.png"),
        wrong("operator= is not set; ", image=torch.zeros(3, 16, 16), operator=None),
        wrong("this solver looks at no image", image=torch.zeros(3, 16, 16), solver="unconditional"),
        wrong("num_samples must be at least 1, got 0", image=torch.zeros(3, 16, 16), num_samples=0),
        wrong("seed=-1 is out of bounds", image=torch.zeros(3, 16, 16), seed=-1),
        wrong("trajectory must be at least 1, got -2", image=torch.zeros(3, 16, 16), trajectory=-2),
        wrong("a tensor of one image must be (3, 16, 16) here", image=torch.zeros(3, 8, 8)),
        wrong("an array of one image is (height, width)", image=np.zeros((3, 16, 16), np.uint8)),
        wrong("pixels lie in [-1, 1], and these are from 0 to 255", image=torch.arange(768.0).view(3, 16, 16) % 256),
        wrong("pixels of floats lie in [-1, 1], and these are from 0.5 to 0.5: is it [0, 1]?", image=torch.full((3, 16, 16), 0.5)),
        wrong("ids= names 2 images, and 1 are given", image=-torch.ones(3, 16, 16), ids=["a", "b"]),
        wrong("ids=['a', 'A'] names two images alike", image=-torch.ones(2, 3, 16, 16), ids=["a", "A"]),
        wrong("the id '../a' of an image cannot name a folder", image=-torch.ones(3, 16, 16), ids=["../a"]),
        wrong("this operator gives real measurements (3, 16, 16)", measurement=torch.zeros(3, 8, 8)),
        wrong("this operator draws its mask or kernel at random", measurement=torch.zeros(3, 16, 16), operator="inpaint_random"),
        wrong("there is no image in the list", image=[]),
        wrong("a dict is no image; give a path", image=[{}]),
        wrong("no image at nowhere.png", image="nowhere.png"),
        wrong("solver= is a int, and no Solver", image=-torch.ones(3, 16, 16), solver=3),
        wrong("restore uses one device, got a trainer of 2", image=-torch.ones(3, 16, 16), trainer=dp.part("trainer", "cpu", devices=2)),
        wrong("DDRM moves by itself and uses no sampler", image=-torch.ones(3, 16, 16), solver="ddrm", sampler="ddim"),
    ],
)
def test_what_cannot_be_restored_is_refused_in_one_line(keys, message, prior):
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        dp.restore(prior, **BOX | keys)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_a_solver_that_cannot_take_the_operator_says_so(prior):
    with pytest.raises(ValueError, match=r"DDRM needs an operator with a known singular value decomposition"):
        dp.restore(prior, image=-torch.ones(3, 16, 16), **BOX | {"solver": "ddrm", "operator": "hdr"})
    with pytest.raises(ValueError, match="the grid has its own number of steps, 9; leave out steps=2"):
        dp.restore(prior, image=-torch.ones(3, 16, 16), grid=dp.grid("karras", steps=9), **BOX)
    for mask, message in ((np.ones((16, 16)), "the mask has nothing missing"), (np.eye(8), "the mask is 8 x 8 and the prior's images are")):
        with pytest.raises(ValueError, match=message):
            dp.restore(prior, image=-torch.ones(3, 16, 16), **BOX | {"operator": dp.inpainting(mask)})


def test_a_result_shows_itself_on_one_line(expected):
    mean = sum(record["psnr"] for record in expected.records) / 2
    assert repr(expected) == f"Result(images: 2, samples of each: 1, size: 3 x 16 x 16, mean PSNR {mean:.2f} dB)"
