"""One line of the table."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class Check:
    """One question with its answer: ``value`` against ``limit``; ``rows`` are what to read it beside.

    ``least`` says whether the value must be at least or at most the limit.   Without a value it was not measured.

    >>> Check("sides", value=3.0, limit=4.0).passed, Check("sides", value=3.0, limit=4.0, least=False).passed
    (False, True)
    """

    name: str
    value: float | None
    limit: float
    least: bool = True
    n: int = 0
    rows: dict[str, float | None] = field(default_factory=dict)
    detail: str = ""
    more: Mapping[str, object] = field(default_factory=dict)

    @property
    def passed(self) -> bool | None:
        """Whether it is cleared; None if it was not measured."""
        if self.value is None:
            return None
        return self.value >= self.limit if self.least else self.value <= self.limit

    def as_dict(self) -> dict[str, object]:
        """Everything, ready for JSON."""
        return {**asdict(self), "passed": self.passed}


def number(value: float | None) -> str:
    """Three digits that matter, or a dash."""
    return "-" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def table(checks: Sequence[Check], heading: Sequence[str] = ()) -> str:
    """A Markdown table, one check a row with the rows to read beside it.

    >>> print(table([Check("recognised", value=0.5, limit=0.8, n=200, rows={"real": 0.98})]))
    | check | n | value | needed | cleared | beside it |
    |---|--:|--:|--:|---|---|
    | recognised | 200 | 0.5 | >= 0.8 | NO | real 0.98 |
    <BLANKLINE>
    """
    lines = [
        *heading,
        "| check | n | value | needed | cleared | beside it |",
        "|---|--:|--:|--:|---|---|",
    ]
    for check in checks:
        verdict = {True: "yes", False: "NO", None: "not measured"}[check.passed]
        beside = ", ".join(f"{name} {number(value)}" for name, value in check.rows.items())
        note = "; ".join(part for part in (beside, check.detail) if part)
        needed = f"{'>=' if check.least else '<='} {number(check.limit)}"
        lines.append(f"| {check.name} | {check.n} | {number(check.value)} | {needed} | {verdict} | {note} |")
    return "\n".join(lines) + "\n"
