"""Checkpoints: the order of search, complete downloads, strict loading, and no execution of pickled code."""

import hashlib
import io
import os
import pickle
import socket
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from diffusion_priors.diffusion.checkpoints import Checkpoint, load_strictly
from diffusion_priors.diffusion.networks.unet import UNet
from diffusion_priors.runs.weights import read_state_dict

TINY = {"image_size": 8, "num_channels": 32, "channel_mult": (1,), "attention_resolutions": (), "num_head_channels": 32}


@pytest.fixture
def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.SiLU(), nn.Linear(4, 2))


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    """Other weights for `network`, each exact in half precision."""
    shapes = {"0.weight": (4, 3), "0.bias": (4,), "2.weight": (2, 4), "2.bias": (2,)}
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randint(-9, 10, shape, generator=generator) / 8.0 for name, shape in shapes.items()}


def assert_loaded(network: nn.Module, state: dict[str, torch.Tensor]) -> None:
    found = network.state_dict()
    assert found.keys() == state.keys()
    for name, tensor in found.items():
        assert tensor.dtype == torch.float32 and torch.equal(tensor, state[name].float())


# Valid files


@pytest.mark.parametrize("name", ["weights.pt", "weights.pth", "weights.ckpt", "weights.safetensors"])
def test_every_tensor_arrives(name, network, state, tmp_path):
    path = tmp_path / name
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    Checkpoint(path=str(path)).load_into(network)
    assert_loaded(network, state)


def test_the_file_format_before_zip_is_read(network, state, tmp_path):
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    Checkpoint(path=str(tmp_path / "old.pt")).load_into(network)
    assert_loaded(network, state)


