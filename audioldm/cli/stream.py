"""``audioldm generate --stream``: sound on standard output while it is made."""

import struct
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from audioldm.cli.console import warned
from audioldm.cli.options import changed
from audioldm.errors import AudioLDMError

if TYPE_CHECKING:
    from audioldm.cli.generate import Generate, Session
    from audioldm.pipeline.spans import Span

UNKNOWN = 2**32 - 1
"""length of a WAV file that nobody knows yet; players read on to the end"""


def header(rate: int) -> bytes:
    """The head of a WAV of 16 bits, one channel and unknown length."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
    return struct.pack("<4sI4s", b"RIFF", UNKNOWN, b"WAVE") + form + struct.pack("<4sI", b"data", UNKNOWN)


def check(request: "Generate") -> None:
    """Refuse what a stream cannot have, and a terminal to write sound to."""
    parts = changed(request.prompts, request.conditions, request.output)
    if others := sorted(parts.keys() - {"seed", "schedule"}):
        raise AudioLDMError(f"--stream does not go with {', '.join(others)}.", "Leave one out.")
    if sys.stdout.isatty():
        raise AudioLDMError(
            "--stream writes sound, and standard output is a terminal.",
            "Such as: audioldm generate ... --stream | ffplay -nodisp -autoexit -",
        )


def prompts(prompt: str | None) -> Iterator[str]:
    """The prompt, or with "-" each line of standard input as it comes."""
    lines = sys.stdin if prompt == "-" else [prompt or ""]
    return (line.strip() for line in lines if line.strip())


def stream(session: "Session", spans: "list[Span] | None") -> None:
    """Write the sound of every prompt behind the one before, each piece as soon as it is there."""
    request, pipe, out = session.request, session.pipe, sys.stdout.buffer
    texts = [request.prompts.schedule or ""] if spans else prompts(request.prompt)
    out.write(header(pipe.spec.rate))
    for place, prompt in enumerate(texts):
        with warned():
            pieces = pipe.stream(
                prompt, seed=request.prompts.seed + place, timeline=spans, guidance_config=session.config,
                **session.settings,
            )  # fmt: skip
            for piece in pieces:
                out.write((piece.clamp(-1, 1) * 32767).round().short().numpy().astype("<i2").tobytes())
                out.flush()
