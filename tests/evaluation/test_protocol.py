"""Which caption of a clip is asked for: by policy, and by AudioCaps' protocol."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from audioldm.datasets.manifest import Row
from audioldm.errors import AudioLDMError
from audioldm.evaluation import clips, protocol


def test_audiocaps_is_known_by_video_and_caption() -> None:
    shipped = protocol.read(Path(__file__).parents[2] / "data/protocols/audiocaps-test.json")
    assert len(shipped.items) == 975
    rows = [Row("1.wav", ("b", "a"), group="youtube/x"), Row("2.wav", ("c",), group="youtube/-y", start=3.0)]
    items = (protocol.key_of(rows[1], "c"), protocol.key_of(replace(rows[0], path="other.wav"), "a"))
    selected = replace(shipped, items=items).select(rows)
    assert [row.captions for row in selected] == [("c",), ("a",)]


def test_captions_of_a_clip_by_policy() -> None:
    rows = [Row("a.wav", ("one", "two")), Row("b.wav", ("three",))]
    assert [clip.caption for clip in clips.from_rows(rows)] == ["one", "three"]
    assert [clip.id for clip in clips.from_rows(rows, captions="all")] == ["a#0", "a#1", "b"]
    with pytest.raises(AudioLDMError, match="more than once"):
        clips.from_rows([rows[0], Row("x/a.wav", ("z",))])


def test_a_protocol_is_read_as_it_was_written_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    for seconds in (None, 1, 10.24):
        whole = protocol.Protocol("x", "", "first", seconds, "peak", ("a", "b"))
        whole.write(path)
        assert protocol.read(path) == whole
    content = json.loads(path.read_text())
    wrong = [
        ("seconds", value)
        for value in (0, 1e-300, -1, 10**400, float("nan"), float("inf"), "10", [10.0], 1e308)
    ]
    wrong += [
        ("items", [3]),
        ("items", "x"),
        ("gain", None),
        ("gain", "loud"),
        ("captions", "a"),
        ("name", "\ud800"),
        ("sha256", 5),
    ]
    for name, value in wrong:
        path.write_text(json.dumps({**content, name: value}))
        with pytest.raises(AudioLDMError, match=r"p\.json is no protocol: a field has another type or value"):
            protocol.read(path)
