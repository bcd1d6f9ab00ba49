"""The store of training images: it holds the pixels of the files, decodes them once, and is written whole or not at all."""

import multiprocessing
import os
import pickle
import shutil
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_priors.images.fit import Crop, Exact, Stretch
from diffusion_priors.images.io import decode_image, read_image
from diffusion_priors.training import image_store as image_store
from diffusion_priors.training.image_store import ImageStore, store_images

SIZE = (8, 12)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path: Path, seed: int = 0, shape: tuple[int, ...] = (24, 30, 3), **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(*shape, seed=seed)).save(path, **options)
    return path


def zipped(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*"), reverse=True):
            archive.write(file, file.relative_to(folder).as_posix())
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    """Six images of 24 x 30."""
    for i in range(6):
        save(tmp_path / "images" / f"{i}.png", i)
    return tmp_path / "images"


@pytest.fixture
def mixed(tmp_path) -> Path:
    """A nested folder with image files of every kind, and other files."""
    root = tmp_path / "mixed"
    save(root / "b.png", 1)
    save(root / "c.JPG", 2, format="JPEG")
    save(root / "deep" / "er" / "d.webp", 3, lossless=True)
    save(root / "deep" / "b.png", 4)
    save(root / "e.Png", 5, (24, 30))
    save(root / "f.png", 6, (24, 30, 4))
    save(root / "g.bmp", 7, (40, 20, 3))
    save(root / "h.gif", 8, (24, 30))
    Image.fromarray(np.random.default_rng(9).integers(0, 65536, (24, 30), dtype=np.uint16)).save(root / "i.png")
    Image.fromarray(np.random.default_rng(10).integers(0, 65536, (24, 30), dtype=np.uint16)).save(root / "deep" / "i.tif")
    exif = Image.Exif()
    exif[0x0112] = 6
    save(root / "j.jpeg", 11, (30, 24, 3), exif=exif)
    (root / "notes.txt").write_text("no image")
    (root / "labels.json").write_text("{}")
    return root


@pytest.fixture
def store(tmp_path):
    """Store images in one cache."""

    def store(
        root: Path, channels: int = 3, size: tuple[int, int] = SIZE, fit=None, cache: Path = tmp_path / "cache", enlarge=False
    ) -> ImageStore:
        return store_images(str(root), channels, size, fit or Crop(), cache, enlarge)

    return store


@pytest.fixture
def decoded(monkeypatch) -> list[int]:
    """One entry for every image that is decoded."""
    counted = []

    def count(*args):
        counted.append(1)
        return decode_image(*args)

    monkeypatch.setattr(image_store, "decode_image", count)
    return counted


def same(a: ImageStore, b: ImageStore) -> bool:
    return a.ids == b.ids and a.skipped == b.skipped and np.array_equal(a.pixels, b.pixels)


# The content


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("fit", [Crop(), Stretch()], ids=["crop", "stretch"])
def test_every_image_equals_read_image_bit_for_bit(fit, channels, mixed, store):
    found = store(mixed, channels, fit=fit)
    files = {
        path.relative_to(mixed).as_posix(): path for path in mixed.rglob("*") if path.suffix not in (".txt", ".json") and path.is_file()
    }
    assert sorted(found.ids) == sorted(files) and len(found) == 11 and found.skipped == []
    for index, name in enumerate(found.ids):
        expected = read_image(files[name], channels, SIZE, fit)
        assert torch.equal(found.image(index), expected)
        assert np.array_equal(found.pixels[index], ((expected.double() + 1) * 127.5).round().numpy())
    assert found.pixels.dtype == np.uint8 and isinstance(found.pixels, np.memmap) and len(found.pixels) == 11


def test_every_byte_value_is_preserved(tmp_path, store):
    """All 256 values, file → store → [-1, 1]."""
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    (tmp_path / "one").mkdir()
    Image.fromarray(pixels).save(tmp_path / "one" / "a.png")
    found = store(tmp_path / "one", 1, (16, 16), Exact())
    assert np.array_equal(found.pixels[0, 0], pixels)
    np.testing.assert_allclose(found.image(0)[0], np.linspace(-1, 1, 256).reshape(16, 16), atol=1e-7)


def test_a_zip_gives_the_same_images_as_its_folder(mixed, tmp_path, store):
    ours, theirs = store(mixed), store(zipped(mixed, tmp_path / "mixed.ZIP"))
    assert sorted(ours.ids) == sorted(theirs.ids) and theirs.skipped == []
    for index, name in enumerate(theirs.ids):
        assert np.array_equal(theirs.pixels[index], ours.pixels[ours.ids.index(name)])


def test_the_resource_forks_that_macs_put_into_zips_are_ignored(folder, tmp_path, store):
    for name in ("__MACOSX", "inner/__MACOSX"):
        (folder / name).mkdir(parents=True)
        (folder / name / "._0.png").write_bytes(b"\0\5\26\7 resource fork")
    found = store(zipped(folder, tmp_path / "a.zip"))
    assert found.ids == [f"{i}.png" for i in range(6)] and found.skipped == []


def test_the_order_is_that_of_the_names(tmp_path, store):
    for i in (3, 0, 4, 1, 2):
        save(tmp_path / "later" / f"{i}.png", i)
    for i in range(5):
        save(tmp_path / "sooner" / f"{i}.png", i)
    assert store(tmp_path / "later").ids == [f"{i}.png" for i in range(5)]
    assert same(store(tmp_path / "later"), store(tmp_path / "sooner"))


def test_many_images_keep_their_order(tmp_path, store):
    """More images than are decoded at once, some of them broken."""
    broken = {3, 700, 1023, 1024, 2100}
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for i in range(2200):
            archive.writestr(f"{i:04d}.pgm", b"P5 nothing" if i in broken else b"P5 2 1 255\n" + bytes(divmod(i, 256)))
    found = store(tmp_path / "many.zip", 1, (1, 2))
    assert [name for name, _ in found.skipped] == [f"{i:04d}.pgm" for i in sorted(broken)]
    kept = [i for i in range(2200) if i not in broken]
    assert found.ids == [f"{i:04d}.pgm" for i in kept]
    assert np.array_equal(found.pixels.reshape(-1, 2).astype(int), [divmod(i, 256) for i in kept])


def test_a_store_can_be_pickled(folder, store):
    found = store(folder)
    assert same(pickle.loads(pickle.dumps(found)), found)


# The cache


def test_the_second_call_decodes_nothing(mixed, store, decoded, tmp_path):
    first = store(mixed)
    assert len(decoded) == 11
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").glob("*.[nj]*")}
    assert len(times) == 2
    assert same(store(mixed), first) and len(decoded) == 11
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").glob("*.[nj]*")} == times


def test_the_second_call_remembers_what_was_skipped(folder, store, decoded):
    (folder / "2.png").write_bytes(b"nothing")
    first = store(folder)
    count = len(decoded)
    again = store(folder)
    assert same(again, first) and len(again.skipped) == 1 and len(decoded) == count


def test_a_zip_is_decoded_only_once(folder, tmp_path, store, decoded):
    path = zipped(folder, tmp_path / "a.zip")
    assert same(store(path), store(path)) and len(decoded) == 6


def change_size(file: Path) -> None:
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    save(file, 77, (24, 31, 3))
    os.utime(file, ns=times)


def change_time(file: Path) -> None:
    """Other pixels in equally many bytes, since the image is uncompressed."""
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns + 1_000_000
    size = file.stat().st_size
    save(file, 77)
    assert file.stat().st_size == size
    os.utime(file, ns=times)


@pytest.mark.parametrize("change", [change_size, change_time, Path.unlink, lambda file: file.rename(file.with_name("z.bmp"))])
def test_a_changed_folder_is_decoded_again(change, tmp_path, store, decoded):
    folder = tmp_path / "plain"
    for i in range(4):
        save(folder / f"{i}.bmp", i)
    before = store(folder)
    change(folder / "1.bmp")
    after = store(folder)
    assert len(decoded) > 4 and not same(before, after)
    for index, name in enumerate(after.ids):
        assert torch.equal(after.image(index), read_image(folder / name, 3, SIZE, Crop()))


def test_a_zip_with_other_bytes_but_the_same_names_and_sizes_is_decoded_again(tmp_path, store):
    for seed in (0, 1):
        save(tmp_path / f"{seed}" / "a.bmp", seed)
    path = zipped(tmp_path / "0", tmp_path / "a.zip")
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    first = store(path)
    zipped(tmp_path / "1", path)
    os.utime(path, ns=times)
    assert not np.array_equal(first.pixels, store(path).pixels)


def test_each_combination_of_settings_has_its_own_cache_entry(folder, tmp_path, store):
    """All combinations share one cache, and each equals the result of a separate cache."""
    ways = [
        (channels, size, fit, enlarge)
        for channels in (1, 3)
        for size in (SIZE, (12, 8))
        for fit in (Crop(), Stretch())
        for enlarge in (False, True)
    ]
    for way in ways:
        store(folder, *way[:3], enlarge=way[3])
    for i, (channels, size, fit, enlarge) in enumerate(ways):
        shared = store(folder, channels, size, fit, enlarge=enlarge)
        alone = store(folder, channels, size, fit, tmp_path / f"cache{i}", enlarge)
        assert same(shared, alone) and shared.pixels.shape == (6, channels, *size)
    assert len(list((tmp_path / "cache").glob("*.npy"))) == len(ways)


def test_two_folders_with_the_same_names_and_sizes_have_two_cache_entries(tmp_path, store):
    for name, seed in (("a", 0), ("b", 1)):
        save(tmp_path / name / "p.bmp", seed)
        os.utime(tmp_path / name / "p.bmp", ns=(0, 0))
    assert not np.array_equal(store(tmp_path / "a").pixels, store(tmp_path / "b").pixels)


# Unusable images


def test_broken_images_are_skipped_and_listed_with_a_reason(mixed, store):
    (mixed / "a.png").write_bytes(b"this is no image")
    (mixed / "deep" / "empty.jpg").touch()
    whole = (mixed / "b.png").read_bytes()
    (mixed / "deep" / "cut.png").write_bytes(whole[: len(whole) // 2])
    found = store(mixed)
    assert sorted(name for name, _ in found.skipped) == ["a.png", "deep/cut.png", "deep/empty.jpg"]
    reasons = dict(found.skipped)
    assert all(reason and "\n" not in reason for reason in reasons.values())
    assert "no image of a known format" in reasons["a.png"] and "truncated" in reasons["deep/cut.png"]
    assert len(found) == len(found.pixels) == 11 and not set(found.ids) & set(reasons)
    for index, name in enumerate(found.ids):
        assert torch.equal(found.image(index), read_image(mixed / name, 3, SIZE, Crop()))


def test_a_broken_member_of_a_zip_is_skipped(folder, tmp_path, store):
    (folder / "1.png").write_bytes(b"nothing")
    found = store(zipped(folder, tmp_path / "a.zip"))
    assert found.ids == [f"{i}.png" for i in (0, 2, 3, 4, 5)] and [name for name, _ in found.skipped] == ["1.png"]


def test_a_member_whose_bytes_changed_is_skipped(tmp_path, store):
    path = tmp_path / "a.zip"
    for i in range(3):
        save(tmp_path / "plain" / f"{i}.bmp", i)
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(3):
            archive.write(tmp_path / "plain" / f"{i}.bmp", f"{i}.bmp")
        start = archive.infolist()[1].header_offset
    raw = bytearray(path.read_bytes())
    raw[start + 500] ^= 255
    path.write_bytes(raw)
    found = store(path)
    assert found.ids == ["0.bmp", "2.bmp"] and found.skipped[0][0] == "1.bmp" and "CRC" in found.skipped[0][1]


def test_at_most_half_of_the_images_may_be_broken(folder, store):
    for i in range(3):
        (folder / f"{i}.png").write_bytes(b"nothing")
    assert (len(store(folder)), len(store(folder).skipped)) == (3, 3)
    (folder / "3.png").write_bytes(b"nothing")
    for _ in range(2):  # from the files and from the cache
        with pytest.raises(ValueError, match=r"4 of 6 images in .*images cannot be used, the first 0\.png: .*; .*data\.root") as refused:
            store(folder)
        assert "\n" not in str(refused.value)
    for i in range(4):
        save(folder / f"{i}.png", i)
    assert len(store(folder)) == 6


def test_small_images_are_skipped_and_listed_unless_enlarging_is_allowed(folder, store):
    """Small means smaller in one direction. An image of exactly the size is large enough."""
    save(folder / "low.png", 10, (7, 40, 3))
    save(folder / "narrow.png", 11, (40, 11, 3))
    save(folder / "just.png", 12, (*SIZE, 3))
    found = store(folder)
    assert dict(found.skipped) == {"low.png": "it is 7 x 40, smaller than 8 x 12", "narrow.png": "it is 40 x 11, smaller than 8 x 12"}
    assert "just.png" in found.ids and len(found) == 7
    everything = store(folder, enlarge=True)
    assert everything.skipped == [] and len(everything) == 9
    for name in ("low.png", "narrow.png"):
        assert torch.equal(everything.image(everything.ids.index(name)), read_image(folder / name, 3, SIZE, Crop()))


def test_the_size_is_that_of_the_upright_image(tmp_path, store):
    """By its EXIF tag, an image of 12 x 8 on disk is 8 x 12."""
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "turned" / "a.png", 0, (12, 8, 3), exif=exif)
    assert len(store(tmp_path / "turned")) == 1
    with pytest.raises(ValueError, match="8 x 12, smaller than 12 x 8"):
        store(tmp_path / "turned", size=(12, 8))


def test_the_error_for_a_prior_larger_than_all_images_says_what_to_set(folder, store):
    with pytest.raises(ValueError, match=r"6 of 6 .* it is 24 x 30, smaller than 64 x 64; .*prior\.size.*data\.enlarge=true"):
        store(folder, size=(64, 64))
    assert len(store(folder, size=(64, 64), enlarge=True)) == 6


def test_an_exact_fit_skips_images_of_another_size(folder, store):
    save(folder / "other.png", 9, (30, 30, 3))
    found = store(folder, size=(24, 30), fit=Exact())
    assert len(found) == 6 and found.skipped[0][0] == "other.png" and "30 x 30" in found.skipped[0][1]


# Roots without images


def empty_zip(path: Path) -> Path:
    with zipfile.ZipFile(path / "none.zip", "w") as archive:
        archive.writestr("notes.txt", "no image")
    return path / "none.zip"


def broken_zip(path: Path) -> Path:
    (path / "broken.zip").write_bytes(b"PK\3\4 and then nothing")
    return path / "broken.zip"


def empty_folder(path: Path) -> Path:
    (path / "empty" / "inner.png").mkdir(parents=True)
    return path / "empty"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (empty_folder, FileNotFoundError, "no images in .*empty"),
        (lambda path: path / "nowhere", FileNotFoundError, "no folder and no zip .*nowhere"),
        (lambda path: path / "nowhere.zip", FileNotFoundError, "no folder and no zip .*nowhere.zip"),
        (empty_zip, FileNotFoundError, "no images in .*none.zip"),
        (broken_zip, ValueError, "broken.zip .*; set data.root"),
        (lambda path: save(path / "single.png"), FileNotFoundError, "no folder and no zip .*single.png"),
        (lambda path: save(path / "single.png").parent / "*.png", FileNotFoundError, r"no folder and no zip .*\*.png"),
    ],
    ids=["empty folder", "no folder", "no zip", "empty zip", "broken zip", "single file", "glob"],
)
def test_a_root_without_images_is_refused_in_one_line(make, error, message, tmp_path, store):
    with pytest.raises(error, match=message) as refused:
        store(make(tmp_path))
    assert type(refused.value) is error and "\n" not in str(refused.value)
    assert not (tmp_path / "cache").exists()


