"""The small CLAP's teachers: a table on disk, and words that no clip carries."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as nnf

from audioldm.errors import AudioLDMError
from audioldm.nets.clap import build_small_clap, train_tokenizer
from audioldm.training.clap import ClapTraining, Teachers, read_table
from recipes.embedded.start import write_table


def table() -> dict[str, torch.Tensor]:
    vectors = nnf.normalize(torch.randn(5, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    return {f"text {i}": vector for i, vector in enumerate(vectors)}


def test_a_table_comes_back_as_it_was_written(tmp_path: Path):
    write_table(table(), tmp_path / "words.safetensors")
    found = read_table(tmp_path / "words.safetensors")
    assert list(found) == list(table())
    for text, vector in table().items():
        assert torch.allclose(found[text], vector, atol=1e-3)  # float16 has 11 bits
    with pytest.raises(AudioLDMError, match=r"gone\.safetensors is missing"):
        read_table(tmp_path / "gone.safetensors")


def test_extra_texts_are_drawn_from_the_table_and_follow_the_seed():
    teachers = Teachers(4, text=table())
    draws = [teachers.texts(20, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2] and set(draws[0]) <= table().keys()
    assert len(set(draws[0])) > 2


def test_a_table_follows_its_clips_to_another_machine_and_one_of_other_clips_is_refused():
    teachers = Teachers(4, audio={"/here/data/raw/esc10/dog.wav": torch.ones(3)})
    assert teachers.distance("audio", torch.randn(1, 4), ["/there/raw/esc10/dog.wav"]) != 0
    clap = build_small_clap(train_tokenizer(["a dog"], size=60), dim=4, width=8, layers=1, widths=(8,))
    module = ClapTraining(clap, teachers=teachers, batches=1)
    rows = [SimpleNamespace(path="/there/raw/other/dog.wav")]
    module._trainer = SimpleNamespace(datamodule=SimpleNamespace(train=SimpleNamespace(rows=rows)))
    with pytest.raises(AudioLDMError, match="knows none of the 1 training clips"):
        module.on_train_start()
