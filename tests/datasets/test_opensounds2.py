"""opensounds2 from its folder: licences, weak captions, groups in one split, sums, and going on after a cut."""

import io
import json
import tarfile
from pathlib import Path

import pytest
import soundfile
from sounds import sine

from audioldm.datasets.check import check
from audioldm.datasets.manifest import Finding
from audioldm.datasets.prepare.opensounds2 import opensounds2
from audioldm.errors import AudioLDMError


def opus(hertz: float) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, sine(0.5, hertz), 16000, format="OGG", subtype="OPUS")
    return file.getvalue()


def line(path: str, caption: str, group: str) -> dict[str, str]:
    about = {
        "source": "github.com/a/b",
        "original_path": "x.ogg",
        "licence": "CC-BY-3.0",
        "attribution": "Ann",
    }
    return {"tar": "audio-000.tar", "path": path, "caption": caption, "group": group, **about}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four clips, one of them weak, and lines about a clip that is not there and one outside."""
    rows = [line(f"a/{i}.opus", f"a bell {i}", f"a:{i // 2}") for i in range(3)]
    rows.append(line("b/3.opus", "a retro game sound effect, glasses", "b:x"))
    rows += [line("a/gone.opus", "a horn", "a:gone"), line("../out.opus", "a dog", "a:out")]
    (tmp_path / "in").mkdir()
    (tmp_path / "in/manifest.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\nbroken\n")
    with tarfile.open(tmp_path / "in/audio-000.tar", "w") as tar:
        for i, name in enumerate(("a/0.opus", "a/1.opus", "a/2.opus", "b/3.opus", "../out.opus")):
            item, content = tarfile.TarInfo(name), opus(300.0 + 50 * i)
            item.size = len(content)
            tar.addfile(item, io.BytesIO(content))
    return tmp_path / "in"


def test_rows_findings_and_resuming(folder: Path, tmp_path: Path):
    findings: list[Finding] = []
    rows = opensounds2(folder, to=tmp_path / "to", findings=findings)
    report = check(rows)
    assert not report.findings and [row.captions[0] for row in report.rows] == [
        f"a bell {i}" for i in range(3)
    ]
    assert {row.licence for row in rows} == {"CC-BY-3.0"} and rows[0].source == "opensounds2/a"
    assert rows[0].author == "Ann (github.com/a/b: x.ogg)" and rows[0].split == rows[1].split
    text = "\n".join(map(str, findings))
    assert (
        "1 weak captions" in text
        and "manifest.jsonl:7" in text
        and "gone.opus" in text
        and "leads out" in text
    )
    assert not (tmp_path / "out.opus").exists()
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "to/a").iterdir()}
    (tmp_path / "to/a/1.opus").unlink()
    assert opensounds2(folder, to=tmp_path / "to", findings=[]) == rows
    assert sum(path.stat().st_mtime_ns == times[path] for path in times) == 2
    weighted = opensounds2(folder, to=tmp_path / "to", weak=0.25, findings=[])
    assert [row.weight for row in weighted] == [1.0, 1.0, 1.0, 0.25]


def test_a_sound_with_other_bytes_is_left_out(folder: Path, tmp_path: Path):
    path = folder / "manifest.jsonl"
    rows = [json.loads(text) for text in path.read_text().splitlines()[:3]]
    path.write_text("\n".join(json.dumps(row | {"sha256": "0" * 64}) for row in rows))
    findings: list[Finding] = []
    assert opensounds2(folder, to=tmp_path / "to", findings=findings) == []
    assert len(findings) == 3 and "sha256" in findings[0].detail
    with pytest.raises(AudioLDMError, match="weak=2"):
        opensounds2(folder, to=tmp_path / "to", weak=2)


def test_the_command(command, folder: Path, tmp_path: Path, capsys):
    words = [
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
    ]
    assert command("data", "prepare", "opensounds2", *words) == 0
    assert json.loads(capsys.readouterr().out)["clips"] == 3