# Whole or not at all


def no_room(*args, **kwargs):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("where", [(os, "replace"), (np.lib.format, "open_memmap")], ids=["replace", "open_memmap"])
def test_a_full_disk_is_a_one_line_error_and_leaves_no_files(where, folder, tmp_path, store, monkeypatch):
    with monkeypatch.context() as full:
        full.setattr(*where, no_room)
        with pytest.raises(OSError, match=r"cannot store .*cache: No space left on device; .*data\.cache"):
            store(folder)
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]
    assert len(store(folder)) == 6


def test_without_an_index_the_array_is_decoded_again(folder, tmp_path, store, monkeypatch):
    replace = os.replace

    def full_for_the_index(source, target):
        no_room() if Path(target).suffix == ".json" else replace(source, target)

    with monkeypatch.context() as full:
        full.setattr(os, "replace", full_for_the_index)
        with pytest.raises(OSError, match=r"cannot store .*data\.cache"):
            store(folder)
    assert {path.suffix for path in (tmp_path / "cache").iterdir()} == {".lock", ".npy"}
    assert len(store(folder)) == 6


def test_a_deleted_array_is_decoded_again(folder, tmp_path, store):
    store(folder)
    next((tmp_path / "cache").glob("*.npy")).unlink()
    assert len(store(folder)) == 6


