"""The hub, by a server on this machine that speaks its protocol: what is pushed is pulled, kept, checked, and found without a network."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tiny_prior import tiny_prior

import diffusion_priors as dp
from diffusion_priors.checkpoints.diffusers_export import export_diffusers
from diffusion_priors.conf import PROJECT
from diffusion_priors.training.export import Export

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FACES64 = PROJECT / "diffusion" / "weights" / "faces64"


class Hub(BaseHTTPRequestHandler):
    """The few addresses that huggingface_hub asks for.

    `files` are those of the repository me/prior, `pipeline` those of me/pipeline; `asked` is what came in.
    """

    files: dict[str, bytes]
    pipeline: dict[str, bytes]
    asked: list[str]

    def log_message(self, *args) -> None:
        pass

    def answer(self, content: bytes, kind: str = "application/json", **headers: str) -> None:
        self.send_response(200)
        for key, value in {"Content-Type": kind, "Content-Length": str(len(content)), **headers}.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_GET(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        path = self.path.split("?")[0]
        repository = "me/pipeline" if "/me/pipeline" in path else "me/prior"
        files = self.pipeline if repository == "me/pipeline" else self.files
        if path.startswith(f"/api/models/{repository}/tree/"):
            tree = [{"type": "file", "path": name, "size": len(data), "oid": COMMIT} for name, data in files.items()]
            return self.answer(json.dumps(tree).encode())
        if path.startswith(f"/api/models/{repository}"):
            siblings = [{"rfilename": name} for name in files]
            return self.answer(json.dumps({"id": repository, "sha": COMMIT, "siblings": siblings}).encode())
        name = path.rpartition(f"/resolve/{COMMIT}/")[2] if COMMIT in path else path.rpartition("/resolve/main/")[2]
        if not path.startswith(f"/{repository}/resolve/") or name not in files:
            self.send_error(404)
            return None
        tag = f'"{hashlib.sha256(files[name]).hexdigest()}"'
        return self.answer(files[name], "application/octet-stream", X_Repo_Commit=COMMIT, ETag=tag)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self.asked.append(f"POST {self.path}")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.endswith("/repos/create"):
            return self.answer(json.dumps({"url": f"{self.base}/me/prior", "name": "me/prior", "id": "1"}).encode())
        if "/preupload/" in self.path:
            wanted = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]]
            return self.answer(json.dumps({"files": wanted}).encode())
        if "/commit/" in self.path:
            for line in map(json.loads, body.decode().splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            done = {"commitUrl": f"{self.base}/me/prior/commit/{COMMIT}", "commitOid": COMMIT, "success": True}
            return self.answer(json.dumps(done).encode())
        if self.path.endswith("/validate-yaml"):
            return self.answer(b'{"errors": [], "warnings": []}')
        return self.send_error(404)

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def hub():
    pytest.importorskip("huggingface_hub")
    handler = type("OneHub", (Hub,), {"files": {}, "pipeline": {}, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield handler, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def ran(address: str, home: Path, *words: str, code: int = 0) -> str:
    """What the command printed, on standard error where it was refused."""
    return run(address, home, "-m", "diffusion_priors.checkpoints", *words, code=code)


def run(address: str, home: Path, *words: str, code: int = 0) -> str:
    """The same of Python with any arguments."""
    environment = os.environ | {
        "HF_ENDPOINT": address,
        "HF_HOME": str(home),
        "HF_TOKEN": "secret-token",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    done = subprocess.run([sys.executable, *words], cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stderr
    return (done.stderr if code else done.stdout).strip()


@pytest.mark.script
def test_a_prior_is_pushed_pulled_and_found_without_the_hub(hub, tmp_path):
    handler, address = hub
    folder, home = tmp_path / "prior", tmp_path / "home"
    folder.mkdir()
    shutil.copy(FACES64 / "card.yaml", folder)
    (folder / "weights.safetensors").write_bytes(b"weights")
    (folder / "code.py").write_text("print(1)")
    assert address in ran(address, home, "push", str(folder), "me/prior")
    assert set(handler.files) == {"card.yaml", "weights.safetensors"}
    handler.files["harm.py"] = b"print(1)"
    pulled = Path(ran(address, home, "pull", "me/prior"))
    assert {path.name for path in pulled.iterdir()} == {"card.yaml", "weights.safetensors"}
    assert (pulled / "card.yaml").read_bytes() == (FACES64 / "card.yaml").read_bytes()
    gone = "http://127.0.0.1:9"
    assert Path(ran(gone, home, "pull", "me/prior")) == pulled
    assert "cannot fetch me/other from the hub" in ran(gone, home, "pull", "me/other", code=2)


LOAD = """
import sys
import diffusion_priors as dp
from diffusion_priors.conf.command import prior_from_file

for name in sys.argv[1:]:
    try:
        print(dp.load_prior(name).fingerprint(), prior_from_file(f"prior={name}", hub=True)[0])
    except Exception as error:
        print(type(error).__name__, error)
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.script
def test_a_prior_or_a_pipeline_is_loaded_by_its_name_on_the_hub(hub, tmp_path):
    """In Python and by the commands: fetched, then found without the hub. What is nowhere, and what was damaged, is refused."""
    handler, address = hub
    home, prior = tmp_path / "home", tiny_prior({"min_group_channels": 1, "max_groups": 8})
    Export()(tmp_path / "prior", prior, {}, lambda prior: {})
    export_diffusers(prior, tmp_path / "pipeline")
    handler.files.update(contents(tmp_path / "prior"))
    handler.pipeline.update(contents(tmp_path / "pipeline"))
    options = {"prior": "folder", "pipeline": "diffusers"}
    local = [f"{dp.load_prior(tmp_path / name).fingerprint()} prior={option}" for name, option in options.items()]
    assert run(address, home, "-c", LOAD, "me/prior", "me/pipeline").splitlines() == local
    (weights,) = home.rglob("weights.safetensors")
    weights.resolve().write_bytes(b"damaged")
    found, damaged, nowhere = run("http://127.0.0.1:9", home, "-c", LOAD, "me/pipeline", "me/prior", "me/other").splitlines()
    assert found == local[1]
    assert damaged.startswith("ValueError") and "weights.safetensors is damaged: its SHA-256 is not " in damaged
    assert nowhere.startswith("OSError no file or folder at 'me/other', and cannot fetch me/other from the hub: ")
    assert nowhere.endswith("; set prior to a path, or fetch it where there is a network")


@pytest.mark.script
def test_a_file_is_fetched_once_and_its_hash_is_checked(hub, tmp_path):
    handler, address = hub
    handler.files["diffusion_ffhq_10m.pt"] = b"weights"
    words = ("pull", "me/prior", "diffusion_ffhq_10m.pt")
    path = Path(ran(address, tmp_path, *words))
    assert path.read_bytes() == b"weights"
    fetched = sum("GET /me/prior/resolve" in line for line in handler.asked)
    assert Path(ran(address, tmp_path, *words)) == path
    assert sum("GET /me/prior/resolve" in line for line in handler.asked) == fetched == 1
    path.resolve().write_bytes(b"damaged")
    assert "is damaged: its SHA-256 is not " in ran(address, tmp_path, *words, code=2)


def test_what_is_no_prior_is_not_pushed(tmp_path):
    from diffusion_priors.diffusion.priors.hub import push

    with pytest.raises(ValueError, match=r"holds no prior: neither card\.yaml nor model_index\.json"):
        push(tmp_path, "me/prior")
    (tmp_path / "card.yaml").touch()
    with pytest.raises(ValueError, match="is no name on the hub; write owner/name"):
        push(tmp_path, "prior")
