"""Nothing of the doors to other programs enters the package's import or a command's start."""

DOORS = ("fastapi", "starlette", "uvicorn", "mcp", "onnx", "onnxruntime", "ray", "pydantic", "gradio")


def test_the_core_imports_none_of_them(python):
    code = f"""
import sys
from audioldm import AudioLDM
import audioldm.cli.generate, audioldm.cli.edit, audioldm.cli.export, audioldm.serve.command, audioldm.serve.agent
print([name for name in {DOORS!r} if name in sys.modules], [n for n in sys.modules if n.startswith("audioldm.serve")])
"""
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[] ['audioldm.serve', 'audioldm.serve.command', 'audioldm.serve.agent']"


def test_import_audioldm_is_instant_and_needs_nothing(python):
    code = """
import sys, time
begin = time.process_time()
before = set(sys.modules)
import audioldm
others = {name.partition(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)
print(*others, time.process_time() - begin)
"""
    *packages, seconds = python(code).stdout.split()
    assert packages == ["audioldm"] and float(seconds) < 0.1
