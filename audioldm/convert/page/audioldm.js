// A model that `audioldm export --onnx` wrote, run by onnxruntime-web. Shapes: C channels, T frames, F bins.

const pin = async (place) => {
  const response = await fetch(place.url, place.sha384 ? { integrity: `sha384-${place.sha384}` } : {});
  if (!response.ok) throw new Error(`${place.url}: ${response.status}`);
  return response;
};

// onnxruntime-web is asked for as bytes with a known hash, and run from there: also from another site's cache.
async function runtime(places) {
  const script = await (await pin(places.script)).blob();
  const ort = await import(URL.createObjectURL(new Blob([script], { type: "text/javascript" })));
  ort.env.wasm.wasmBinary = await (await pin(places.binary)).arrayBuffer();
  ort.env.wasm.numThreads = 1;  // more need headers that a static host rarely sends
  return ort;
}

// BERT's words and pieces of words, as the tokenizers library makes them.
export class Tokenizer {
  constructor(file) {
    this.vocab = new Map(Object.entries(file.model.vocab));
    this.unknown = this.vocab.get(file.model.unk_token);
    this.longest = file.model.max_input_chars_per_word;
    const [first, , last] = file.post_processor.single;
    this.ends = [first, last].map((part) => file.post_processor.special_tokens[part.SpecialToken.id].ids[0]);
    this.pad = file.padding?.pad_id ?? this.vocab.get("<pad>");
  }

  words(text) {
    const plain = text.replace(/[\u0000\ufffd]|(?![\t\n\r])[\p{Cc}\p{Cf}]/gu, "")
      .replace(/[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]/gu, " $& ")
      .normalize("NFD").replace(/\p{Mn}/gu, "").toLowerCase();
    return plain.match(/[!-\/:-@\[-`{-~]|\p{P}|(?:(?![!-\/:-@\[-`{-~]|\p{P})\S)+/gu) ?? [];
  }

  pieces(word) {
    const letters = [...word], ids = [];
    if (letters.length > this.longest) return [this.unknown];
    for (let begin = 0; begin < letters.length;) {
      let end = letters.length, id;
      for (; end > begin; end--) {
        id = this.vocab.get((begin ? "##" : "") + letters.slice(begin, end).join(""));
        if (id !== undefined) break;
      }
      if (end === begin) return [this.unknown];
      ids.push(id);
      begin = end;
    }
    return ids;
  }

  encode(text, length) {
    const inside = this.words(text).flatMap((word) => this.pieces(word)).slice(0, length - 2);
    const ids = [this.ends[0], ...inside, this.ends[1]];
    return { ids: [...ids, ...Array(length - ids.length).fill(this.pad)], count: ids.length };
  }
}

// Standard normal numbers of a seed (mulberry32, Box-Muller): the same sound for it, though not torch's.
function normals(seed) {
  let state = seed >>> 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let z = Math.imul(state ^ (state >>> 15), state | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return ((z ^ (z >>> 14)) >>> 0) / 4294967296;
  };
  return (size) => Float32Array.from({ length: size },
    () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform()));
}

export class Model {
  // `kind` is webgpu or wasm; else WebGPU where there is a real one: a software adapter is slower than WebAssembly.
  static async load(base, tell = () => {}, kind = null) {
    const gpu = await navigator.gpu?.requestAdapter();
    const kinds = kind ? [kind] : gpu && !gpu.info.isFallbackAdapter ? ["webgpu", "wasm"] : ["wasm"];
    for (const [place, one] of kinds.entries()) {
      try {
        return await Model.opened(base, tell, one);
      } catch (error) {
        if (place === kinds.length - 1) throw error;  // else WebAssembly may do what a driver cannot
      }
    }
  }

  static async opened(base, tell, kind) {
    const model = new Model();
    model.about = await (await fetch(`${base}/model.json`)).json();
    model.tokenizer = new Tokenizer(await (await fetch(`${base}/tokenizer.json`)).json());
    [model.ort, model.kind, model.nets] = [await runtime(model.about.runtime[kind]), kind, {}];
    for (const { graph, megabytes } of model.about.graphs) {
      tell(`Loading ${graph}, ${megabytes.toFixed(1)} MB.`);
      const bytes = await (await pin({ url: `${base}/${graph}.onnx` })).arrayBuffer();
      model.nets[graph] = await model.ort.InferenceSession.create(bytes, { executionProviders: [model.kind] });
    }
    return model;
  }

