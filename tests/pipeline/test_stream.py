"""Sound in pieces is the sound of one call."""

import io
import struct
import sys

import pytest
import torch

from audioldm.errors import AudioLDMError
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.pipeline.spans import Span

SETTINGS = {"seconds": 1.5, "steps": 3}


@pytest.fixture(scope="module")
def pipe(tiny_model):
    pipe = AudioLDM.from_pretrained(tiny_model)
    object.__setattr__(pipe, "defaults", pipe.defaults.merged(seconds=0.32))  # windows of 8 latent frames
    return pipe


@pytest.mark.parametrize(
    ("sampler", "guidance"), [("ddim:eta=1", 2.5), ("dpmpp_2m", 2.5), ("consistency", 1.0), ("unipc", 1.0)]
)
def test_joined_pieces_are_the_whole_bit_by_bit(pipe, sampler, guidance):
    options = {**SETTINGS, "sampler": sampler, "guidance": guidance}
    pieces = list(pipe.stream("rain", seed=5, **options))
    assert len(pieces) > 4
    assert torch.equal(torch.cat(pieces), pipe(["rain"], seeds=[5], retry_silent=0, **options)[0])


def test_prompts_over_time_stream_too(pipe):
    spans = [Span(0, 0.7, "rain"), Span(0.7, 1.5, "wind")]
    whole = pipe(["-"], seeds=[1], timeline=spans, retry_silent=0, **SETTINGS)[0]
    assert torch.equal(torch.cat(list(pipe.stream("-", seed=1, timeline=spans, **SETTINGS))), whole)


def test_a_short_sound_is_one_piece(pipe):
    [piece] = pipe.stream("rain", seed=2, seconds=0.3, steps=2)
    assert torch.equal(piece, pipe(["rain"], seeds=[2], retry_silent=0, seconds=0.3, steps=2)[0])


def test_the_first_piece_waits_for_few_windows(pipe, monkeypatch):
    calls = []
    plain = pipe.engine.functions.unet
    counted = lambda x, t, condition: calls.append(len(x)) or plain(x, t, condition)  # noqa: E731
    monkeypatch.setattr(
        pipe.engine,
        "functions",
        type("F", (), {**vars(pipe.engine.functions), "unet": staticmethod(counted)}),
    )
    pieces = pipe.stream("rain", seconds=4.0, steps=3, guidance=1.0, sampler="ddim")
    next(pieces)
    assert len(calls) == 3 * (3 + 3) // 2
    list(pieces)
    windows = len(calls) / 3
    assert windows == int(windows) > 20, "and none is asked twice"


def test_a_sampler_of_two_calls_a_step_is_refused(pipe):
    with pytest.raises(AudioLDMError, match="heun cannot stream"):
        next(pipe.stream("rain", **SETTINGS, sampler="heun"))


def test_the_command_writes_a_wav_of_unknown_length_and_a_sound_a_line(
    pipe, tiny_model, command, monkeypatch, capsysbinary
):
    monkeypatch.setattr(sys, "stdin", io.StringIO("rain\n\nwind\n"))
    options = ["--stream", "--seconds", "0.32", "--steps", "2", "--guidance", "1", "--seed", "4"]
    assert command("generate", "-", *options, "-m", tiny_model) == 0
    data = capsysbinary.readouterr().out
    assert data[:4] == b"RIFF" and struct.unpack("<I", data[24:28]) == (pipe.spec.rate,)
    samples = torch.frombuffer(bytearray(data[44:]), dtype=torch.int16)
    whole = AudioLDM.from_pretrained(tiny_model)(
        ["rain", "wind"], seeds=[4, 5], retry_silent=0, seconds=0.32, steps=2, guidance=1.0
    )
    assert torch.equal(samples, (whole.clamp(-1, 1) * 32767).round().short().flatten())


def test_what_does_not_go_with_a_stream_is_said_in_a_line(command, tiny_model, capsys):
    assert command("generate", "rain", "--stream", "-n", "2", "--lufs", "-20", "-m", tiny_model) == 2
    assert "--stream does not go with lufs, n." in capsys.readouterr().err
