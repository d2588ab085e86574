// The screens in their order: welcome, volume, trials, thanks. The server knows where a rater is; this page only asks.
import { Player } from "./player.js";
import { TASKS, choices, clipButton, keyHints, make, scaleLegend, sliderRow } from "./tasks.js";

const screen = document.getElementById("screen");
const trouble = document.getElementById("trouble");
const player = new Player(() => paint());
let test, code, trial, task, given, began, frame = 0, sending = false, onKey = () => false;

const stored = () => `audioldm-listen ${test.id}`;
const remember = (value) => { try { localStorage.setItem(stored(), value); } catch { /* private windows may forbid it */ } };
const recall = () => { try { return localStorage.getItem(stored()); } catch { return null; } };

async function ask(path, body) {
  const options = body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const reply = await fetch(path, options);
  const content = await reply.json();
  if (!reply.ok) throw Object.assign(new Error(content.error), { status: reply.status });
  return content;
}

// Run one request; where it fails, say so and offer to try again. What was answered stays on the page.
async function attempt(work) {
  trouble.hidden = true;
  try { await work(); } catch (error) {
    const offline = error.status === undefined && error instanceof TypeError;
    trouble.firstElementChild.textContent = offline
      ? "No connection to the test. Your answers so far are saved, and this one is kept here." : error.message;
    trouble.lastElementChild.onclick = () => attempt(error.status === 409 ? reload : work);
    trouble.hidden = false;
  }
}

// An attempt that a second click does not start again while it runs.
async function once(work) {
  if (sending) return;
  sending = true;
  await attempt(work);
  sending = false;
}

const reload = async () => show(await ask(`/api/state/${code}`));

function draw(...content) {
  player.clear();
  onKey = () => false;
  screen.replaceChildren(...content.filter((node) => node !== null));
  window.scrollTo(0, 0);
  const heading = screen.querySelector("h1");
  heading.tabIndex = -1;
  heading.focus({ preventScroll: true });
}

function show(state) {
  code = state.code;
  remember(code);
  const bar = document.getElementById("progress");
  bar.max = state.total;
  bar.value = state.done;
  document.getElementById("code").textContent = `Your code is ${code}: it lets you go on in another browser.`;
  const practice = state.phase === "trial" && state.trial.practice;
  document.getElementById("count").textContent = state.phase !== "trial" ? "" : practice ? "Practice" : `${state.done + 1} of ${state.total}`;
  if (state.phase === "volume") return volume(state);
  if (state.phase === "done") return thanks(state);
  trial = state.trial;
  task = TASKS[trial.task];
  return trial.first ? introduce() : begin();
}

function welcome() {
  const name = make("input", { id: "name", maxlength: 60, autocomplete: "off" });
  const old = make("input", { id: "old", maxlength: 11, autocomplete: "off", autocapitalize: "characters", spellcheck: "false", placeholder: "ABCDE-FGHIJ" });
  const join = (event) => {
    event.preventDefault();
    player.wake();
    once(async () => show(await ask("/api/join", { name: name.value, key: location.hash.slice(1) })));
  };
  const resume = (event) => {
    event.preventDefault();
    player.wake();
    once(async () => show(await ask(`/api/state/${encodeURIComponent(old.value.trim().toUpperCase())}`)));
  };
  draw(
    make("h1", {}, test.title),
    make("p", { class: "lead" }, "You will hear short sounds and say what you think of them. There are no right answers; your own impression counts."),
    make("dl", { class: "facts" },
      make("div", {}, make("dt", {}, "Trials"), make("dd", {}, String(test.trials_per_rater))),
      make("div", {}, make("dt", {}, "Time"), make("dd", {}, `about ${test.minutes_per_rater} min`)),
      make("div", {}, make("dt", {}, "You need"), make("dd", {}, "headphones, a quiet room"))),
    make("form", { class: "card", onsubmit: join },
      make("label", { for: "name" }, "Name or initials ", make("small", {}, "(optional)")), name,
      make("button", { class: "primary", type: "submit" }, "Begin"),
      make("p", { class: "note" }, "Every answer is saved as you go. You may close this page at any time and open it again in the same browser to go on where you stopped. What is kept: your answers, the times, and the name if you give one.")),
    make("details", {},
      make("summary", {}, "I have a code from an earlier session"),
      make("form", { class: "inline", onsubmit: resume }, make("label", { class: "unseen", for: "old" }, "Code"), old, make("button", { type: "submit" }, "Continue"))));
}

