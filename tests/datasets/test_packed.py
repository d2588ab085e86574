"""Parquet files of the hub's layout, WebDataset tars and folders of the library `datasets`, with real sound."""

import io
import json
import tarfile

import pytest
import soundfile
from sounds import RATE, save, sine, wav_bytes

from audioldm.datasets.check import check
from audioldm.datasets.manifest import Finding
from audioldm.datasets.prepare import packed
from audioldm.errors import AudioLDMError


def flac_bytes(hertz):
    file = io.BytesIO()
    soundfile.write(file, sine(0.3, hertz), RATE, format="FLAC")
    return file.getvalue()


@pytest.fixture
def mirror(tmp_path):
    """A hub mirror of AudioCaps: data/SPLIT-00000-of-00001.parquet, one line a caption, the sound in each."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

    def lines(video, data, *captions):
        audio = {"bytes": data, "path": f"{video}.wav"}
        return [{"youtube_id": video, "start_time": 30, "caption": text, "audio": audio} for text in captions]

    content = {
        "train": lines("aaa", wav_bytes(0.3, 300), "Rain") + lines("bbb", flac_bytes(400), "Wind"),
        "validation": lines("ccc", wav_bytes(0.3, 500), "One", "Two"),
        "test": lines("ddd", wav_bytes(0.3, 600), *"12345") + lines("eee", None, "nothing"),
    }
    (tmp_path / "data").mkdir()
    for split, rows in content.items():
        table = pa.Table.from_pylist(rows)
        table = table.set_column(3, "audio", pa.array([row["audio"] for row in rows], kind))
        pq.write_table(table, tmp_path / f"data/{split}-00000-of-00001.parquet")
    return tmp_path


def test_a_mirror_becomes_files_with_all_captions(mirror, tmp_path, command, capsys):
    findings = list[Finding]()
    rows = packed.datasets_rows(mirror, to=tmp_path / "out", source="audiocaps", findings=findings)
    assert [(finding.kind, "test-00000" in finding.path) for finding in findings] == [("missing", True)]
    by_group = {row.group.removeprefix("audiocaps/"): row for row in check(rows).rows}
    assert by_group["ddd"].captions == ("1", "2", "3", "4", "5") and by_group["bbb"].path.endswith(".flac")
    splits = {"aaa": "train", "bbb": "train", "ccc": "val", "ddd": "test"}
    assert {group: row.split for group, row in by_group.items()} == splits
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert packed.datasets_rows(mirror, to=tmp_path / "out", source="audiocaps", findings=[]) == rows
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    (mirror / "data/test-00000-of-00001.parquet").rename(mirror / "data/all.parquet")
    others = packed.datasets_rows(mirror, to=tmp_path / "out", source="audiocaps", val=0, test=0, findings=[])
    assert [row.split for row in others] == ["train", "train", "train", "val"], (
        "by hash where no name says it"
    )
    (mirror / "data/all.parquet").rename(mirror / "data/test-00000-of-00001.parquet")
    words = ("--to", tmp_path / "x", "-o", tmp_path / "m.jsonl", "--json")
    assert command("data", "prepare", "parquet", mirror, *words) == 0
    assert json.loads(capsys.readouterr().out)["splits"] == {"test": 1, "train": 2, "val": 1}


def test_damaged_and_foreign_parquet_files_are_named(mirror, tmp_path):
    path = mirror / "data/train-00000-of-00001.parquet"
    with pytest.raises(AudioLDMError, match="no column 'sound'"):
        packed.datasets_rows(path, audio_column="sound")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(AudioLDMError, match=r"x has no sounds; missing: .*cannot open"):
        packed.datasets_rows(path, to=tmp_path / "out", source="x", findings=[])
    findings = list[Finding]()
    assert (
        len(packed.datasets_rows(mirror, to=tmp_path / "out", findings=findings)) == 2
    )  # the others are whole
    assert [str(path) in finding.path for finding in findings] == [False, True]


def tar(path, members):
    with tarfile.open(path, "w") as file:
        for name, data in members.items():
            item = tarfile.TarInfo(name)
            item.size = len(data)
            file.addfile(item, io.BytesIO(data))
    return path


def test_webdataset(tmp_path, command, capsys):
    about = {"text": ["rain"], "split": "test", "license": "CC0-1.0", "tags": ["water"]}
    members = {
        "x/000.wav": wav_bytes(0.3, 300),
        "x/000.flac": flac_bytes(350),
        "x/000.txt": b"a bell\na ringing bell\n",
    }
    members |= {
        "x/001.flac": flac_bytes(400),
        "x/001.json": json.dumps(about).encode(),
        "x/002.txt": b"no sound here",
    }
    first = tar(tmp_path / "a-000.tar", members)
    second = tar(tmp_path / "a-001.tar", {"000.wav": wav_bytes(0.3, 500), "000.json": b'{"caption": "wind"}'})
    out = tmp_path / "m.jsonl"
    words = [first, second, "--to", tmp_path / "out", "-o", out, "--val", 0, "--test", 0, "--json"]
    assert command("data", "prepare", "webdataset", *words) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["findings"] == {"missing": 1} and "x/002" in shown.err
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["captions"] for row in rows] == [["a bell", "a ringing bell"]] * 2 + [["rain"], ["wind"]]
    assert (rows[2]["split"], rows[2]["licence"], rows[2]["labels"]) == ("test", "CC0-1.0", ["water"])
    first.write_bytes(first.read_bytes()[:700])
    assert command("data", "prepare", "webdataset", *words, "--force") == 0  # the other tar is whole
    assert f"missing: {first} (this tar is damaged" in capsys.readouterr().err


def test_datasets(tmp_path, command, capsys):
    datasets = pytest.importorskip("datasets")
    for i in range(3):
        soundfile.write(tmp_path / f"{i}.wav", sine(0.3, 300 + 100 * i), RATE)
    columns = {
        "sound": [str(tmp_path / f"{i}.wav") for i in range(3)],
        "description": ["a", "b", "c"],
        "label": [0, 1, 1],
    }
    made = datasets.Dataset.from_dict(columns).cast_column("label", datasets.ClassLabel(names=["dog", "cat"]))
    made = made.cast_column("sound", datasets.Audio())
    datasets.DatasetDict({"train": made.select([0, 1]), "validation": made.select([2])}).save_to_disk(
        tmp_path / "saved"
    )
    out = tmp_path / "m.jsonl"
    words = [tmp_path / "saved", "--audio-column", "sound", "--to", tmp_path / "out", "-o", out]
    assert command("data", "prepare", "datasets", *words, "--caption-column", "description") == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["captions"], row["labels"], row["split"]) for row in rows] == [
        (["a"], ["dog"], "train"),
        (["b"], ["cat"], "train"),
        (["c"], ["cat"], "val"),
    ]
    assert command("data", "prepare", "datasets", tmp_path / "none", "-o", tmp_path / "n.jsonl") == 1
    assert "cannot open" in capsys.readouterr().err


def test_tables_list_sounds_of_a_folder(tmp_path, command, capsys):
    for i in range(2):
        save(tmp_path / f"sounds/{i}.wav", sine(0.3, 300 + 100 * i))
    rows = "file,text,split\n0.wav,a bell,test\n1.wav,a horn,train\n2.wav,gone,train\n"
    (tmp_path / "list.csv").write_text(rows)
    words = (tmp_path / "list.csv", "--audio", tmp_path / "sounds", "-o", tmp_path / "m.jsonl")
    assert command("data", "prepare", "table", *words) == 0
    assert "missing" in capsys.readouterr().err
    splits = [json.loads(line)["split"] for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    assert splits == ["test", "train"]
    assert command("data", "prepare", "table", tmp_path / "list.xls", "-o", tmp_path / "n.jsonl") == 2
