"""Prompts over time, as they are written."""

import re
from dataclasses import dataclass

from audioldm.errors import AudioLDMError

FORM = 'Write "0-5 rain; 5-12 thunder", in seconds, from 0 on and without gaps.'


@dataclass(frozen=True)
class Span:
    """A prompt and the seconds it holds for."""

    begin: float
    end: float
    prompt: str


def parse_schedule(text: str) -> list[Span]:
    """Read "0-5 rain; 5-12 thunder" as Spans that follow one another.   Raises AudioLDMError for a gap."""
    spans: list[Span] = []
    for part in filter(None, (piece.strip() for piece in text.split(";"))):
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*-\s*(\d+(?:\.\d+)?)\s*s?\s+(\S.*)", part)
        if match is None:
            raise AudioLDMError(f"schedule: {part!r} is not FROM-TO PROMPT.", FORM)
        span, begin = Span(float(match[1]), float(match[2]), match[3]), spans[-1].end if spans else 0.0
        if span.begin != begin or span.end <= begin:
            raise AudioLDMError(f"schedule: {part!r} must begin at {begin:g} s and end later.", FORM)
        spans.append(span)
    if not spans:
        raise AudioLDMError("schedule is empty.", FORM)
    return spans
