"""opensounds2 from repositories: licences, weak captions, groups in one split, sums, and going on after a cut."""

import hashlib
import json
import lzma
import subprocess
from pathlib import Path

import pytest
import torch
from sounds import save, sine

from audioldm.datasets.check import check
from audioldm.datasets.decode import decode
from audioldm.datasets.manifest import Finding
from audioldm.errors import AudioLDMError
from recipes.embedded.opensounds2 import commits, faded, index, opensounds2, tracked


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
    rows.append({**rows[0], "path": "../out.opus"})
    rows.append({**rows[0], "path": "ann/weak.opus", "caption": "a retro game sound effect, glasses"})
    about = {
        "caption": "a bell",
        "licence": "CC-BY-3.0",
        "attribution": "Ann",
        "start": 0.5,
        "seconds": 1.0,
        "gain": 2,
    }
    lines = [json.dumps({**about, "clip": "0" * 32, "group": row["path"], **row}) for row in rows]
    place = tmp_path / "clips.jsonl.xz"
    place.write_bytes(lzma.compress("\n".join(lines).encode()))
    (tmp_path / "clips.repositories.json").write_text(json.dumps(pins))
    return place


def test_rows_findings_and_resuming(listed: Path, tmp_path: Path, command, capsys):
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
    assert sorted(finding.kind for finding in findings) == ["changed", "later", "missing", "row", "weak"]
    assert any("leads out" in finding.detail for finding in findings) and not (tmp_path / "out.flac").exists()
    assert [path.name for path in (tmp_path / "to/repositories").iterdir()] == ["ann+none"]
    times = {row.path: Path(row.path).stat().st_mtime_ns for row in rows}
    Path(rows[1].path).unlink()
    again = opensounds2(listed, **asked, findings=[])
    assert again == rows, "made again, with the same bytes"
    assert sum(Path(row.path).stat().st_mtime_ns == times[row.path] for row in rows) == 2
    weighted = opensounds2(listed, **asked, weak=0.25, findings=[])
    assert [row.weight for row in weighted] == [1.0, 1.0, 1.0, 0.25]
    with pytest.raises(AudioLDMError, match="weak=2"):
        opensounds2(listed, **asked, weak=2)
    words = ("--from", listed, "--to", asked["to"], "--host", asked["host"], "-o", tmp_path / "m.jsonl")
    assert command("data", "prepare", "opensounds2", *words, "--val", 0, "--test", 0, "--json") == 0
    assert json.loads(capsys.readouterr().out)["clips"] == 3


def test_clips_of_the_packed_set_count_if_their_bytes_are_those_listed(tmp_path: Path):
    clip = save(tmp_path / "to/ann/0.opus", sine(0.5), format="OGG", subtype="OPUS")
    about = {"repository": "ann/one", "original_path": "x.wav", "sha256": "0" * 32, "path": "ann/0.opus"}
    about |= {"caption": "a bell", "licence": "CC0", "attribution": "Ann", "group": "g"}
    about |= {"clip": hashlib.sha256(clip.read_bytes()).hexdigest()[:32]}
    place = tmp_path / "clips.jsonl.xz"
    place.write_bytes(lzma.compress(json.dumps(about).encode()))
    (row,) = opensounds2(place, to=tmp_path / "to", findings=None)
    assert row.path == str(clip)
    save(clip, sine(0.6), format="OGG", subtype="OPUS")
    findings: list[Finding] = []
    assert not opensounds2(place, to=tmp_path / "to", findings=findings) and "sha256" in findings[0].detail


def test_the_tracked_list_is_whole():
    rows, pins = [record.cells for record in index(tracked())], commits(tracked())
    assert len(rows) == 6568 and {row["repository"] for row in rows} == pins.keys()
    assert all(len(pin) == 40 for pin in pins.values()) and tracked().stat().st_size < 500_000
    assert all(row["licence"] and row["attribution"] and len(row["sha256"]) == 32 for row in rows)
    assert all(0 < row["seconds"] <= 10.01 and row["start"] >= 0 and row["gain"] > 0 for row in rows)
