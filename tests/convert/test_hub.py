"""Hub ids against a hub of our own on this machine; client, cache and resuming are huggingface_hub's real ones."""

import hashlib
import http.server
import json
import re
import shutil
import threading
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from audioldm.convert.hub import fetch_files, fetch_model
from audioldm.convert.reference import open_part
from audioldm.errors import AudioLDMError
from audioldm.pipeline.audioldm import AudioLDM

REPO = "someone/toy"
COMMITS = {"old": "a" * 40, "new": "b" * 40}


class Hub(http.server.ThreadingHTTPServer):
    """Serves ``root`` as every commit of REPO; may cut a large file in the middle once."""

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.root, self.main, self.asked, self.cut = root, "old", [], None
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *words) -> None: ...

    def send(self, status: int, content: bytes, **headers) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": len(content), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_GET(self) -> None:
        hub = self.server
        hub.asked.append((self.command, self.path, self.headers.get("Range")))
        if match := re.fullmatch(rf"/api/models/{REPO}(?:/revision/([\w%]+))?(?:\?.*)?", self.path):
            if match[1] not in (None, "main", *COMMITS.values()):
                self.send(404, b"", X_Error_Code="RevisionNotFound")
                return
            commit = self.commit(match[1] or "main")
            names = [p.relative_to(hub.root).as_posix() for p in hub.root.rglob("*") if p.is_file()]
            content = {"id": REPO, "sha": commit, "siblings": [{"rfilename": n} for n in sorted(names)]}
            self.send(200, json.dumps(content).encode(), Content_Type="application/json")
        elif match := re.fullmatch(rf"/api/models/{REPO}/tree/(\w+)\?.*", self.path):
            files = [
                (p.relative_to(hub.root).as_posix(), p) for p in sorted(hub.root.rglob("*")) if p.is_file()
            ]
            content = [
                {"type": "file", "path": name, "size": path.stat().st_size, "oid": "c" * 40}
                for name, path in files
            ]
            self.send(200, json.dumps(content).encode(), Content_Type="application/json")
        elif match := re.fullmatch(rf"/{REPO}/resolve/(\w+)/(.+)", self.path):
            path = hub.root / match[2]
            if not path.is_file():
                self.send(404, b"", X_Error_Code="EntryNotFound")
                return
            self.file(path.read_bytes(), self.commit(match[1]), match[2])
        else:
            self.send(404, b"", X_Error_Code="RepoNotFound")

    def do_HEAD(self) -> None:
        self.do_GET()

    def commit(self, revision: str) -> str:
        return COMMITS[self.server.main] if revision == "main" else revision

    def file(self, content: bytes, commit: str, name: str) -> None:
        headers = {
            "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "X_Repo_Commit": commit,
            "Accept_Ranges": "bytes",
        }
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start = int(asked[1]) if asked else 0
        if asked:
            headers["Content_Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if self.command == "GET" and self.server.cut == name and not start:
            self.server.cut = None
            self.send_response(200)
            for key, value in {"Content-Length": len(content), **headers}.items():
                self.send_header(key.replace("_", "-"), str(value))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
            return
        self.send(206 if asked else 200, content[start:], **headers)


def point(monkeypatch, address: str) -> None:
    """Let huggingface_hub look for its hub at ``address``."""
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def hub(pipe, tmp_path, monkeypatch):
    """The toy model as a converted folder on a hub, with files that nobody needs beside."""
    folder = tmp_path / "remote"
    pipe.save_pretrained(folder)
    (folder / "audioldm.json").unlink()
    shutil.rmtree(folder / "audio_encoder")
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"the same in an old format")
    (folder / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"half")
    (folder / "README.md").write_text("card")
    server = Hub(folder)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)  # so that half of a small file is kept, too
    point(monkeypatch, server.address)
    yield server
    server.shutdown()


def refused(match: str):
    return pytest.raises(AudioLDMError, match=match)


def test_a_hub_id_is_fetched_once_kept_at_its_commit_and_opened_offline(hub, monkeypatch):
    pipe = AudioLDM.from_pretrained(REPO)
    assert pipe.name == pipe.about["source"] == REPO and pipe.about["revision"] == COMMITS["old"]
    assert tuple(pipe.unet.config.attention_head_dim) == (1, 2)
    fetched = {path.split("/", 5)[-1] for _, path, _ in hub.asked if "/resolve/" in path}
    assert "unet/diffusion_pytorch_model.safetensors" in fetched
    assert not any(name.endswith((".bin", ".fp16.safetensors", ".md")) for name in fetched), "not needed"

    hub.asked.clear()
    hub.main = "new"
    assert fetch_model(REPO).revision == COMMITS["old"]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch_model(REPO).revision == COMMITS["old"]
    assert not hub.asked, "the commit in the cache is kept, without asking"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert fetch_model(f"{REPO}@main").revision == COMMITS["new"]
    assert fetch_model(f"{REPO}@{COMMITS['old']}").revision == COMMITS["old"]


