"""The same test inside a notebook.   The sounds go over as PCM16 files, which no player re-normalises."""

from typing import Any

import ipywidgets as widgets

from audioldm.errors import AudioLDMError
from audioldm.evaluation import html
from audioldm.listening.design import CHOICES, SCALES
from audioldm.listening.study import Session, Study

WORDS: dict[str, tuple[str, dict[Any, str]]] = {
    "ab": ("Which clip do you prefer?", {"A": "A is better", "tie": "no difference", "B": "B is better"}),
    "abx": ("X is a copy of A or of B. Which one?", {"A": "X is A", "B": "X is B"}),
    "quality": (
        "How good is the sound quality?",
        {1: "1 bad", 2: "2 poor", 3: "3 fair", 4: "4 good", 5: "5 excellent"},
    ),
    "relevance": (
        "How well does the clip fit the description?",
        {1: "1 not at all", 2: "2 barely", 3: "3 partly", 4: "4 mostly", 5: "5 completely"},
    ),
    "mushra": ("How good is each version, compared with the reference (100)?", {}),
}


class Booth:
    """One rater's place: ``box`` shows the trial that is next, each answer is on the disk before the next appears.

    Show ``booth.box`` as the last line of a cell.   Gapless switching needs the served page; this is for quick tests.
    """

    def __init__(self, study: Study, *, name: str = "", code: str | None = None) -> None:
        self.study = study
        self.code = code if code is not None else study.join(name)
        self.box = widgets.VBox()
        self.controls: list[Any] = []
        self.draw()

    def draw(self) -> None:
        """Show the next trial, or that all is done."""
        rater = self.study.rater(self.code)
        state = self.study.state(self.code)
        if rater.answered >= len(rater.trials):
            self.controls = []
            self.box.children = [widgets.HTML("<b>Thank you.</b> All answers are saved.")]
            return
        shown = self.study.shown(rater)
        question, options = WORDS[shown["task"]]
        place = "practice" if shown["practice"] else f"{state['done'] + 1} of {state['total']}"
        head = f"<b>{question}</b> &nbsp; <small>{place}</small>"
        if shown["caption"]:
            head += f"<br><big>“{html.text(shown['caption'])}”</big>"
        labels = ["A", "B", "X"] if shown["task"] in CHOICES else [chr(65 + i) for i in range(shown["slots"])]
        self.controls = self.make_controls(shown, options)
        self.button = widgets.Button(description="Next", button_style="primary", disabled=True)
        self.button.on_click(lambda _: self.submit())
        rows: list[Any] = [widgets.HTML(head)]
        if shown["reference"]:
            rows.append(self.row("Reference", "ref"))
        for i in range(shown["slots"]):
            beside = [self.controls[i]] if shown["task"] == "mushra" else []
            rows.append(self.row(labels[i] if shown["slots"] > 1 else "Clip", str(i), *beside))
        rows += [] if shown["task"] == "mushra" else self.controls
        self.box.children = [*rows, self.button]

    def make_controls(self, shown: dict[str, Any], options: dict[Any, str]) -> list[Any]:
        """Buttons with no choice made yet, or sliders that count once they were moved."""
        if shown["task"] == "mushra":
            low, high = SCALES["mushra"]
            controls: list[Any] = [
                widgets.IntSlider(min=low - 1, max=high, value=low - 1) for _ in range(shown["slots"])
            ]
        else:
            texts = [(text, value) for value, text in options.items()]
            controls = [widgets.ToggleButtons(options=texts, value=None)]
        for control in controls:
            control.observe(lambda _: self.ready(), names="value")
        return controls

    def row(self, label: str, slot: str, *beside: Any) -> Any:
        """A label, a player and what stands beside them."""
        content = self.study.audio(self.code, self.study.rater(self.code).answered, slot).read_bytes()
        player = widgets.Audio(value=content, format="wav", autoplay=False, loop=False, controls=True)
        return widgets.HBox([widgets.HTML(f"<b>{label}</b>", layout={"width": "6em"}), player, *beside])

    @property
    def answer(self) -> Any:
        """What is chosen now; None while something is missing."""
        values = [control.value for control in self.controls]
        if self.study.rater(self.code).trials[self.study.rater(self.code).answered].task == "mushra":
            return values if min(values) >= 0 else None
        return values[0]

    def ready(self) -> None:
        """Open the button when the answer is whole."""
        self.button.disabled = self.answer is None

    def submit(self) -> None:
        """Save the answer and go on."""
        if self.answer is None:
            raise AudioLDMError("Nothing is chosen yet.", "Choose an answer, then press Next.")
        self.study.answer(
            self.code, self.study.rater(self.code).answered, self.answer, Session(source="notebook")
        )
        self.draw()
