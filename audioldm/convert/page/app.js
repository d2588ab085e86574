import { Model, wav } from "./audioldm.js";

const [form, prompt, seed, go, status, canvas, sound] =
  ["form", "prompt", "seed", "go", "status", "wave", "sound"].map((id) => document.getElementById(id));
const say = (text) => { status.textContent = text; };

function draw(wave) {
  const pen = canvas.getContext("2d"), { width, height } = canvas, step = wave.length / width;
  pen.clearRect(0, 0, width, height);
  pen.fillStyle = "#1d4ed8";
  for (let x = 0; x < width; x++) {
    const part = wave.subarray(Math.floor(x * step), Math.ceil((x + 1) * step));
    const high = Math.max(...part), low = Math.min(...part);
    pen.fillRect(x, (1 - high) * height / 2, 1, Math.max(1, (high - low) * height / 2));
  }
}

async function main() {
  const model = await Model.load(".", say, new URLSearchParams(location.search).get("runtime"));
  say(`Ready (${model.kind}).`);
  go.disabled = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (go.disabled) return;
    if (!prompt.value.trim()) return say("The prompt is empty. Say what you want to hear.");
    go.disabled = true;
    try {
      const begin = performance.now();
      const wave = await model.generate(prompt.value, Number(seed.value) >>> 0, (step, steps) => say(`Step ${step} of ${steps}.`));
      const seconds = (performance.now() - begin) / 1000;
      URL.revokeObjectURL(sound.src);
      sound.src = URL.createObjectURL(wav(wave, model.about.rate));
      draw(wave);
      canvas.hidden = sound.hidden = false;
      say(`Done: ${model.about.seconds} s of sound in ${seconds.toFixed(1)} s.`);
    } catch (error) {
      say(`It failed: ${error.message}`);
    }
    go.disabled = false;
  });
}

main().catch((error) => say(`The model could not be loaded: ${error.message}`));
