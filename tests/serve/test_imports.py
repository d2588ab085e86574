"""Nothing of the doors to other programs enters the package's import, a command's start or the pipeline."""

DOORS = (
    "fastapi",
    "starlette",
    "uvicorn",
    "mcp",
    "onnx",
    "onnxruntime",
    "ray",
    "pydantic",
    "gradio",
    "torch",
)
CODE = f"""
import sys, time
begin, before = time.process_time(), set(sys.modules)
import audioldm
seconds = time.process_time() - begin
others = {{name.partition(".")[0] for name in set(sys.modules) - before}} - set(sys.stdlib_module_names)
print(*others, seconds)
import audioldm.cli.generate, audioldm.cli.edit, audioldm.cli.export, audioldm.serve.command, audioldm.serve.agent
print([name for name in {DOORS!r} if name in sys.modules], [n for n in sys.modules if n.startswith("audioldm.serve")])
from audioldm import AudioLDM
AudioLDM
print([name for name in {DOORS!r} if name in sys.modules])
"""


def test_the_package_and_the_commands_import_none_of_them(python):
    done = python(CODE)
    assert done.returncode == 0, done.stderr
    first, second, pipeline = done.stdout.splitlines()
    package, seconds = first.split()
    assert package == "audioldm" and float(seconds) < 0.1
    assert second == "[] ['audioldm.serve', 'audioldm.serve.command', 'audioldm.serve.agent']"
    assert pipeline == "['torch']"
