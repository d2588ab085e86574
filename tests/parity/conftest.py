"""The parity table and the head-count figures, printed together at the end."""

HEADS = {
    "parity": ("| part | reference | max relative error | limit |\n|---|---|--:|--:|", "{:.1e}"),
    "heads": (
        "| 8 heads at every level against the original's | compared | relative error |\n|---|---|--:|",
        "{:.2%}",
    ),
}


def pytest_terminal_summary(terminalreporter) -> None:
    """What the tests have recorded under either name: two words and numbers a row."""
    done = [test for kind in ("passed", "failed") for test in terminalreporter.stats.get(kind, [])]
    pairs = [pair for test in done if test.when == "call" for pair in test.user_properties]
    for kind, (head, form) in HEADS.items():
        rows = [value for name, value in pairs if name == kind]
        if rows:
            terminalreporter.write_line(f"\n{head}")
        for what, reference, *numbers in rows:
            cells = (what, reference, *(form.format(number) for number in numbers))
            terminalreporter.write_line(f"| {' | '.join(cells)} |")