def test_disk_space_is_reserved_before_images_are_written(folder, store, monkeypatch):
    """Writing to a sparse map on a full disk would kill the process."""
    asked = []
    monkeypatch.setattr(os, "posix_fallocate", lambda descriptor, start, length: asked.append(length))
    store(folder)
    assert asked and asked[0] >= 6 * 3 * SIZE[0] * SIZE[1]


def test_compressed_members_whose_bytes_changed_are_skipped(folder, tmp_path, store):
    """For a damaged byte anywhere in the compressed stream, only that image is skipped."""
    path = zipped(folder, tmp_path / "hit.zip")
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        entry = archive.infolist()[2]
    start = entry.header_offset + 30 + len(entry.filename)
    for at in range(start, start + entry.compress_size, max(1, entry.compress_size // 12)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
        found = store(path, cache=tmp_path / f"cache{at}")
        assert entry.filename not in found.ids and len(found) == 5 and [name for name, _ in found.skipped] == [entry.filename]


def test_a_folder_and_its_zip_have_the_same_order(tmp_path, store):
    for name in ("a/b.png", "a-b.png", "a.png"):
        save(tmp_path / "images" / name)
    root = tmp_path / "images"
    assert store(root).ids == store(zipped(root, tmp_path / "same.zip")).ids == ["a-b.png", "a.png", "a/b.png"]


def test_a_file_name_need_not_be_unicode(tmp_path, store):
    (tmp_path / "images").mkdir()
    other = os.fsdecode(b"caf\xe9.png")
    save(tmp_path / "images" / "a.png").rename(tmp_path / "images" / other)
    assert store(tmp_path / "images").ids == [other]
    assert store(tmp_path / "images").ids == [other]


@pytest.mark.script
def test_a_limit_on_the_file_size_is_a_one_line_error(folder, tmp_path, store):
    """The error of the system itself, in a process of its own."""

    def limited(answer):
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400))
        try:
            store(folder)
        except OSError as error:
            answer.put(str(error))

    answer = (context := multiprocessing.get_context("fork")).SimpleQueue()
    child = context.Process(target=limited, args=(answer,))
    child.start()
    child.join(60)
    assert child.exitcode == 0 and not answer.empty()
    assert "cannot store the decoded images" in answer.get()
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