function volume(state) {
  let device = null, heard = null, calm = false, tone = false;
  const go = make("button", { class: "primary", type: "submit", disabled: true }, "Continue");
  const check = () => { go.disabled = !(device && heard !== null && calm && tone); };
  const radios = (name, entries, act) => make("div", { class: "pills" }, ...entries.map(([value, text]) => make("label", {},
    make("input", { type: "radio", name, value, onchange: () => { act(value); check(); } }), make("span", {}, text))));
  const sound = (slot, text) => make("button", { type: "button", class: "play", "data-slot": slot, disabled: true, onclick: () => {
    if (slot === 0) calm = true; else tone = true;
    player.toggle(slot, { loop: slot === 0 });
    check();
  } }, make("span", { class: "disc", "aria-hidden": "true" }), text);
  const send = (event) => {
    event.preventDefault();
    once(async () => show(await ask("/api/volume", { code, device, heard })));
  };
  draw(
    make("h1", {}, "Check your sound"),
    state.tries ? make("p", { class: "notice", role: "status" }, `That was not the number of tones. Turn the volume up a little and try once more (try ${state.tries + 1} of ${state.most_tries}).`) : null,
    make("form", { class: "steps", onsubmit: send },
      make("section", { class: "card" }, make("h2", {}, "What do you listen with?"),
        radios("device", test.devices.map((name) => [name, name[0].toUpperCase() + name.slice(1)]), (value) => { device = value; })),
      make("section", { class: "card" }, make("h2", {}, "Set the volume"),
        make("p", {}, "Play this noise and set the volume so that it is comfortable, like somebody talking beside you. Then leave it there."),
        sound(0, "Play noise")),
      make("section", { class: "card" }, make("h2", {}, "Count the quiet tones"),
        make("p", {}, "How many short tones do you hear?"),
        sound(1, "Play tones"),
        radios("heard", [1, 2, 3, 4, 5, 6].map((n) => [n, String(n)]), (value) => { heard = value; })),
      make("div", { class: "next" }, go)));
  attempt(async () => { await player.load([`/audio/${code}/volume`, `/audio/${code}/beeps/${state.tries}`]); paint(); });
}

function introduce() {
  draw(
    make("p", { class: "part" }, trial.parts > 1 ? `Part ${trial.part} of ${trial.parts}` : "The task"),
    make("h1", {}, task.name),
    make("p", { class: "lead" }, task.question),
    make("p", {}, trial.task === "ab" && !trial.caption ? task.plain : task.advice),
    trial.practice ? make("p", {}, "First come a few practice trials, which do not count.") : null,
    make("div", { class: "next" }, make("button", { class: "primary", type: "button", onclick: () => { player.wake(); begin(); } }, "Start")));
  onKey = (key) => key === "Enter" && (player.wake(), begin(), true);
}

function begin() {
  const mushra = trial.task === "mushra";
  const slots = [...Array(trial.slots).keys()];
  const labels = task.labels ?? slots.map((i) => String.fromCharCode(65 + i));
  given = mushra ? slots.map(() => null) : null;
  const how = { together: mushra };
  const play = (slot) => () => player.toggle(slot, how);
  const next = make("button", { class: "primary", type: "button", id: "next", disabled: true, onclick: submit }, "Next");
  const controls = mushra
    ? make("div", { class: "mushra" }, clipButton("Reference", slots.length, play(slots.length)), scaleLegend(),
      ...slots.map((i) => sliderRow(labels[i], i, play(i), (slot, score) => { given[slot] = score; paint(); })))
    : make("div", { class: `clips of${slots.length}` }, ...slots.map((i) => clipButton(labels[i], i, play(i))));
  draw(
    trial.practice_over ? make("p", { class: "notice", role: "status" }, "Practice is over. From here on your answers count.") : null,
    make("h1", { class: "question" }, task.question),
    trial.caption ? make("blockquote", { class: "caption" }, trial.caption) : null,
    make("p", { class: "advice" }, trial.task === "ab" && !trial.caption ? task.plain : task.advice),
    controls,
    mushra ? null : choices(task, (value) => { given = value; paint(); }),
    make("div", { class: "next" }, make("span", { id: "hint", role: "status" }), next),
    keyHints(task));
  onKey = (key) => trialKey(key, slots, how);
  began = performance.now();
  const urls = [...slots, ...(trial.reference ? ["ref"] : [])].map((slot) => `/audio/${code}/${trial.index}/${slot}`);
  attempt(async () => { await player.load(urls); began = performance.now(); paint(); });
}

