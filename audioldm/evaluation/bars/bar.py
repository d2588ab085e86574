"""What a bar is, and how a set of them is shown."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class Bar:
    """One question with its answer: ``value`` against ``limit``; ``rows`` are what to read it beside.

    ``least`` tells whether the value must be at least or at most the limit.   A bar without a value was not judged.

    >>> Bar("sides", value=3.0, limit=4.0).passed, Bar("sides", value=3.0, limit=4.0, least=False).passed
    (False, True)
    """

    name: str
    value: float | None
    limit: float
    least: bool = True
    n: int = 0
    rows: dict[str, float | None] = field(default_factory=dict)
    detail: str = ""
    more: dict[str, object] = field(default_factory=dict)

    @property
    def passed(self) -> bool | None:
        """Whether it is cleared; None if it was not judged."""
        if self.value is None:
            return None
        return self.value >= self.limit if self.least else self.value <= self.limit

    def as_dict(self) -> dict[str, object]:
        """Everything, ready for JSON."""
        return {**asdict(self), "passed": self.passed}


def number(value: float | None) -> str:
    """Three digits that matter, or a dash."""
    return "-" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def table(bars: Sequence[Bar], heading: Sequence[str] = ()) -> str:
    """A Markdown table, one bar a row with the rows to read beside it.

    >>> print(table([Bar("recognised", value=0.5, limit=0.8, n=200, rows={"real": 0.98})]))
    | bar | n | value | needed | cleared | beside it |
    |---|--:|--:|--:|---|---|
    | recognised | 200 | 0.5 | >= 0.8 | NO | real 0.98 |
    <BLANKLINE>
    """
    lines = [
        *heading,
        "| bar | n | value | needed | cleared | beside it |",
        "|---|--:|--:|--:|---|---|",
    ]
    for bar in bars:
        verdict = {True: "yes", False: "NO", None: "not judged"}[bar.passed]
        beside = ", ".join(f"{name} {number(value)}" for name, value in bar.rows.items())
        sign = ">=" if bar.least else "<="
        told = "; ".join(part for part in (beside, bar.detail) if part)
        lines.append(
            f"| {bar.name} | {bar.n} | {number(bar.value)} | {sign} {number(bar.limit)} | {verdict} | {told} |"
        )
    return "\n".join(lines) + "\n"
