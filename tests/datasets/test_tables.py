"""Tables as people make them: each row is read right, or named with its line and the reason."""

from pathlib import Path

import pytest

from audioldm.errors import AudioLDMError
from audioldm.tables import is_null, lines, number_of, read_table, read_text, texts_of


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends(tmp_path: Path, encoding: str, end: str, recwarn):
    path = tmp_path / "t.csv"
    path.write_bytes(end.join(["file_name,caption", "a.wav,“café” – a dog", ""]).encode(encoding))
    table = read_table(path)
    assert [record.cells for record in table.records] == [{"file_name": "a.wav", "caption": "“café” – a dog"}]
    notes = [f"{path} is not UTF-8: it is read as Windows-1252."] if encoding == "cp1252" else []
    assert [str(warning.message) for warning in recwarn] == notes
    assert table.records[0].where == f"{path}:2" and not table.omitted


def test_only_three_line_ends_end_a_line():
    odd = "a\x0bb\x0cc\x1cd\x85e\u2028f\u2029g"
    assert lines(f"{odd}\n{odd}") == [odd, odd] and lines("") == [] and lines("\n") == [""]


def test_bytes_that_are_no_text_name_the_line(tmp_path: Path):
    (tmp_path / "x.txt").write_bytes(b"fine\n\x81\n")
    with pytest.raises(AudioLDMError, match=r"x\.txt:2 .*0x81"):
        read_text(tmp_path / "x.txt")
    with pytest.raises(AudioLDMError, match="cannot be read"):
        read_text(tmp_path / "nowhere.txt")


def table(tmp_path: Path, content: str, name: str = "t.csv", **settings):
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    found = read_table(tmp_path / name, **settings)
    return [record.cells for record in found.records], [str(item) for item in found.omitted]


def test_a_comma_without_quotes_loses_nothing(tmp_path: Path):
    text = 'file_name,caption\na.wav,a dog, then a cat\nb.wav,"rain, heavy"\nc.wav,"x",y\nd.wav,plain\n'
    rows, omitted = table(tmp_path, text, text=("caption",))
    assert rows == [
        {"file_name": "a.wav", "caption": "a dog, then a cat"},
        {"file_name": "b.wav", "caption": "rain, heavy"},
        {"file_name": "d.wav", "caption": "plain"},
    ]
    assert len(omitted) == 1 and "t.csv:4: 3 cells for 2 columns" in omitted[0]
    rows, omitted = table(tmp_path, "caption,file_name\na dog, barking,a.wav\n", text=("caption",))
    assert not rows and "t.csv:2: 3 cells for 2 columns" in omitted[0]
    assert table(tmp_path, "prompt\na dog, then, a cat\n", text=("prompt",)) == (
        [{"prompt": "a dog, then, a cat"}],
        [],
    )


@pytest.mark.filterwarnings("ignore::audioldm.errors.AudioLDMWarning")
def test_short_and_empty_rows(tmp_path: Path):
    rows, omitted = table(tmp_path, "file_name,caption,split\na.wav\n\n,,\nb.wav,,val\nc.wav,x,,,\n")
    assert rows == [{"file_name": "b.wav", "split": "val"}, {"file_name": "c.wav", "caption": "x"}]
    assert len(omitted) == 1 and "t.csv:2: a short row: 1 cells for 3 columns" in omitted[0]


def test_quotation_marks(tmp_path: Path):
    text = 'file_name,caption\na.wav,a 6" nail\nb.wav,"two\nlines"\n'
    text += 'c.wav,"never closed\nd.wav,fine\ne.wav,"a" dog\nf.wav,f\n'
    rows, omitted = table(tmp_path, text)
    assert [row["file_name"] for row in rows] == ["a.wav", "b.wav", "d.wav", "f.wav"]
    assert rows[0]["caption"] == 'a 6" nail' and rows[1]["caption"] == "two\nlines"
    assert [line.split(": ")[0].rpartition(":")[2] for line in omitted] == ["5", "7"]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_separators(tmp_path: Path, separator: str):
    rows = [f"file_name{separator}caption", f"a.wav{separator}x"]
    assert table(tmp_path, "\n".join(rows))[0] == [{"file_name": "a.wav", "caption": "x"}]
    assert table(tmp_path, "\n".join([f"sep={separator}", *rows]))[0] == [
        {"file_name": "a.wav", "caption": "x"}
    ]


@pytest.mark.filterwarnings("ignore::audioldm.errors.AudioLDMWarning")
def test_json_lines(tmp_path: Path):
    text = '{"a": 1}\n[1]\n{"a": \n\n{"a": "x\u2028y"}\n' + "[" * 100_000 + "\n"
    rows, omitted = table(tmp_path, text, "t.jsonl")
    assert rows == [{"a": 1}, {"a": "x\u2028y"}]
    assert [line.split(": ")[0].rpartition(":")[2] for line in omitted] == ["2", "3", "6"]


def test_columns_that_are_needed(tmp_path: Path):
    with pytest.raises(AudioLDMError, match=r"no columns \['caption'\]; it has \['file'\]"):
        table(tmp_path, "file\na\n", need=("caption",))
    with pytest.raises(AudioLDMError, match="no columns"):
        table(tmp_path, "", need=("caption",))
    with pytest.raises(AudioLDMError, match="is no table"):
        read_table(tmp_path / "t.xlsx")
    with pytest.raises(AudioLDMError, match="There is no table"):
        read_table(tmp_path / "nowhere.csv")


def test_cells():
    assert all(map(is_null, (None, "", " ", "nan", "None", "null", float("nan")))) and not is_null("a nun")
    assert (
        texts_of(["a ", None, "nan", "b"]) == ("a", "b") and texts_of("x") == ("x",) and texts_of(None) == ()
    )
    assert (number_of("1.5"), number_of(""), number_of(2), number_of(None)) == (1.5, None, 2.0, None)
    for wrong in ("-1", "1,5", "inf", True, [1], "x"):
        with pytest.raises(ValueError, match="is no number"):
            number_of(wrong)
    with pytest.raises(ValueError, match="is no text"):
        texts_of(3)


def test_half_a_character_is_no_text(tmp_path: Path):
    from audioldm.cli.clips import read_rows
    from audioldm.datasets.manifest import read

    (tmp_path / "m.jsonl").write_text('{"path": "a.wav", "captions": ["a \\ud800"]}\n')
    with pytest.raises(AudioLDMError, match=r"m\.jsonl:1: captions=.* is no list of texts"):
        read(tmp_path / "m.jsonl")
    (tmp_path / "p.jsonl").write_text('{"prompt": "a \\ud800"}\n')
    with pytest.raises(AudioLDMError, match="is no text"):
        read_rows(None, str(tmp_path / "p.jsonl"))