function trialKey(key, slots, how) {
  const single = slots.length === 1 && trial.task !== "mushra";
  if (key === "Enter") { if (!document.getElementById("next").disabled) submit(); return true; }
  if (key === " ") { if (player.playing !== null) player.stop(); else player.play(player.last ?? 0, how); return true; }
  if (trial.task === "mushra" && key.toLowerCase() === "r") { player.toggle(slots.length, how); return true; }
  if (/^[1-9]$/.test(key) && !single) {
    const slot = Number(key) - 1;
    if (slot >= slots.length) return false;
    player.toggle(slot, how);
    screen.querySelector(`input[type=range][data-slot="${slot}"]`)?.focus();
    return true;
  }
  const names = { ArrowLeft: "←", ArrowRight: "→", ArrowDown: "↓" };
  const option = task.options?.find(([, , hint]) => hint === (names[key] ?? key));
  if (!option) return false;
  const radio = screen.querySelector(`input[name=answer][value="${option[0]}"]`);
  if (!radio.matches(":disabled")) radio.click();
  return true;
}

function submit() {
  const answer = given;
  const body = {
    code, trial: trial.index, answer, switches: player.switches,
    heard: player.clips.map((_, slot) => Math.round(player.total(slot) * 100) / 100),
    seconds: Math.round((performance.now() - began) / 10) / 100,
  };
  player.stop();
  once(async () => show(await ask("/api/answer", body)));
}

function thanks() {
  const bar = document.getElementById("progress");
  bar.value = bar.max;
  draw(
    make("h1", {}, "Thank you"),
    make("p", { class: "lead" }, "All your answers are saved. You can close this page."));
}

// Bring the buttons in line with what plays and what was heard.
function paint() {
  for (const button of screen.querySelectorAll(".clip, .play")) {
    const slot = Number(button.dataset.slot);
    button.disabled = !player.clips[slot];
    button.classList.toggle("on", player.playing === slot);
    if (!button.classList.contains("clip") || !player.clips[slot]) continue;
    const heard = player.total(slot) >= trial.need_seconds;
    button.classList.toggle("heard", heard);
    button.querySelector(".state").textContent = player.playing === slot ? "playing" : heard ? "heard" : "not heard yet";
    button.querySelector(".fill").style.width = player.playing === slot ? `${(100 * player.position()) / player.clips[slot].duration}%` : "0";
  }
  const next = document.getElementById("next");
  if (next && trial) {
    const loaded = player.clips.length === trial.slots + (trial.reference ? 1 : 0);
    const left = loaded ? player.clips.filter((_, slot) => player.total(slot) < trial.need_seconds).length : -1;
    const answered = Array.isArray(given) ? given.every((score) => score !== null) : given !== null;
    for (const control of screen.querySelectorAll("fieldset.answers, .row input")) control.disabled = left !== 0;
    next.disabled = left !== 0 || !answered;
    const hint = left < 0 ? "Loading sounds" : left > 0 ? (trial.slots === 1 ? "Listen first" : `Listen to all first: ${left} left`) : answered ? "" : Array.isArray(given) ? "Now rate every version" : "Now answer";
    const line = document.getElementById("hint");
    if (line.textContent !== hint) line.textContent = hint;
  }
  cancelAnimationFrame(frame);
  if (player.playing !== null) frame = requestAnimationFrame(paint);
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input:not([type=radio]):not([type=range]), textarea, summary")) return;
  if (event.target.matches("button") && (event.key === "Enter" || event.key === " ") && event.target.id !== "next" && !event.target.matches(".clip")) return;
  if (event.target.matches("input[type=range]") && /^(Arrow|Page|Home|End)/.test(event.key)) return;
  if (onKey(event.key)) event.preventDefault();
});

attempt(async () => {
  test = await ask("/api/test");
  document.title = document.getElementById("title").textContent = test.title;
  code = recall();
  if (!code) return welcome();
  try { await reload(); } catch (error) {
    if (error.status !== 404) throw error;
    welcome();
  }
});