@pytest.mark.parametrize("name", ["half.pt", "half.safetensors"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_cast_to_the_network_s(name, dtype, network, state, tmp_path):
    path, cast = tmp_path / name, {key: tensor.to(dtype) for key, tensor in state.items()}
    save_file(cast, path) if path.suffix == ".safetensors" else torch.save(cast, path)
    Checkpoint(path=str(path)).load_into(network)
    assert_loaded(network, state)


def test_a_state_dict_inside_a_lightning_checkpoint_is_unwrapped(network, state, tmp_path):
    torch.save({"epoch": 3, "state_dict": state, "hyper_parameters": {"lr": 0.1}}, tmp_path / "last.ckpt")
    Checkpoint(path=str(tmp_path / "last.ckpt")).load_into(network)
    assert_loaded(network, state)


def test_reading_does_not_touch_what_was_saved(state, tmp_path):
    torch.save(state, tmp_path / "weights.pt")
    found = read_state_dict(tmp_path / "weights.pt")
    assert all(torch.equal(found[name], state[name]) for name in state)


@pytest.mark.parametrize("averaged", [True, False])
def test_key_prefix_and_ignore_say_which_part_of_a_file_is_the_network(averaged, network, state, tmp_path):
    other = {name: tensor + 1.0 for name, tensor in state.items()}
    entry = {f"net.{name}": tensor for name, tensor in state.items()} | {"net.step": torch.ones(1), "loss": torch.ones(1)}
    torch.save({"model": other, "ema": entry} if averaged else {"ema": entry, "model": other}, tmp_path / "w.pt")
    where = Checkpoint(path=str(tmp_path / "w.pt"), key="ema", prefix="net.", ignore=["step"])
    where.load_into(network)
    assert_loaded(network, state)


def test_a_tensor_to_ignore_is_not_ignored_where_the_network_has_it(network, state):
    load_strictly(network, state | {"0.extra": torch.ones(1)}, Path("w.pt"), ignore=["0."])
    assert_loaded(network, state)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_refused_file_changes_no_weight(bad, network, state):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(ValueError, match=r"w\.pt: 1 of the 2 values of 2\.bias are not finite"):
        load_strictly(network, state | {"2.bias": torch.tensor([0.0, bad])}, Path("w.pt"))
    assert_loaded(network, before)


def test_whole_numbers_stay_whole_numbers():
    """A counter of batch normalisation is one; a weight is none."""
    norm = nn.BatchNorm2d(2)
    state = {name: tensor + 1 for name, tensor in norm.state_dict().items()}
    load_strictly(norm, state, Path("w.pt"))
    assert norm.num_batches_tracked.dtype == torch.int64 and norm.num_batches_tracked == 1
    with pytest.raises(ValueError, match=r"num_batches_tracked is float32, and the network's is int64"):
        load_strictly(norm, state | {"num_batches_tracked": torch.tensor(1.0)}, Path("w.pt"))


# Invalid files


def saved(content) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("kept", [0, 1, 3, 100, 0.25, 0.5, 0.75, 0.95, -200, -20, -1])
@pytest.mark.parametrize("side", [64, 320])
def test_a_truncated_file_is_refused_by_name(side, kept, tmp_path):
    """Cut after a fraction of the file (float) or after so many bytes (int; a negative one counts from the end)."""
    whole = saved({"weight": torch.randn(side, side)})
    path = tmp_path / "cut.pt"
    path.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    with pytest.raises(ValueError, match=r"cut\.pt is damaged or no checkpoint"):
        read_state_dict(path)


@pytest.mark.parametrize("kept", [0, 4, 20, 0.5, -1])
def test_a_truncated_safetensors_file_is_refused_by_name(kept, state, tmp_path):
    path = tmp_path / "cut.safetensors"
    save_file(state, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    with pytest.raises(ValueError, match=r"cut\.safetensors is damaged or no checkpoint"):
        read_state_dict(path)


@pytest.mark.parametrize(
    "content", [b"<!DOCTYPE html><html><title>Sign in</title></html>", b"Not Found", bytes(2000)], ids=["html", "text", "zeros"]
)
@pytest.mark.parametrize("name", ["page.pt", "page.safetensors"])
def test_a_web_page_in_place_of_the_file_is_no_checkpoint(name, content, tmp_path):
    """Some download links save a web page. It holds no pickled code, so the message must ask for a new download."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match="is damaged or no checkpoint"):
        read_state_dict(tmp_path / name)


class Mischief:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
@pytest.mark.parametrize("write", [saved, pickle.dumps], ids=["torch", "pickle"])
@pytest.mark.parametrize("wrap", [lambda it: it, lambda it: {"weight": torch.ones(2), "extra": it}], ids=["bare", "inside"])
def test_pickled_code_is_refused_and_not_run(write, wrap, tmp_path):
    (tmp_path / "evil.pt").write_bytes(write(wrap(Mischief(tmp_path / "made"))))
    with pytest.raises(ValueError, match=r"evil\.pt holds pickled code .* none of it was run"):
        read_state_dict(tmp_path / "evil.pt")
    assert not (tmp_path / "made").exists()


def test_the_code_of_the_test_above_would_run(tmp_path):
    torch.load(io.BytesIO(saved(Mischief(tmp_path / "made"))), weights_only=False)
    assert (tmp_path / "made").is_dir()


def test_a_pickled_module_is_refused(network, tmp_path):
    torch.save(network, tmp_path / "module.pt")
    with pytest.raises(ValueError, match=r"module\.pt holds pickled code"):
        read_state_dict(tmp_path / "module.pt")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ([torch.ones(2)], "list"),
        (torch.ones(2), "Tensor"),
        ({}, "dict"),
        ({"weight": torch.ones(2), "step": 3}, "dict"),
        ({"model": {"weight": torch.ones(2)}}, "dict"),
        ({"state_dict": {"step": 3}}, "dict"),
    ],
    ids=["list", "tensor", "empty", "mixed", "nested", "no tensors"],
)
def test_other_content_than_a_state_dict_is_refused(content, kind, tmp_path):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=rf"other\.pt is not a state dict of tensors but a {kind}"):
        read_state_dict(tmp_path / "other.pt")


# Tensors that do not fit


def test_a_wrong_shape_is_named_with_the_expected_and_the_found_one(network, state):
    state["2.weight"] = torch.ones(2, 5)
    with pytest.raises(ValueError, match=r"file does not fit the network: 2\.weight should be \(2, 4\) and is \(2, 5\)"):
        load_strictly(network, state, Path("file"))


def test_a_shape_that_could_be_broadcast_is_refused(network, state):
    state["2.bias"] = torch.ones(1)
    with pytest.raises(ValueError, match=r"2\.bias should be \(2,\) and is \(1,\)"):
        load_strictly(network, state, Path("file"))


def test_missing_and_unexpected_tensors_are_counted_and_named(network, state):
    del state["0.bias"], state["2.bias"]
    state |= {"ema.weight": torch.ones(1)}
    with pytest.raises(ValueError, match=r"of its 4 tensors 2 missing, first 0\.bias; 1 left over, first ema\.weight"):
        load_strictly(network, state, Path("file"))


@pytest.mark.parametrize("change", ["shape", "missing", "extra"])
def test_a_refused_file_does_not_change_the_network(change, network, state):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    if change == "missing":
        del state["2.bias"]
    else:
        state |= {"2.bias" if change == "shape" else "3.bias": torch.ones(7)}
    with pytest.raises(ValueError, match="file does not fit the network"):
        load_strictly(network, state, Path("file"))
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_a_class_conditional_checkpoint_is_refused_with_the_reason():
    network = UNet(**TINY)
    state = network.state_dict() | {"label_emb.weight": torch.zeros(1000, 128)}
    with pytest.raises(ValueError, match=r"class-conditional .*label_emb\.weight.* use an unconditional checkpoint"):
        load_strictly(network, state, Path("file"))


def test_a_super_resolution_checkpoint_is_refused():
    """guided-diffusion's upsamplers get the small image as three more channels."""
    network = UNet(**TINY)
    state = network.state_dict() | {"input_blocks.0.0.weight": torch.zeros(32, 6, 3, 3)}
    with pytest.raises(ValueError, match=r"input_blocks\.0\.0\.weight should be \(32, 3, 3, 3\) and is \(32, 6, 3, 3\)"):
        load_strictly(network, state, Path("file"))


# The search for the file


class Serving(BaseHTTPRequestHandler):
    """Serves the bytes in `files` and appends each requested path to `asked`."""

    def __init__(self, files: dict[str, bytes], asked: list[str], *args) -> None:
        self.files, self.asked = files, asked
        super().__init__(*args)

    def do_GET(self):
        self.asked.append(self.path)
        content = self.files.get(self.path.removeprefix("/"))
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    """(address, files, requested paths) of a server on this machine."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    files, asked = {}, []
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Serving, files, asked)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", files, asked
        server.shutdown()
        thread.join(timeout=10)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_the_path_comes_before_the_cache_and_the_cache_before_the_url(server, tmp_path):
    address, files, asked = server
    cache, given = tmp_path / "cache", tmp_path / "given.pt"
    files["w.pt"] = b"from the server"
    source = {"name": "w.pt", "cache": str(cache), "url": f"{address}/w.pt", "sha256": sha256(files["w.pt"])}
    given.write_bytes(b"from the path")

    assert Checkpoint(path=str(given), **source).locate() == given
    assert not cache.exists() and not asked

    fetched = Checkpoint(**source).locate()
    assert fetched == cache / "w.pt" and fetched.read_bytes() == b"from the server"
    assert [path.name for path in cache.iterdir()] == ["w.pt"]  # and no partial file

    assert Checkpoint(**source).locate() == fetched
    assert asked == ["/w.pt"]  # once


def test_a_fetched_checkpoint_loads(server, network, state, tmp_path):
    address, files, _ = server
    files["w.pt"] = saved(state)
    Checkpoint(name="w.pt", cache=str(tmp_path), url=f"{address}/w.pt", sha256=sha256(files["w.pt"])).load_into(network)
    assert_loaded(network, state)


def test_a_wrong_hash_leaves_no_file(server, tmp_path):
    address, files, _ = server
    files["w.pt"] = b"something else"
    checkpoint = Checkpoint(name="w.pt", cache=str(tmp_path), url=f"{address}/w.pt", sha256=sha256(b"the expected file"))
    with pytest.raises(ValueError, match=r"w\.pt is not the file expected: .*check the url and the sha256"):
        checkpoint.locate()
    assert list(tmp_path.iterdir()) == []


def test_a_missing_page_is_an_os_error_and_leaves_no_file(server, tmp_path):
    address, *_ = server
    with pytest.raises(OSError, match=r"cannot fetch http://127\.0\.0\.1:\d+/none\.pt: .*404"):
        Checkpoint(name="none.pt", cache=str(tmp_path), url=f"{address}/none.pt", sha256="0" * 64).locate()
    assert list(tmp_path.iterdir()) == []


def test_an_unreachable_server_is_an_os_error_and_leaves_no_file(tmp_path, monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        url = f"http://127.0.0.1:{free.getsockname()[1]}/w.pt"
        with pytest.raises(OSError, match=r"cannot fetch http://127\.0\.0\.1"):
            Checkpoint(name="w.pt", cache=str(tmp_path), url=url, sha256="0" * 64).locate()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("known", [{"name": "w.pt"}, {"sha256": "0" * 64}, {}], ids=["no hash", "no name", "neither"])
def test_a_url_without_name_and_hash_is_refused(known):
    with pytest.raises(ValueError, match="needs its file name and sha256"):
        Checkpoint(url="http://127.0.0.1:9/w.pt", **known)


@pytest.mark.parametrize("known", [{"path": "absent/w.pt"}, {"name": "w.pt"}, {}], ids=["path", "name", "nothing"])
def test_the_message_for_a_missing_file_says_where_to_get_it(known, tmp_path):
    checkpoint = Checkpoint(**known, cache=str(tmp_path), obtain="ask the librarian")
    with pytest.raises(FileNotFoundError, match=r"; ask the librarian$") as caught:
        checkpoint.locate()
    assert all(str(value) in str(caught.value) for value in known.values())


def test_a_missing_path_is_not_replaced_by_the_cache(tmp_path):
    """A user who names a file wants that file."""
    (tmp_path / "w.pt").write_bytes(b"cached")
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at absent\.pt"):
        Checkpoint(path="absent.pt", name="w.pt", cache=str(tmp_path)).locate()


def test_the_default_cache_is_that_of_torch_hub(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "w.pt").write_bytes(b"cached")
    assert Checkpoint(name="w.pt").locate() == folder / "w.pt"
