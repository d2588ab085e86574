"""Every number that a recipe or a command takes has its range, and a dry run refuses what lies outside of it."""

import importlib
import pkgutil
from typing import get_args

import pytest

import audioldm.app.page
import audioldm.cli
from audioldm.cli.options import Group, leaves

for module in pkgutil.iter_modules(audioldm.cli.__path__, "audioldm.cli."):
    importlib.import_module(module.name)


def below(kind):
    """Every subclass."""
    return {one for direct in kind.__subclasses__() for one in {direct, *below(direct)}}


def kinds(hint):
    return {hint, *(kind for part in get_args(hint) for kind in kinds(part))}


def test_every_number_of_a_command_has_its_range():
    options = {
        f"{group.__name__}.{leaf.name}": leaf
        for group in below(Group)
        if group.__module__.startswith("audioldm.")
        for leaf in leaves(group)
        if kinds(leaf.hint) & {int, float}
    }
    assert len(options) > 60
    assert sorted(name for name, leaf in options.items() if leaf.within is None) == []


@pytest.mark.parametrize(
    "word",
    [
        "batches=0", "batch_size=0", "task.lr=nan", "seed=-1", "seconds=inf", "val_every=0", "trainer.max_epochs=0",
        "trainer.max_epochs=-2", "trainer.max_epochs=1.5", "+trainer.max_steps=0", "+trainer.limit_train_batches=0",
        "+trainer.limit_train_batches=-1", "+trainer.min_epochs=0",
    ],
)  # fmt: skip
def test_a_training_refuses_numbers_out_of_range(command, capsys, word):
    assert command("train", "tiny/vae", word, "--cfg", "job") == 2
    assert capsys.readouterr().err.startswith(f"audioldm: {word.partition('=')[0].lstrip('+')}=")


def test_a_training_takes_what_is_in_range_and_none_of_no_batch_is_a_success(
    command, capsys, monkeypatch, tmp_path
):
    for word in ("trainer.max_epochs=-1", "trainer.max_epochs=1", "+trainer.max_steps=7"):
        assert command("train", "tiny/vae", word, "--cfg", "job") == 0
    monkeypatch.chdir(tmp_path)
    assert command("train", "tiny/vae", "+trainer.max_time='00:00:00:00'", "batches=2") == 2
    assert "Not one batch was trained" in capsys.readouterr().err


def test_a_warning_is_one_line(command, capsys, tmp_path):
    (tmp_path / "prompts.csv").write_bytes("prompt\ncaf\xe9\n".encode("cp1252"))
    assert command("generate", "--prompts", tmp_path / "prompts.csv", "-o", tmp_path / "o", "--dry-run") == 0
    [line] = [line for line in capsys.readouterr().err.splitlines() if "Windows-1252" in line]
    assert line.startswith("audioldm: warning: ") and "prompts.csv" in line