def test_an_interrupted_download_is_resumed_where_it_stopped(hub):
    name = "unet/diffusion_pytorch_model.safetensors"
    size, hub.cut = (hub.root / name).stat().st_size, name
    snapshot = fetch_model(REPO)  # the client tries again by itself
    ranges = [part for _, path, part in hub.asked if path.endswith(name) and part]
    starts = [int(part.removeprefix("bytes=").removesuffix("-")) for part in ranges]
    assert starts and all(size // 2 - 1024 <= start <= size // 2 for start in starts), ranges
    assert (snapshot.folder / name).read_bytes() == (hub.root / name).read_bytes()


def test_a_cache_with_a_hole_is_filled(hub):
    snapshot = fetch_model(REPO)
    (snapshot.folder / "vae/diffusion_pytorch_model.safetensors").unlink()
    hub.main = "new"
    assert fetch_model(REPO) == snapshot, "by the same commit"
    assert (snapshot.folder / "vae/diffusion_pytorch_model.safetensors").is_file()


def test_no_network_names_the_files_and_the_place(hub, monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with refused(
        rf"{REPO} is not in the cache .*/cache, and it cannot be fetched \(HF_HUB_OFFLINE is set\)"
    ) as error:
        fetch_model(REPO)
    assert error.value.code == 1
    assert "unet, vae, vocoder, text_encoder" in str(error.value) and "name that folder" in str(error.value)
    with refused(rf"copy vocab.json, merges.txt from .*/tree/main into {tmp_path}/tokenizer"):
        fetch_files(REPO, [], what="vocab.json, merges.txt", instead=f"into {tmp_path}/tokenizer")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    point(monkeypatch, "http://127.0.0.1:9")
    with refused("cannot be fetched .*Run again to resume, or copy model_index.json, "):
        fetch_model(REPO)


def test_what_the_hub_has_not_is_told(hub):
    with refused("someone/nothing has no such model or needs a login"):
        fetch_model("someone/nothing")
    (hub.root / "model_index.json").unlink()
    with refused("someone/toy has no model_index.json"):
        fetch_model(REPO)


def test_audioldm_2_and_tango_are_fetched_with_all_their_parts(hub, pipe, tmp_path, monkeypatch):
    import relatives

    hub.root = tmp_path / "two"
    relatives.stock_two(relatives.two(pipe)).save_pretrained(hub.root)
    two = AudioLDM.from_pretrained(REPO)
    assert two.token_encoder.t5.dim == 40 and two.about["revision"] == COMMITS["old"]
    hub.main, hub.root = "new", relatives.write_tango(relatives.tango(pipe), tmp_path / "remote" / "tango")
    tango = AudioLDM.from_pretrained(f"{REPO}@main", tokenizer=hub.root / "tokenizer_2")
    fetched = {
        path.rsplit("/", 1)[-1] for _, path, _ in hub.asked if COMMITS["new"] in path or "main" in path
    }
    assert {"pytorch_model_main.bin", "pytorch_model_vae.bin", "vae_config.json"} <= fetched
    assert "pytorch_model_stft.bin" not in fetched and tango.prediction == "v"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.asked.clear()
    assert fetch_model(f"{REPO}@{COMMITS['new']}").folder == fetch_model(f"{REPO}@{COMMITS['new']}").folder
    assert fetch_model(f"{REPO}@{COMMITS['old']}").revision == COMMITS["old"] and not hub.asked


def test_a_wrong_revision_and_an_offline_one_are_one_line(hub, monkeypatch):
    with refused(f"{REPO} has no revision 'nonsense'"):
        fetch_model(f"{REPO}@nonsense")
    with refused(f"{REPO} has no revision 'nonsense'"):
        open_part(f"{REPO}@nonsense", "vae")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with refused(rf"{REPO}@nonsense is not in the cache .*\(HF_HUB_OFFLINE is set\)") as error:
        open_part(f"{REPO}@nonsense", "vae")
    assert "\n" not in str(error.value)


def test_only_the_files_of_a_part_are_fetched_and_kept(hub, pipe, monkeypatch):
    vae = open_part(REPO, "vae")
    assert torch.equal(vae.encoder.conv_in.weight, pipe.vae.encoder.conv_in.weight)
    fetched = {path.split("/", 5)[-1] for _, path, _ in hub.asked if "/resolve/" in path}
    assert fetched == {"vae/config.json", "vae/diffusion_pytorch_model.safetensors"}
    clap = open_part(REPO, "clap")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.asked.clear()
    for kind, module in (("vae", vae), ("clap", clap)):
        again = open_part(f"{REPO}@{COMMITS['old']}", kind)
        assert all(torch.equal(value, again.state_dict()[key]) for key, value in module.state_dict().items())
    assert not hub.asked
    with refused("HF_HUB_OFFLINE.*vocoder"):
        open_part(REPO, "vocoder")


def test_a_repository_that_is_a_clap(hub, pipe, vocabulary, tmp_path):
    from transformers import ClapConfig, ClapModel

    from audioldm.nets.folder import save_component

    clap, hub.root = pipe.clap, tmp_path / "clap"
    towers = {
        "text_config": clap.text_encoder.config.to_dict(),
        "audio_config": clap.audio_encoder.config.to_dict(),
    }
    model = ClapModel(ClapConfig(**towers, projection_dim=clap.dim))
    own = {**clap.text_encoder.state_dict(), **clap.audio_encoder.state_dict()}
    model.load_state_dict({**model.state_dict(), **own})
    save_component(model, hub.root)
    clap.extractor.save_pretrained(hub.root)
    shutil.copytree(vocabulary, hub.root, dirs_exist_ok=True)
    (hub.root / "README.md").write_text("not needed")
    again = open_part(REPO, "clap")
    with torch.no_grad():
        assert torch.equal(again.embed_text(["a dog"]), clap.embed_text(["a dog"]))
    assert not any(path.endswith("README.md") for _, path, _ in hub.asked)
