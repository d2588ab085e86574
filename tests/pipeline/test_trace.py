"""A prompt passes through few files of the package, and the pipeline's call is one screen."""

import importlib.util
import inspect
from pathlib import Path

from audioldm import AudioLDM

FILES, LINES = 25, 40


def files_of(call):
    path = Path(__file__).parents[1] / "trace.py"
    spec = importlib.util.spec_from_file_location("trace_of_files", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.files_of(call)


def test_a_prompt_passes_through_few_files():
    pipe = AudioLDM.from_pretrained()
    counts = files_of(lambda: pipe("a dog barking", seeds=[0], steps=2))
    assert "audioldm/pipeline/run.py" in counts and "audioldm/nets/unet.py" in counts
    assert len(counts) <= FILES, "\n".join(sorted(counts))


def test_the_call_is_one_screen_with_numbered_steps():
    lines = inspect.getsource(AudioLDM.__call__).splitlines()
    assert len(lines) <= LINES
    steps = [line.strip()[:4] for line in lines if line.strip().startswith("# ")]
    assert steps == ["# 1.", "# 2.", "# 3.", "# 4."]
