// Draw a region on the waveform: pointer down, drag, up. The numbers From and To are the same region for the keyboard.
(() => {
  let begin = null;
  const field = (id) => document.querySelector(`#${id} input`);
  const write = (id, seconds) => {
    const input = field(id);
    input.value = seconds.toFixed(2);
    input.dispatchEvent(new Event("input", { bubbles: true }));
  };
  const place = (wave, event) => {
    const box = wave.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    return share * Number(wave.dataset.seconds);
  };
  const draw = () => {
    const wave = document.querySelector("#wave");
    const shade = wave && wave.querySelector(".shade");
    if (!shade || !field("from") || !field("to")) return;
    const [from, to] = [Number(field("from").value), Number(field("to").value)];
    const all = Number(wave.dataset.seconds);
    shade.style.left = `${(100 * Math.min(from, to)) / all}%`;
    shade.style.width = `${(100 * Math.max(0, Math.min(to, all) - from)) / all}%`;
  };
  document.addEventListener("pointerdown", (event) => {
    const wave = event.target.closest && event.target.closest("#wave");
    if (!wave) return;
    event.preventDefault();
    begin = place(wave, event);
  });
  document.addEventListener("pointermove", (event) => {
    const wave = document.querySelector("#wave");
    if (begin === null || !wave) return;
    const now = place(wave, event);
    write("from", Math.min(begin, now));
    write("to", Math.max(begin, now));
    draw();
  });
  document.addEventListener("pointerup", () => { begin = null; });
  document.addEventListener("input", draw);
  new MutationObserver(draw).observe(document.documentElement, { childList: true, subtree: true });
})();
