// Plays the clips of one trial. All are decoded before the first sounds, so that switching waits for nothing.
const RATE = 48000; // Hz; the files' own, so that no browser resamples in its own way
const RAMP = 0.008; // s; a switch without a click

export class Player {
  constructor(onChange) {
    this.onChange = onChange;
    this.clips = [];
    this.heard = [];
    this.switches = 0;
    this.now = null; // { slot, source, gain, start, offset }
  }

  // Browsers let sound start only in answer to a click or a key: call this from one.
  wake() {
    this.context ??= new AudioContext({ sampleRate: RATE });
    if (this.context.state === "suspended") this.context.resume();
  }

  clear() {
    this.stop();
    this.clips = [];
    this.heard = [];
    this.ticket = null;
  }

  async load(urls) {
    this.clear();
    this.context ??= new AudioContext({ sampleRate: RATE });
    const ticket = (this.ticket = {});
    const clips = await Promise.all(urls.map(async (url) => {
      const reply = await fetch(url);
      if (!reply.ok) throw new Error(`A sound could not be loaded (${reply.status}).`);
      return this.context.decodeAudioData(await reply.arrayBuffer());
    }));
    if (ticket !== this.ticket) return;
    this.clips = clips;
    this.heard = clips.map(() => 0);
    this.switches = 0;
    this.last = null;
  }

  get playing() { return this.now ? this.now.slot : null; }

  // Seconds into the clip that plays.
  position() {
    if (!this.now) return 0;
    const { start, offset, slot } = this.now;
    return (offset + Math.max(0, this.context.currentTime - start)) % this.clips[slot].duration;
  }

  total(slot) {
    const running = this.now?.slot === slot ? this.context.currentTime - this.now.start : 0;
    return this.heard[slot] + Math.max(0, running);
  }

  // together: go on at the same place in a loop, as versions of one recording are compared.
  play(slot, { together = false, loop = false } = {}) {
    this.wake();
    if (!this.clips[slot]) return;
    const offset = together && this.now ? this.position() : 0;
    if (this.last !== null && this.last !== slot) this.switches += 1;
    this.stop();
    const source = new AudioBufferSourceNode(this.context, { buffer: this.clips[slot], loop: together || loop });
    const gain = new GainNode(this.context, { gain: 0 });
    const start = this.context.currentTime;
    gain.gain.setValueAtTime(0, start);
    gain.gain.linearRampToValueAtTime(1, start + RAMP);
    source.connect(gain).connect(this.context.destination);
    source.onended = () => { if (this.now?.source === source) this.stop(); };
    source.start(start, offset);
    this.now = { slot, source, gain, start, offset };
    this.last = slot;
    this.onChange();
  }

  stop() {
    if (!this.now) return;
    const { slot, source, gain, start } = this.now;
    const end = this.context.currentTime;
    this.heard[slot] += Math.max(0, end - start);
    gain.gain.cancelScheduledValues(end);
    gain.gain.setValueAtTime(gain.gain.value, end);
    gain.gain.linearRampToValueAtTime(0, end + RAMP);
    source.stop(end + RAMP);
    this.now = null;
    this.onChange();
  }

  toggle(slot, how) {
    if (this.playing === slot) this.stop();
    else this.play(slot, how);
  }
}
