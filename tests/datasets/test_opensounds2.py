"""opensounds2 from its folder: licences, weak captions, groups in one split, sums, and going on after a cut."""

import hashlib
import io
import json
import lzma
import os
import subprocess
import tarfile
import warnings
from pathlib import Path

import pytest
import soundfile
import torch
from sounds import save, sine

from audioldm.datasets.check import check
from audioldm.datasets.decode import decode
from audioldm.datasets.manifest import Finding
from audioldm.datasets.prepare.opensounds2 import clips_of, commits, faded, index, opensounds2, tracked
from audioldm.errors import AudioLDMError


def opus(hertz: float) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, sine(0.5, hertz), 16000, format="OGG", subtype="OPUS")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four clips, one of them weak, and lines about a clip that is not there, one outside and one without a path."""

    def line(path: str, caption: str, group: str) -> str:
        about = {
            "source": "github.com/a/b",
            "original_path": "x.ogg",
            "licence": "CC-BY-3.0",
            "attribution": "Ann",
        }
        return json.dumps({"tar": "audio-000.tar", "path": path, "caption": caption, "group": group, **about})

    rows = [line(f"a/{i}.opus", f"a bell {i}", f"a:{i // 2}") for i in range(3)]
    rows.append(line("b/3.opus", "a retro game sound effect, glasses", "b:x"))
    rows += [line("a/gone.opus", "a horn", "a:gone"), line("../out.opus", "a dog", "a:out")]
    (tmp_path / "in").mkdir()
    (tmp_path / "in/manifest.jsonl").write_text("\n".join([*rows, "broken", '{"caption": "x"}', ""]))
    with tarfile.open(tmp_path / "in/audio-000.tar", "w") as tar:
        for i, name in enumerate(("a/0.opus", "a/1.opus", "a/2.opus", "b/3.opus", "../out.opus")):
            item, content = tarfile.TarInfo(name), opus(300.0 + 50 * i)
            item.size = len(content)
            tar.addfile(item, io.BytesIO(content))
    return tmp_path / "in"


def test_rows_findings_and_resuming(folder: Path, tmp_path: Path, command, capsys):
    findings: list[Finding] = []
    rows = opensounds2(folder, to=tmp_path / "to", findings=findings)
    report = check(rows)
    assert not report.findings and [row.captions[0] for row in report.rows] == [
        "a bell 0",
        "a bell 1",
        "a bell 2",
    ]
    assert {row.licence for row in rows} == {"CC-BY-3.0"} and rows[0].source == "opensounds2/a"
    assert rows[0].author == "Ann (github.com/a/b: x.ogg)" and rows[0].split == rows[1].split
    text = "\n".join(map(str, findings))
    for part in (
        "1 weak captions",
        "manifest.jsonl:7",
        "manifest.jsonl:8 (no text path)",
        "gone.opus",
        "leads out",
    ):
        assert part in text
    assert len(findings) == 5 and not (tmp_path / "out.opus").exists()
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "to/a").iterdir()}
    (tmp_path / "to/a/1.opus").unlink()
    assert opensounds2(folder, to=tmp_path / "to", findings=[]) == rows
    assert sum(path.stat().st_mtime_ns == times[path] for path in times) == 2
    weighted = opensounds2(folder, to=tmp_path / "to", weak=0.25, findings=[])
    assert [row.weight for row in weighted] == [1.0, 1.0, 1.0, 0.25]
    words = (
        "--from",
        folder,
        "--to",
        tmp_path / "to",
        "-o",
        tmp_path / "m.jsonl",
        "--val",
        0,
        "--test",
        0,
        "--json",
    )
    assert command("data", "prepare", "opensounds2", *words) == 0
    assert json.loads(capsys.readouterr().out)["clips"] == 3


def test_a_sound_with_other_bytes_is_left_out(folder: Path, tmp_path: Path):
    path = folder / "manifest.jsonl"
    rows = [json.loads(text) for text in path.read_text().splitlines()[:3]]
    path.write_text("\n".join(json.dumps(row | {"sha256": "0" * 64}) for row in rows))
    findings: list[Finding] = []
    assert opensounds2(folder, to=tmp_path / "to", findings=findings) == []
    assert len(findings) == 3 and "sha256" in findings[0].detail
    with pytest.raises(AudioLDMError, match="weak=2"):
        opensounds2(folder, to=tmp_path / "to", weak=2)


def commit(folder: Path) -> str:
    """Commit all of a folder as a repository; the commit."""
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    for words in (("init", "-q"), ("config", "uploadpack.allowFilter", "true"), ("add", "-A")):
        subprocess.run(("git", "-C", folder, *words), check=True)
    subprocess.run(("git", "-C", folder, *who, "commit", "-qm", "sounds"), check=True)
    return subprocess.run(
        ("git", "-C", folder, "rev-parse", "HEAD"), check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """A list of clips of two repositories under tmp_path/host, and a third that is not there."""
    rows, pins = [], {"ann/none": "0" * 40}
    for owner, names in (("ann/one", ("a b.wav", "#c.wav")), ("bob/two", ("d/e.wav",))):
        folder = tmp_path / "host" / owner
        for i, name in enumerate(names):
            path = save(folder / name, 0.2 * sine(2.0, 300.0 + 50 * len(rows)), subtype="PCM_16")
            digest = hashlib.sha256(path.read_bytes()).hexdigest()[:32]
            clip = f"{owner[:3]}/{i}.opus"
            rows.append({"repository": owner, "original_path": name, "sha256": digest, "path": clip})
        pins[owner] = commit(folder)
    rows.append({**rows[0], "original_path": "gone.wav", "path": "ann/gone.opus"})
    rows.append({**rows[1], "sha256": "0" * 32, "path": "ann/other.opus"})
    rows.append({**rows[0], "repository": "ann/none", "path": "ann/none.opus"})
    about = {
        "caption": "a bell",
        "licence": "CC-BY-3.0",
        "attribution": "Ann",
        "start": 0.5,
        "seconds": 1.0,
        "gain": 2,
    }
    lines = [json.dumps({**about, **row, "clip": "", "group": row["path"]}) for row in rows]
    place = tmp_path / "clips.jsonl.xz"
    place.write_bytes(lzma.compress("\n".join(lines).encode()))
    (tmp_path / "clips.repositories.json").write_text(json.dumps(pins))
    return place


def test_clips_come_out_of_repositories(listed: Path, tmp_path: Path):
    findings: list[Finding] = []
    asked = {"to": tmp_path / "to", "host": str(tmp_path / "host"), "val": 0.0, "test": 0.0}
    rows = opensounds2(listed, **asked, findings=findings)
    assert [Path(row.path).name for row in rows] == ["0.flac", "1.flac", "0.flac"] and not check(
        rows
    ).findings
    assert rows[0].author == "Ann (github.com/ann/one: a b.wav)" and rows[0].licence == "CC-BY-3.0"
    wave = decode(rows[0].path, 16000)
    truth = 2 * 0.2 * torch.from_numpy(sine(2.0, 300.0))[8000:24000]
    assert len(wave) == 16000 and (wave - faded(truth)).abs().max() < 1e-3
    assert sorted(finding.kind for finding in findings) == ["changed", "later", "missing"]
    assert [path.name for path in (tmp_path / "to/repositories").iterdir()] == ["ann+none"]
    times = {row.path: Path(row.path).stat().st_mtime_ns for row in rows}
    Path(rows[1].path).unlink()
    again = opensounds2(listed, **asked, findings=[])
    assert again == rows, "made again, with the same bytes"
    assert sum(Path(row.path).stat().st_mtime_ns == times[row.path] for row in rows) == 2


def test_the_tracked_list_is_whole():
    rows, pins = [record.cells for record in index(tracked())], commits(tracked())
    assert len(rows) == 6568 and {row["repository"] for row in rows} == pins.keys()
    assert all(len(pin) == 40 for pin in pins.values()) and tracked().stat().st_size < 500_000
    assert all(row["licence"] and row["attribution"] and len(row["sha256"]) == 32 for row in rows)
    assert all(0 < row["seconds"] <= 10.01 and row["start"] >= 0 and row["gain"] > 0 for row in rows)


@pytest.mark.slow
def test_the_packed_set_is_the_listed_one(tmp_path: Path):
    place = Path(__file__).parents[2] / "data" / "opensounds2"
    place = Path(os.environ.get("AUDIOLDM_OPENSOUNDS2", place))
    if not (place / "manifest.jsonl").is_file():
        warnings.warn(
            f"NOT TESTED: {place} does not hold opensounds2; name it in AUDIOLDM_OPENSOUNDS2", stacklevel=1
        )
        pytest.skip("opensounds2 is not here")
    rows = [json.loads(line) for line in (place / "manifest.jsonl").read_text().splitlines()]
    known = clips_of(tracked())
    assert {row["path"] for row in rows} == known.keys()
    findings: list[Finding] = []
    made = opensounds2(place, to=tmp_path, findings=findings)
    assert len(made) > 6000 and [finding.kind for finding in findings] == ["weak"]
