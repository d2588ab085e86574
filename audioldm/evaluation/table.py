"""Rows as Markdown and as CSV.   JSON is each result's own ``as_dict``."""

import csv
import io
from collections.abc import Iterable, Sequence

from audioldm.tables import LINE_END


def markdown(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; numbers get three digits, None a dash.

    >>> print(markdown(["a", "b"], [[1, 0.12345]]))
    | a | b |
    |---|---|
    | 1 | 0.123 |
    """

    def cell(value: object) -> str:
        return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)

    body = ["| " + " | ".join(map(cell, row)) + " |" for row in rows]
    return "\n".join(["| " + " | ".join(head) + " |", "|---" * len(head) + "|", *body])


def csv_text(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A CSV whose text cells no spreadsheet takes for a formula: those that begin like one get a quote in front.

    >>> csv_text(["a"], [["=1+1"], [-2.5]])
    "a\\n'=1+1\\n-2.5\\n"
    """

    def cell(value: object) -> object:
        if not isinstance(value, str):
            return value
        text = LINE_END.sub("\n", value)  # csv leaves a \r unquoted, and many programs begin a row there
        return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\n")) else text

    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows([cell(value) for value in row] for row in (head, *rows))
    return buffer.getvalue()
