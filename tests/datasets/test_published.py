"""What every reader of a published data set does: names what is wrong, reads tables as they come, is a command."""

import pytest
from sounds import save

from audioldm.datasets.prepare import captioned, labelled
from audioldm.datasets.prepare.shared import Sounds, table
from audioldm.errors import AudioLDMError


def test_a_wrong_folder_or_table_is_named(tmp_path):
    for reader in (
        captioned.audiocaps,
        captioned.clotho,
        captioned.wavcaps,
        captioned.macs,
        captioned.musiccaps,
    ):
        with pytest.raises(AudioLDMError, match=str(tmp_path)):
            reader(tmp_path)
    for reader in (labelled.esc50, labelled.urbansound8k, labelled.fsd50k, labelled.audioset):
        with pytest.raises(AudioLDMError, match=str(tmp_path)):
            reader(tmp_path)
    (tmp_path / "train.csv").write_text("id,caption\n1,x\n")
    with pytest.raises(AudioLDMError, match="youtube_id"):
        captioned.audiocaps(tmp_path)


def test_tables_and_names(tmp_path):
    (tmp_path / "a.csv").write_text("\ufeffname; x \nü;1\n", encoding="utf-8")
    assert [row.cells for row in table(tmp_path / "a.csv", (), None)] == [{"name": "ü", "x": "1"}]
    save(tmp_path / "deep" / "b.wav")
    sounds = Sounds(tmp_path)
    assert sounds.find("none", "b") == tmp_path / "deep/b.wav"
    assert sounds.place("none.wav") == str(tmp_path / "none.wav")


@pytest.mark.parametrize(
    "name", ["audiocaps", "clotho", "wavcaps", "macs", "musiccaps", "esc50", "fsd50k", "audioset"]
)
def test_every_reader_is_a_command(command, name, tmp_path, capsys):
    assert command("data", "prepare", name, "--from", tmp_path / "nowhere", "-o", tmp_path / "m.jsonl") == 2
    assert "nowhere" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ["", "[1]", "{", "{}", '{"data": 3}', "[" * 100_000, "files: 3", "a: [", "1999-99-99"]
)
def test_a_list_that_is_none_is_named(tmp_path, text):
    for reader, name in ((captioned.wavcaps, "AudioSet_SL/sb_final.json"), (captioned.macs, "MACS.yaml")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        with pytest.raises(AudioLDMError, match=name.rpartition("/")[2]):
            reader(tmp_path)