@pytest.mark.script
def test_after_a_process_is_killed_while_decoding_the_images_are_decoded_again(folder, store, monkeypatch):
    def die(*args):
        os._exit(9)

    with monkeypatch.context() as killed:
        killed.setattr(image_store, "decode_image", die)
        child = multiprocessing.get_context("fork").Process(target=store, args=(folder,))
        child.start()
        child.join(60)
    assert child.exitcode == 9
    found = store(folder)
    assert len(found) == 6
    for index, name in enumerate(found.ids):
        assert torch.equal(found.image(index), read_image(folder / name, 3, SIZE, Crop()))


def test_an_array_without_its_index_is_not_used(folder, tmp_path, store, decoded):
    """The index is written last."""
    first = store(folder)
    (index,) = (tmp_path / "cache").glob("*.json")
    index.unlink()
    assert same(store(folder), first) and len(decoded) == 12


@pytest.mark.script
def test_processes_that_start_together_decode_once(folder, tmp_path, store, monkeypatch):
    """Two processes wait for each other. Every decoded image adds one byte to a file."""
    context = multiprocessing.get_context("fork")
    together, log = context.Barrier(2), tmp_path / "decoded"

    def slowly(*args):
        with log.open("ab", buffering=0) as stream:
            stream.write(b".")
        return decode_image(*args)

    def start(answers):
        together.wait(60)
        found = store(folder)
        answers.put((found.ids, np.array(found.pixels)))

    monkeypatch.setattr(image_store, "decode_image", slowly)
    answers = context.SimpleQueue()
    children = [context.Process(target=start, args=(answers,)) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0]
    (ids, pixels), (other_ids, other_pixels) = answers.get(), answers.get()
    assert ids == other_ids == [f"{i}.png" for i in range(6)] and np.array_equal(pixels, other_pixels)
    assert len(log.read_bytes()) == 6


def test_a_store_does_not_need_its_source_files(folder, store):
    found = store(folder)
    expected = [read_image(folder / name, 3, SIZE, Crop()) for name in found.ids]
    shutil.rmtree(folder)
    assert all(torch.equal(found.image(i), x) for i, x in enumerate(expected))


def test_a_member_equals_the_image_that_pil_reads(tmp_path, store):
    """Pixel by pixel, for a zip made in memory without compression."""
    pixels = [noise(*SIZE, 3, seed=i) for i in range(3)]
    with zipfile.ZipFile(tmp_path / "memory.zip", "w") as archive:
        for i, image in enumerate(pixels):
            Image.fromarray(image).save(stream := BytesIO(), "png")
            archive.writestr(f"folder/{i}.PNG", stream.getvalue())
    found = store(tmp_path / "memory.zip")
    assert found.ids == [f"folder/{i}.PNG" for i in range(3)]
    assert np.array_equal(found.pixels, np.stack(pixels).transpose(0, 3, 1, 2))