  async call(graph, inputs) {
    await new Promise((go) => setTimeout(go));  // a net holds the page up while it runs: let it be drawn before
    const feeds = Object.fromEntries(Object.entries(inputs).map(([name, [data, dims]]) =>
      [name, new this.ort.Tensor(data instanceof BigInt64Array ? "int64" : "float32", data, dims)]));
    return (await this.nets[graph].run(feeds)).out.data;
  }

  async embed(text) {
    const { tokens } = this.about, { ids, count } = this.tokenizer.encode(text, tokens);
    const mask = ids.map((_, place) => BigInt(place < count));
    return this.call("text", { tokens: [BigInt64Array.from(ids, BigInt), [1, tokens]], mask: [BigInt64Array.from(mask), [1, tokens]] });
  }

  // A wave (N,) of `prompt`; a clip that comes out silent is drawn again, as the pipeline does.
  async generate(prompt, seed, tell = () => {}) {
    let wave;
    for (let draw = 0; draw <= this.about.retry_silent; draw++) {
      wave = await this.draw(prompt, (seed + 0x9e3779b9 * draw) >>> 0, tell);
      if (wave.some((value) => Math.abs(value) > 0.02)) break;
    }
    return wave;
  }

  async draw(prompt, seed, tell) {
    const { shape, guidance, plan } = this.about, size = shape.reduce((a, b) => a * b);
    const film = await this.embed(prompt), rows = guidance === 1 ? 1 : 2, random = normals(seed);
    const films = rows === 1 ? film : Float32Array.from([...film, ...await this.embed("")]);
    const known = { x0: [], noise: Array.from({ length: plan.noises }, () => random(size)) };
    const sum = (terms) => {
      const total = new Float32Array(size);
      for (const [kind, place, factor] of terms) {
        const part = known[kind][place];
        for (let i = 0; i < size; i++) total[i] += factor * part[i];
      }
      return total;
    };
    for (const [step, call] of plan.calls.entries()) {
      const x = sum(call.x), both = new Float32Array(rows * size);
      for (let row = 0; row < rows; row++) both.set(x, row * size);
      const out = await this.call("unet", {
        x: [both, [rows, ...shape]], t: [new Float32Array(rows).fill(call.t), [rows]], film: [films, [rows, film.length]],
      });
      known.x0.push(Float32Array.from(x, (value, i) => {
        const guided = rows === 1 ? out[i] : out[size + i] + guidance * (out[i] - out[size + i]);
        return call.a * value + call.b * guided;
      }));
      tell(step + 1, plan.calls.length);
    }
    const mel = await this.call("decoder", { latent: [sum(plan.result), [1, ...shape]] });
    const [, frames, bins] = shape, times = Math.sqrt(mel.length / (frames * bins));
    const wave = await this.call("vocoder", { mel: [mel, [1, 1, frames * times, bins * times]] });
    return wave.slice(0, Math.round(this.about.seconds * this.about.rate));
  }
}

// A WAV file of 16 bits; what is beyond full scale is turned down as a whole.
export function wav(wave, rate) {
  const view = new DataView(new ArrayBuffer(44 + 2 * wave.length));
  const peak = wave.reduce((most, value) => Math.max(most, Math.abs(value)), 1);
  const text = (place, letters) => [...letters].forEach((letter, i) => view.setUint8(place + i, letter.charCodeAt(0)));
  text(0, "RIFF"); view.setUint32(4, 36 + 2 * wave.length, true); text(8, "WAVEfmt "); view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); view.setUint16(22, 1, true); view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true); view.setUint16(32, 2, true); view.setUint16(34, 16, true);
  text(36, "data"); view.setUint32(40, 2 * wave.length, true);
  wave.forEach((value, i) => view.setInt16(44 + 2 * i, Math.round(32767 * value / peak), true));
  return new Blob([view], { type: "audio/wav" });
}
