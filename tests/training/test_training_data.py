"""Training data: item k is a function of (seed, k), a run can resume at any step, and every draw has the right distribution."""

from __future__ import annotations

import itertools
import pickle
import zipfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from lazy import Lazy
from PIL import Image

from diffusion_priors.images.fit import Crop, Exact
from diffusion_priors.images.io import read_image
from diffusion_priors.training.image_store import ImageStore

if TYPE_CHECKING:
    from diffusion_priors.training.data import ImageFolder, TrainingStream

data = Lazy("diffusion_priors.training.data")
stats = Lazy("scipy.stats")

SHAPE = (3, 4, 5)


def image_store(count: int = 7, shape: tuple[int, ...] = SHAPE) -> ImageStore:
    pixels = np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)
    return ImageStore(pixels, [f"{i}.png" for i in range(count)], [])


def make_stream(store: ImageStore | None = None, kept=None, total=1000, batch_size=4, flip=True, seed=0) -> TrainingStream:
    store = store or image_store()
    return data.TrainingStream(store, np.arange(len(store)) if kept is None else np.asarray(kept), total, batch_size, flip, seed)


def equal(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def shown(stream: TrainingStream, k: int) -> tuple[int, bool]:
    """The index of item k's image, and whether it is mirrored."""
    x0 = stream[k].x0.double().numpy()
    for index, pixels in enumerate(stream.store.pixels):
        for mirrored, image in ((False, pixels), (True, pixels[..., ::-1])):
            if np.abs(x0 - (image.astype(float) / 127.5 - 1)).max() < 1e-6:
                return index, mirrored
    raise AssertionError(f"item {k} is not an image of the store")


# Item k


def test_an_item_does_not_depend_on_earlier_items():
    """The same item in another order, from a new object, and from a pickled copy."""
    stream = make_stream()
    items = [stream[k] for k in range(40)]
    for k in (39, 3, 17, 3, 0, 22):
        assert equal(stream[k], items[k])
    for other in (make_stream(), pickle.loads(pickle.dumps(stream)), pickle.loads(pickle.dumps(make_stream()))):
        assert all(equal(other[k], items[k]) for k in reversed(range(40)))
    assert equal(make_stream()[10**12], make_stream()[10**12])


def test_the_global_generators_are_neither_used_nor_changed():
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = make_stream()[5]
    assert torch.equal(torch.get_rng_state(), states[0]) and np.array_equal(np.random.get_state()[1], states[1])
    torch.manual_seed(123)
    np.random.seed(123)
    assert equal(make_stream()[5], first)


def test_the_batch_size_affects_only_the_levels():
    small, large = make_stream(batch_size=2), make_stream(batch_size=8)
    for k in range(20):
        assert equal(small[k][:2], large[k][:2])
    assert any(small[k].index != large[k].index for k in range(20))


@pytest.mark.script
def test_the_number_of_workers_changes_nothing():
    """The loader of a run, with and without worker processes, compared with the single items."""
    stream = make_stream()
    for workers in (0, 2):
        loader = torch.utils.data.DataLoader(stream, batch_sampler=data.Positions(3, 7, 4), num_workers=workers, collate_fn=data.collate)
        for step, batch in zip(range(3, 7), loader, strict=True):
            for b in range(4):
                assert equal([part[b] for part in batch], stream[4 * step + b])


def test_another_seed_changes_everything():
    a, b = make_stream(seed=0), make_stream(seed=1)
    views = [[shown(stream, k) for k in range(70)] for stream in (a, b)]
    assert [image for image, _ in views[0]] != [image for image, _ in views[1]]
    assert [mirrored for _, mirrored in views[0]] != [mirrored for _, mirrored in views[1]]
    z = [torch.stack([stream[k].z for k in range(70)]).flatten() for stream in (a, b)]
    assert abs(torch.corrcoef(torch.stack(z))[0, 1]) < 5 / len(z[0]) ** 0.5
    levels = [[stream[4 * batch].index.item() for batch in range(200)] for stream in (a, b)]
    assert abs(np.corrcoef(levels)[0, 1]) < 5 / 200**0.5


# Images


@pytest.mark.parametrize("kept", [range(7), [0, 2, 3, 6], [5]], ids=["all", "some", "one"])
def test_an_epoch_shows_every_kept_image_once(kept):
    stream, n = make_stream(kept=kept), len(kept)
    for epoch in (0, 1, 2, 50):
        assert sorted(shown(stream, k)[0] for k in range(epoch * n, (epoch + 1) * n)) == list(kept)


def test_every_order_of_an_epoch_is_equally_likely():
    """Chi-square over the six orders of three images, and over those of neighbouring epochs."""
    stream, epochs = make_stream(image_store(3, (1, 1, 2)), flip=False), 900
    orders = [tuple(shown(stream, 3 * epoch + i)[0] for i in range(3)) for epoch in range(epochs)]
    names = list(itertools.permutations(range(3)))
    assert stats.chisquare([orders.count(name) for name in names]).pvalue > 1e-3
    pairs = Counter(itertools.pairwise(orders))
    assert stats.chisquare([pairs[pair] for pair in itertools.product(names, names)]).pvalue > 1e-3


def test_half_of_the_images_are_mirrored():
    """Binomial; independent of the image and of the position in the epoch, and neighbours are independent."""
    stream, n = make_stream(), 2100
    views = [shown(stream, k) for k in range(n)]
    mirrored = np.array([flag for _, flag in views])
    assert stats.binomtest(int(mirrored.sum()), n).pvalue > 1e-3
    assert stats.binomtest(int((mirrored[1:] != mirrored[:-1]).sum()), n - 1).pvalue > 1e-3
    for image in range(7):
        flags = [flag for index, flag in views if index == image]
        assert len(flags) == 300 and stats.binomtest(sum(flags), 300).pvalue > 1e-3


def test_without_flip_no_image_is_mirrored():
    stream = make_stream(flip=False)
    assert not any(shown(stream, k)[1] for k in range(200))


# Noise


def test_noise_is_standard_normal_and_independent_between_items():
    stream, n = make_stream(), 300
    z = torch.stack([stream[k].z for k in range(n)]).double().flatten(1).numpy()
    assert z.shape == (n, 60) and stream[0].z.dtype == torch.float32
    assert stats.kstest(z.flatten(), "norm").pvalue > 1e-3
    assert stats.kstest((z**2).sum(1), "chi2", args=(60,)).pvalue > 1e-3
    between = np.corrcoef(z) - np.eye(n)
    assert np.abs(between).max() < 6 / 60**0.5 and (between**2).sum() / (n * (n - 1)) == pytest.approx(1 / 59, rel=0.05)


def test_noise_and_mirroring_are_independent():
    stream, n = make_stream(), 1000
    z, mirrored = zip(*[(stream[k].z.flatten()[:4].tolist(), shown(stream, k)[1]) for k in range(n)], strict=True)
    z, mirrored = np.array(z), np.array(mirrored)
    for i in range(4):
        assert stats.ks_2samp(z[mirrored, i], z[~mirrored, i]).pvalue > 1e-3


# Levels


@pytest.mark.parametrize("batch_size", [1, 2, 5, 8, 40])
def test_a_batch_has_one_level_in_each_part_of_the_schedule(batch_size):
    """Each part of T/B levels has one item, and all neighbours are equally far apart, cyclically."""
    stream, total = make_stream(total=1000, batch_size=batch_size), 1000
    for batch in range(30):
        t = np.sort([stream[batch * batch_size + i].index.item() for i in range(batch_size)])
        assert (t * batch_size // total).tolist() == list(range(batch_size))
        assert (np.diff([*t, t[0] + total]) == total // batch_size).all()


@pytest.mark.parametrize(("total", "batch_size"), [(1000, 7), (10, 3), (4, 16), (1, 2)])
def test_the_levels_of_a_batch_are_as_even_as_integers_allow(total, batch_size):
    """Every range of m levels contains B m/T items, to within one."""
    stream = make_stream(total=total, batch_size=batch_size)
    for batch in range(20):
        t = np.array([stream[batch * batch_size + i].index.item() for i in range(batch_size)])
        assert t.min() >= 0 and t.max() < total
        for low, high in itertools.combinations(np.unique(np.linspace(0, total, 11).astype(int)), 2):
            assert abs(((t >= low) & (t < high)).sum() - batch_size * (high - low) / total) < 1 + 1e-9


@pytest.mark.parametrize("place", [0, 1, 3])
def test_at_each_position_of_a_batch_every_level_is_equally_likely(place):
    """Chi-square over ten levels, and over pairs of neighbouring batches."""
    stream = make_stream(total=10, batch_size=4)
    t = [stream[4 * batch + place].index.item() for batch in range(2000)]
    assert stats.chisquare(np.bincount(t, minlength=10)).pvalue > 1e-3
    pairs = Counter(zip(t[::2], t[1::2], strict=True))
    assert stats.chisquare([pairs[pair] for pair in itertools.product(range(10), repeat=2)]).pvalue > 1e-3


def test_levels_are_integers_and_images_are_single_precision():
    item = make_stream()[0]
    assert (item.index.dtype, item.index.ndim, item.x0.dtype) == (torch.int64, 0, torch.float32)


def test_levels_are_independent_of_the_images():
    """Over many epochs an image gets all levels, whether or not the batch size divides the number of images."""
    for count, batch_size in ((4, 4), (6, 4)):
        stream = make_stream(image_store(count, (1, 1, 2)), total=1000, batch_size=batch_size)
        views = [(shown(stream, k)[0], stream[k].index.item()) for k in range(300 * count)]
        for image in range(count):
            assert stats.kstest([t / 1000 for index, t in views if index == image], "uniform").pvalue > 1e-3


# Positions

SPLITS = [(world, accumulate) for world in (1, 2, 3, 4) for accumulate in (1, 2, 4) if 24 % (world * accumulate) == 0]


@pytest.mark.parametrize(("world", "accumulate"), SPLITS)
def test_the_ranks_and_micro_batches_of_a_step_partition_its_items(world, accumulate):
    """Micro-batch by micro-batch, and within one rank by rank, they are the items 24 s … 24 s + 23 in order."""
    ranks = [list(data.Positions(0, 5, 24, accumulate, rank, world)) for rank in range(world)]
    assert all(len(micro_batches) == 5 * accumulate for micro_batches in ranks)
    for step in range(5):
        own = range(step * accumulate, (step + 1) * accumulate)
        assert [k for micro_batch in own for rank in ranks for k in rank[micro_batch]] == list(range(24 * step, 24 * step + 24))
        assert {len(rank[micro_batch]) for micro_batch in own for rank in ranks} == {24 // (world * accumulate)}


def test_a_resumed_run_gets_the_remaining_positions():
    """For every split, from the first step, the second, the last and the end, and for runs drawn at random."""
    cases = [(5, first, world, accumulate, 24 // (world * accumulate)) for world, accumulate in SPLITS for first in (0, 1, 4, 5)]
    rng = np.random.default_rng(0)
    cases += [(steps, rng.integers(steps + 1), *rng.integers(1, 6, 3)) for steps in rng.integers(1, 12, 40)]
    for steps, first, world, accumulate, share in cases:
        batch_size = world * accumulate * share
        for rank in range(world):
            whole, tail = (data.Positions(start, steps, batch_size, accumulate, rank, world) for start in (0, first))
            assert list(tail) == list(whole)[first * accumulate :]
            assert len(tail) == len(whole) == len(list(whole)) == steps * accumulate


# A folder of images


def fill(root: Path, names: list[str]) -> Path:
    """One image per name, whose pixels depend on the name."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        seed = int.from_bytes(name.encode(), "little")
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)).save(path)
    return root


@pytest.fixture
def read(tmp_path):
    def read(root: Path, **options) -> ImageFolder:
        folder = data.ImageFolder(str(root), cache=str(tmp_path / "cache"), **options)
        folder.read(3, (4, 5))
        return folder

    return read


def names_of(folder: ImageFolder) -> tuple[set[str], set[str]]:
    """(held out, trained on)."""
    return {folder.held.ids[i] for i in folder.fixed}, {folder.store.ids[i] for i in folder.training}


NAMES = [f"{chr(97 + i % 3)}/{i:03d}.png" for i in range(60)]


@pytest.mark.parametrize(
    ("count", "holdout", "expected"), [(60, 5, 5), (60, 12, 12), (60, 64, 12), (24, 64, 4), (5, 64, 1), (4, 64, 1), (2, 3, 1), (60, 1, 1)]
)
def test_the_holdout_is_disjoint_and_at_most_a_fifth(count, holdout, expected, tmp_path, read):
    held, training = names_of(folder := read(fill(tmp_path / "p", NAMES[:count]), holdout=holdout))
    assert len(held) == expected == len(folder.fixed) and not held & training and held | training == set(NAMES[:count])
    assert len(folder.training) == count - expected


def test_the_holdout_depends_only_on_the_names(tmp_path, read):
    """The same names are held out from files written in another order, in another folder, and from a zip."""
    shuffled = [NAMES[i] for i in np.random.default_rng(0).permutation(60)]
    first, second = fill(tmp_path / "p", NAMES), fill(tmp_path / "elsewhere" / "q", shuffled)
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        for name in shuffled:
            archive.write(first / name, name)
    expected = names_of(read(first, holdout=6))
    assert names_of(read(second, holdout=6)) == expected and names_of(read(tmp_path / "p.zip", holdout=6)) == expected


def test_a_larger_holdout_contains_the_smaller_one(tmp_path, read):
    root = fill(tmp_path / "p", NAMES)
    sizes = [names_of(read(root, holdout=count))[0] for count in (1, 3, 7, 12)]
    assert all(small < large for small, large in itertools.pairwise(sizes))


def test_a_new_image_never_moves_another_one_into_the_holdout(tmp_path, read):
    """It replaces one image or none, about as often as chance predicts."""
    root, taken = fill(tmp_path / "p", NAMES), 0
    before, _ = names_of(read(root, holdout=6))
    for i in range(15):
        new = f"{'az'[i % 2]}/new{i}.png"
        fill(root, [new])
        after, _ = names_of(read(root, holdout=6))
        assert after - before <= {new} and len(after) == 6
        taken += new in after
        before = after
    assert taken <= 6  # expected: 15 · 6/68 = 1.3


def test_the_holdout_is_spread_over_the_names(tmp_path, read):
    """Kolmogorov-Smirnov test of their ranks."""
    names = [f"{i:04d}.png" for i in range(300)]
    folder = read(fill(tmp_path / "p", names), holdout=60)
    assert stats.kstest(folder.fixed / 300, "uniform").pvalue > 1e-3


def test_with_a_validation_folder_all_images_are_trained_on(tmp_path, read):
    root, other = fill(tmp_path / "p", NAMES[:8]), fill(tmp_path / "v", ["x.png", "y.png", "z.png"])
    (root / "broken.png").write_bytes(b"nothing")
    (other / "bad.png").write_bytes(b"nothing")
    folder = read(root, validation=str(other), holdout=1)
    assert names_of(folder) == ({"x.png", "y.png", "z.png"}, set(NAMES[:8]))
    assert [name for name, _ in folder.skipped] == ["broken.png", "bad.png"]
    assert [name for name, _ in read(root, holdout=1).skipped] == ["broken.png"]


def test_a_single_image_needs_a_validation_folder(tmp_path, read):
    root = fill(tmp_path / "p", ["only.png"])
    with pytest.raises(ValueError, match=r"p has one image, .*; set data\.validation") as refused:
        read(root)
    assert "\n" not in str(refused.value)
    assert names_of(read(root, validation=str(fill(tmp_path / "v", ["x.png"])))) == ({"x.png"}, {"only.png"})


def test_held_out_images_have_their_names_and_pixels(tmp_path, read):
    root = fill(tmp_path / "p", NAMES)
    folder = read(root, holdout=6)
    pairs = folder.held_out(4)
    assert len(pairs) == 4 and {name for name, _ in pairs} < names_of(folder)[0] and len(folder.held_out(99)) == 6
    assert [name for name, _ in pairs] == sorted(name for name, _ in pairs)
    for name, x0 in pairs:
        assert torch.equal(x0, read_image(root / name, 3, (4, 5), Crop()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"holdout": 0}, r"got 0; set data\.holdout"),
        ({"holdout": -3}, r"got -3; set data\.holdout"),
        ({"workers": -1}, r"data\.workers=-1 is not between 0 and"),
    ],
)
def test_a_number_out_of_bounds_is_refused_before_anything_is_read(options, message):
    with pytest.raises(ValueError, match=message) as refused:
        data.ImageFolder("nowhere", **options)
    assert "\n" not in str(refused.value)


def test_the_cache_is_in_the_requested_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert data.ImageFolder("nowhere").cache.parent == tmp_path / "xdg"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert data.ImageFolder("nowhere").cache.parent == tmp_path / "home" / ".cache"
    assert data.ImageFolder("nowhere", cache="~/own").cache == tmp_path / "home" / "own"


def test_fit_and_enlarge_apply_to_the_images(tmp_path):
    root = fill(tmp_path / "p", NAMES[:5])
    with pytest.raises(ValueError, match=r"5 of 5 .*smaller than 8 x 10"):
        data.ImageFolder(str(root), cache=str(tmp_path / "cache")).read(3, (8, 10))
    with pytest.raises(ValueError, match=r"5 of 5 .*wanted is 2 x 5"):
        data.ImageFolder(str(root), cache=str(tmp_path / "cache"), fit=Exact()).read(3, (2, 5))
    large = data.ImageFolder(str(root), cache=str(tmp_path / "cache"), enlarge=True)
    large.read(3, (8, 10))
    (name, x0), *_ = large.held_out(1)
    assert torch.equal(x0, read_image(root / name, 3, (8, 10), Crop()))


# Validation


def test_validation_images_are_fixed():
    """Unmirrored images in order, with levels in the middle of N equal parts, the same at each access."""
    store, kept = image_store(9), np.array([1, 4, 5, 8])
    images = data.ValidationImages(store, kept, 1000)
    assert len(images) == 4 and [images[i].index.item() for i in range(4)] == [125, 375, 625, 875]
    for i, index in enumerate(kept):
        np.testing.assert_allclose(images[i].x0, store.pixels[index] / 127.5 - 1, atol=1e-6)
        assert equal(images[i], data.ValidationImages(store, kept, 1000)[i])
    z = torch.stack([images[i].z for i in range(4)])
    assert stats.kstest(z.flatten().numpy(), "norm").pvalue > 1e-3
    assert (torch.corrcoef(z.flatten(1)) - torch.eye(4)).abs().max() < 5 / 60**0.5


def test_the_noise_of_a_validation_image_does_not_depend_on_the_others():
    store = image_store(9)
    some, others = data.ValidationImages(store, np.array([1, 4, 5]), 1000), data.ValidationImages(store, np.array([4, 8]), 10)
    assert equal(some[1][:2], others[0][:2])


# The batches of a run


class Trainer(SimpleNamespace):
    """The part of Lightning's trainer that the data uses."""

    def __init__(self, step: int = 0, rank: int = 0, world: int = 1) -> None:
        super().__init__(global_step=step, global_rank=rank, world_size=world, strategy=SimpleNamespace(root_device=torch.device("cpu")))


@pytest.mark.parametrize(("world", "accumulate"), [(1, 1), (1, 4), (2, 1), (2, 2), (4, 1)])
def test_the_batches_of_a_run_are_the_items_of_the_stream_for_every_split(world, accumulate, tmp_path, read):
    """From step 3 of 6, over all ranks and micro-batches. No held-out image is among them."""
    folder = read(fill(tmp_path / "p", NAMES[:20]), holdout=4)
    folder.plan(total=100, steps=6, batch_size=8, accumulate=accumulate, seed=5)
    loaders = []
    for rank in range(world):
        folder.trainer = Trainer(3, rank, world)
        loaders.append(list(folder.train_dataloader()))
    expected = data.TrainingStream(folder.store, folder.training, 100, 8, True, 5)
    held, _ = names_of(folder)
    hidden = [folder.store.image(folder.store.ids.index(name)) for name in held]
    for step in range(3, 6):
        own = range((step - 3) * accumulate, (step - 2) * accumulate)
        parts = zip(*[loaders[rank][micro_batch] for micro_batch in own for rank in range(world)], strict=True)
        x0, z, index = (torch.cat(part) for part in parts)
        items = [expected[8 * step + i] for i in range(8)]
        assert equal((x0, z, index), [torch.stack(part) for part in zip(*items, strict=True)])
        assert not any(torch.equal(x, y) or torch.equal(x.flip(-1), y) for x in x0 for y in hidden)
    assert all(len(loader) == 3 * accumulate for loader in loaders)


def test_flip_and_seed_apply_to_the_stream(tmp_path, read):
    root = fill(tmp_path / "p", NAMES[:10])

    def batch(flip: bool, seed: int):
        folder = read(root, flip=flip)
        folder.plan(total=50, steps=1, batch_size=16, accumulate=1, seed=seed)
        folder.trainer = Trainer()
        return next(iter(folder.train_dataloader())), folder

    plain, folder = batch(False, 0)
    images = [folder.store.image(i) for i in folder.training]
    assert all(any(torch.equal(x, image) for image in images) for x in plain.x0)
    mirrored, _ = batch(True, 0)
    assert not all(any(torch.equal(x, image) for image in images) for x in mirrored.x0)
    assert not torch.equal(batch(False, 1)[0].z, plain.z) and plain.index.max() < 50


def test_validation_batches_contain_each_held_out_image_once(tmp_path, read):
    folder = read(fill(tmp_path / "p", NAMES), holdout=7)
    folder.plan(total=70, steps=1, batch_size=3, accumulate=1, seed=0)
    folder.trainer = Trainer()
    batches = list(folder.val_dataloader())
    assert [len(batch.x0) for batch in batches] == [3, 3, 1]
    assert torch.cat([batch.index for batch in batches]).tolist() == [5, 15, 25, 35, 45, 55, 65]
    assert equal(torch.cat([batch.x0 for batch in batches]), [x0 for _, x0 in folder.held_out(7)])
