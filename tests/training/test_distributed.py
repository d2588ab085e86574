"""Two processes over gloo see what one sees: the same rows once a pass, and the same gradients."""

import multiprocessing
import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.test_kill import make_cache

BASE = [
    "batches=1",
    "val_every=1",
    "threads=1",
    "seconds=0.32",
    "+trainer.limit_val_batches=1",
    "callbacks.preview=null",
]
CPUS = ["trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.devices=2"]
DDP, FSDP = ["trainer=ddp", *CPUS], ["trainer=fsdp", *CPUS]
SCRIPT = Path(__file__).with_name("one_process.py")
# by its path: pytest alone imports these modules by name
CALL = "import runpy; runpy.run_path(script)['train'](*call)"
KINDS = {
    "vae": ["tiny/vae", "task.adversarial_start=0", "task.vae.channels=[8,8]", "task.discriminator.width=4"],
    "vocoder": [
        "tiny/vocoder", "task.adversarial_start=0", "task.vocoder.channels=32", "task.vocoder.kernels=[3]",
        "task.vocoder.dilations=[[1]]", "task.discriminator.periods=[2]", "task.discriminator.resolutions=[512]",
    ],
    "clap": ["tiny/clap"],
    "ldm": ["tiny/ldm", "callbacks.listen=null", "callbacks.ema.decay=0.9"],
}  # fmt: skip


def run(kind: str, tmp_path: Path, world: int, *more: str) -> list[dict]:
    """The notes of every process; four clips a batch in all."""
    name, *parts = KINDS[kind]
    data = [f"data.folder={tmp_path}/data"] if kind == "ldm" else []
    path = tmp_path / f"note{world}"
    settings = [*parts, *BASE, *data, f"batch_size={4 // world}", f"run_dir={tmp_path}/run{world}", *more]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # from a server that has run no backward pass: what autograd started in this process a fork would not have
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["audioldm.recipes", "lightning"])
    places = [None] if world == 1 else [(rank, world, port) for rank in range(world)]
    calls = [{"script": str(SCRIPT), "call": (name, settings, path, place)} for place in places]
    processes = [server.Process(target=exec, args=(CALL, names)) for names in calls]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0] * world
    return [torch.load(f"{path}.{rank}", weights_only=True) for rank in range(world)]


def compare(alone: dict, parts: list[dict]) -> None:
    assert alone["gradients"].keys() == parts[0]["gradients"].keys()
    for key, want in alone["gradients"].items():
        for part in parts:
            assert float((part["gradients"][key] - want).abs().max()) < 1e-6, key


@pytest.fixture(scope="module", params=["vae", "vocoder", "clap", "ldm"])
def single(request, tmp_path_factory):
    """(kind, folder, note) of a run of one process."""
    folder = tmp_path_factory.mktemp(request.param)
    make_cache(folder / "data")
    return request.param, folder, run(request.param, folder, 1)[0]


def test_gradients_equal_those_of_one_process(single):
    kind, folder, alone = single
    parts = run(kind, folder, 2, *DDP)
    assert sorted(map(str, parts[0]["rows"] + parts[1]["rows"])) == sorted(map(str, alone["rows"]))
    compare(alone, parts)


@pytest.mark.parametrize("single", ["vae", "ldm"], indirect=True)
def test_split_nets_have_the_gradients_of_one_process_and_export_whole(single):
    kind, folder, alone = single
    compare(alone, run(kind, folder, 2, *FSDP, f"run_dir={folder}/split"))
    one, two = (next((folder / name / "model").rglob("*.safetensors")) for name in ("run1", "split"))
    one, two = load_file(one), load_file(two)
    assert one.keys() == two.keys()
    for key, value in one.items():  # after one step of Adam; exported in float32
        assert torch.allclose(value.float(), two[key].float(), atol=1e-6), key


def test_each_row_once_a_pass(tmp_path):
    make_cache(tmp_path / "data", windows=8)
    parts = run("ldm", tmp_path, 2, *DDP, "batches=2")
    rows = parts[0]["rows"] + parts[1]["rows"]
    assert len(rows) == len(set(rows)) == 8
