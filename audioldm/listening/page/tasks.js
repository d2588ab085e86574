// What each task asks, and the controls it asks with.
export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

export const TASKS = {
  ab: {
    name: "Preference",
    question: "Which clip do you prefer?",
    advice: "Consider both how well it fits the description and how good it sounds.",
    plain: "Consider how good and how natural it sounds.",
    labels: ["A", "B"],
    options: [["A", "A is better", "←"], ["tie", "No difference", "↓"], ["B", "B is better", "→"]],
    keys: [["1", "2"], "play A, B", ["←", "↓", "→"], "answer", ["Enter"], "next"],
  },
  abx: {
    name: "Which is X?",
    question: "X is a copy of A or of B. Which one?",
    advice: "Listen as often as you like. If you hear no difference, guess.",
    labels: ["A", "B", "X"],
    options: [["A", "X is A", "←"], ["B", "X is B", "→"]],
    keys: [["1", "2", "3"], "play A, B, X", ["←", "→"], "answer", ["Enter"], "next"],
  },
  quality: {
    name: "Sound quality",
    question: "How good is the sound quality?",
    advice: "Judge what you hear, whatever it is: noise, distortion, how natural it sounds.",
    labels: ["Clip"],
    options: [[1, "Bad", "1"], [2, "Poor", "2"], [3, "Fair", "3"], [4, "Good", "4"], [5, "Excellent", "5"]],
    keys: [["Space"], "play, stop", ["1", "–", "5"], "rate", ["Enter"], "next"],
  },
  relevance: {
    name: "Fit to the description",
    question: "How well does the clip fit the description?",
    advice: "Judge only whether the described sound is there; poor sound quality does not count.",
    labels: ["Clip"],
    options: [[1, "Not at all", "1"], [2, "Barely", "2"], [3, "Partly", "3"], [4, "Mostly", "4"], [5, "Completely", "5"]],
    keys: [["Space"], "play, stop", ["1", "–", "5"], "rate", ["Enter"], "next"],
  },
  mushra: {
    name: "Closeness to a reference",
    question: "How good is each version, compared with the reference?",
    advice: "One of them is the reference itself: it deserves 100. The sound goes on at the same place as you switch.",
    keys: [["R"], "reference", ["1", "2", "…"], "a version", ["↑", "↓"], "its score", ["Space"], "stop", ["Enter"], "next"],
  },
};

// A round play button with the part already heard drawn around it.
export function clipButton(label, slot, onPlay) {
  const name = label === "Clip" ? "the clip" : label === "Reference" ? "the reference" : label;
  return make("button", { type: "button", class: "clip", "data-slot": slot, disabled: true, "aria-label": `Play ${name}`, onclick: onPlay },
    make("span", { class: "disc", "aria-hidden": "true" }),
    make("span", { class: "letter" }, label),
    make("span", { class: "track", "aria-hidden": "true" }, make("span", { class: "fill" })),
    make("span", { class: "state" }, "not heard yet"));
}

// One of several answers: real radio buttons, so that every browser and screen reader knows them.
export function choices(task, onAnswer) {
  const scale = task.options.length === 5;
  return make("fieldset", { class: scale ? "answers scale" : "answers", disabled: true },
    make("legend", { class: "unseen" }, task.question),
    ...task.options.map(([value, text, key]) => make("label", {},
      make("input", { type: "radio", name: "answer", value, onchange: () => onAnswer(value) }),
      make("span", { class: "option" },
        scale ? make("b", {}, String(value)) : null, make("span", {}, text),
        make("kbd", { "aria-hidden": "true" }, key)))));
}

// A row of MUSHRA: the slider has no value until it is moved, so that 50 is never a default.
export function sliderRow(label, slot, onPlay, onScore) {
  const value = make("output", {}, "–");
  const input = make("input", {
    type: "range", min: 0, max: 100, step: 1, value: 50, class: "unset", disabled: true,
    "aria-label": `Score of ${label}`, "data-slot": slot,
  });
  const set = () => {
    input.classList.remove("unset");
    value.textContent = input.value;
    onScore(slot, Number(input.value));
  };
  for (const event of ["input", "change", "click"]) input.addEventListener(event, set);
  return make("div", { class: "row" }, clipButton(label, slot, onPlay), input, value);
}

export function scaleLegend() {
  const words = ["Bad", "Poor", "Fair", "Good", "Excellent"];
  return make("div", { class: "legend", "aria-hidden": "true" }, ...words.map((word) => make("span", {}, word)));
}

export function keyHints(task) {
  const line = make("p", { class: "keys" });
  for (const part of task.keys) {
    if (Array.isArray(part)) part.forEach((key) => line.append(key === "–" || key === "…" ? key : make("kbd", {}, key)));
    else line.append(make("span", {}, part));
  }
  return line;
}
