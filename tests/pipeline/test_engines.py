"""How the nets are run: the exact mode is the nets themselves, the fast ones are near them."""

import os
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from audioldm import engines
from audioldm.diffusion.guidance import classifier_free
from audioldm.engines import Graphed
from audioldm.errors import AudioLDMError, AudioLDMWarning
from audioldm.pipeline.audioldm import AudioLDM

SETTINGS = {"seconds": 1.28, "steps": 4, "guidance": 2.0}
BF16 = 0.05  # relative root mean square; bfloat16 keeps 8 bits, a rounding is 0.4 % and some hundred of them add up


def gap(got: torch.Tensor, wanted: torch.Tensor) -> float:
    got, wanted = got.double().cpu(), wanted.double().cpu()
    return float((got - wanted).square().mean().sqrt() / wanted.square().mean().sqrt())


@pytest.fixture(scope="module")
def exact(tiny_model: Path) -> torch.Tensor:
    return AudioLDM.from_pretrained(tiny_model)(["rain", "noise"], seeds=[3, 4], **SETTINGS)


def test_a_pair_answers_as_its_two_halves_alone_from_one_call_a_step(tiny_model: Path):
    pipe = AudioLDM.from_pretrained(tiny_model)
    told, empty = pipe.encode_text(["rain", "noise"]), pipe.encode_text(["", ""])
    pair = pipe.denoisers(told, empty)
    x, sigma = torch.randn(2, 4, 32, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([3.0, 0.5])
    # matrix kernels round differently at another batch size
    first, second = pair(x, sigma)
    assert torch.allclose(first, pair.cond(x, sigma), atol=1e-5)
    assert torch.allclose(second, pair.uncond(x, sigma), atol=1e-5)


def test_fast_is_near_exact_and_not_equal(tiny_model: Path, exact: torch.Tensor, monkeypatch):
    monkeypatch.setattr(engines, "emulated", lambda dtype: False)
    pipe = AudioLDM.from_pretrained(tiny_model, mode="fast")
    assert pipe.dtype == pipe.unet.dtype == torch.bfloat16
    fast = pipe(["rain", "noise"], seeds=[3, 4], **SETTINGS)
    assert fast.dtype == torch.float32
    assert 0 < gap(fast, exact) < BF16


def test_fast_in_float32_is_exact_within_rounding(tiny_model: Path, exact: torch.Tensor):
    pipe = AudioLDM.from_pretrained(tiny_model, mode="fast", dtype=torch.float32)
    assert gap(pipe(["rain", "noise"], seeds=[3, 4], **SETTINGS), exact) < 1e-4


def test_a_net_put_in_later_is_the_one_that_runs(tiny_model: Path):
    pipe, other = AudioLDM.from_pretrained(tiny_model), AudioLDM.from_pretrained(tiny_model)
    before = pipe(["rain"], seeds=[0], **SETTINGS)
    with torch.no_grad():
        for weight in other.unet.parameters():
            weight.mul_(0.5)
    pipe = replace(pipe, unet=other.unet)
    assert torch.equal(
        pipe(["rain"], seeds=[0], **SETTINGS), other(["rain"], seeds=[0], **SETTINGS)
    ) and not torch.equal(before, pipe(["rain"], seeds=[0], **SETTINGS))


def test_an_unknown_mode_is_refused_with_the_known_ones(tiny_model: Path):
    with pytest.raises(AudioLDMError, match="exact, fast"):
        AudioLDM.from_pretrained(tiny_model, mode="warp")  # type: ignore[arg-type]


def half_precision_warnings(tiny_model: Path, **settings: object) -> list[str]:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        AudioLDM.from_pretrained(tiny_model, **settings)
    return [str(warning.message) for warning in told if issubclass(warning.category, AudioLDMWarning)]


@pytest.mark.parametrize("lacking", [True, False])
def test_a_type_without_instructions_is_warned_of(tiny_model: Path, monkeypatch, lacking: bool):
    monkeypatch.setattr(engines, "emulated", lambda dtype: lacking and dtype != torch.float32)
    assert not half_precision_warnings(tiny_model)
    for dtype, name in ((torch.bfloat16, "bfloat16"), (torch.float16, "float16")):
        told = half_precision_warnings(tiny_model, mode="fast", dtype=dtype)
        assert len(told) == lacking
        assert not lacking or (f"no instructions for {name}" in told[0] and "leave out the dtype" in told[0])


def test_fast_without_instructions_for_bfloat16_runs_in_float32_and_says_so(tiny_model: Path, monkeypatch):
    monkeypatch.setattr(engines, "emulated", lambda dtype: dtype != torch.float32)
    with pytest.warns(AudioLDMWarning, match="mode fast runs in float32"):
        pipe = AudioLDM.from_pretrained(tiny_model, mode="fast")
    assert (pipe.mode, pipe.dtype, pipe.unet.dtype) == ("fast", torch.float32, torch.float32)
    with pytest.warns(AudioLDMWarning, match="leave out the dtype"):
        pipe = pipe.to("cpu", torch.bfloat16, mode="fast")
    assert (pipe.dtype, pipe.unet.dtype) == (torch.bfloat16, torch.bfloat16)


def test_only_half_precision_can_lack_instructions():
    supported = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    assert not engines.emulated(torch.float32)
    assert not (engines.emulated(torch.bfloat16) and supported)


@pytest.mark.skipif(not torch.cpu._is_avx512_supported(), reason="the processor has no AVX-512 to be held to")
@pytest.mark.parametrize("most", ["AVX2", "AVX512_CORE", "AVX512_CORE_VNNI"])
def test_a_processor_that_is_held_to_less_lacks_bfloat16(most: str):
    code = "import torch; from audioldm.engines import emulated; print(emulated(torch.bfloat16))"
    env = {**os.environ, "ONEDNN_MAX_CPU_ISA": most}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_text_as_it_is_recorded_is_text_as_it_is(tiny_model: Path):
    clap = AudioLDM.from_pretrained(tiny_model).clap
    call = engines.text_call(clap, lambda function: function)
    with torch.no_grad():
        for prompts in (["rain", "a much longer line than rain"], ["rain " * 200]):
            assert torch.allclose(clap.embed_text(prompts, call), clap.embed_text(prompts), atol=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_on_a_gpu_every_mode_is_near_the_cpu(tiny_model: Path, exact: torch.Tensor, mode: str):
    pipe = AudioLDM.from_pretrained(tiny_model, device="cuda", mode=mode)  # type: ignore[arg-type]
    # TF32 convolutions, which torch allows, keep 10 bits: 0.1 % a rounding
    limit = 0.01 if mode == "exact" else BF16
    assert gap(pipe(["rain", "noise"], seeds=[3, 4], **SETTINGS), exact) < limit


@pytest.mark.gpu
def test_a_recording_follows_new_inputs_new_shapes_and_weights_changed_in_place():
    layer = torch.nn.Linear(3, 2).cuda()
    graphed = Graphed(layer, keep=1)
    for rows in (4, 4, 7, 4):
        x = torch.randn(rows, 3, device="cuda")
        assert torch.allclose(graphed(x), layer(x), atol=1e-6)
    assert len(graphed.recordings) == 1
    first, second = graphed(x), graphed(x + 1)
    assert not torch.equal(first, second)  # an answer is not overwritten by the next one
    with torch.no_grad():
        layer.weight.mul_(2)
    assert torch.allclose(graphed(x), layer(x), atol=1e-6)


@pytest.mark.gpu
def test_no_step_of_the_fast_mode_waits_for_the_gpu(tiny_model: Path):
    pipe = AudioLDM.from_pretrained(tiny_model, device="cuda", mode="fast")
    pipe(["rain"], seeds=[0], **SETTINGS)  # recorded here
    told, empty = pipe.encode_text(["rain"]), pipe.encode_text([""])
    denoise = classifier_free(pipe.denoisers(told, empty), 2.0)
    x, sigma = torch.randn(1, 4, 32, 16, device="cuda"), torch.ones(1, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            x = denoise(x, sigma)
    finally:
        torch.cuda.set_sync_debug_mode("default")
