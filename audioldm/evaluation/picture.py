"""A figure that shows itself in a notebook, whichever backend pyplot uses there or none."""

import io
from typing import Any

from matplotlib.figure import Figure


class Picture(Figure):
    """A matplotlib figure outside of pyplot: no global state, no display."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"layout": "constrained", **settings})

    def png(self, dpi: int = 110) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=dpi)
        return buffer.getvalue()

    def _repr_png_(self) -> bytes:
        return self.png(dpi=90)
