"""The vocoder piece by piece: the same sound, with the memory of a piece."""

import pytest
import torch

from audioldm.nets import hifigan
from audioldm.nets.hifigan import build_hifigan, reach, vocode

SMALL = {"channels": 32, "upsample": (5, 4, 2), "upsample_kernels": (16, 16, 8)}


@pytest.mark.parametrize("chunk", [16, 37, 64])
@torch.no_grad()
def test_pieces_give_the_whole(chunk: int):
    torch.manual_seed(0)
    vocoder = build_hifigan(**SMALL).eval().double()
    mel = torch.randn(2, 1, 150, 64, dtype=torch.float64) * 2 - 5
    assert torch.allclose(vocode(vocoder, mel, chunk=chunk), vocode(vocoder, mel, chunk=1000), atol=1e-12)


@torch.no_grad()
def test_pieces_that_overlap_too_little_do_not(monkeypatch: pytest.MonkeyPatch):
    vocoder = build_hifigan(**SMALL).eval().double()
    mel = torch.randn(1, 1, 100, 64, dtype=torch.float64) * 2 - 5
    whole = vocode(vocoder, mel, chunk=1000)
    monkeypatch.setattr(hifigan, "reach", lambda _: 1)
    assert not torch.allclose(vocode(vocoder, mel, chunk=32), whole, atol=1e-12)


def test_the_reach_covers_every_frame_that_has_a_gradient():
    vocoder = build_hifigan(**SMALL).eval().double()
    mel = torch.randn(1, 1, 121, 64, dtype=torch.float64, requires_grad=True)
    wave = vocode(vocoder, mel)
    wave[0, 0, 60 * 40 : 61 * 40].sum().backward()  # the frame in the middle
    frames = mel.grad[0, 0].abs().sum(1).nonzero().flatten()
    assert 60 - int(frames.min()) <= reach(vocoder)
    assert int(frames.max()) - 60 <= reach(vocoder)
