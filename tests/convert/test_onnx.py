"""ONNX graphs against torch, a sampler as a table, and the page in a real Chromium: words in, the same sound out.

``make browser`` installs Chromium and onnxruntime-web; without them the tests of the page fail, they do not skip.
"""

import functools
import http.server
import json
import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnxruntime
import pytest
import torch
from playwright.sync_api import expect, sync_playwright

from audioldm.adapters.adapter import start
from audioldm.adapters.files import write
from audioldm.cli.app import run
from audioldm.components import Sampling
from audioldm.convert.onnx import RUNTIME, export_onnx, plan
from audioldm.diffusion.grids import GRIDS
from audioldm.diffusion.prediction import as_denoiser
from audioldm.diffusion.samplers import SAMPLERS
from audioldm.diffusion.schedule import audioldm_zero_snr
from audioldm.diffusion.table import choose
from audioldm.errors import AudioLDMError
from audioldm.pipeline.audioldm import AudioLDM

ROOT = Path(__file__).parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WEB = Path(os.environ.get("AUDIOLDM_ORT_WEB", ROOT / ".venv" / "onnxruntime-web" / "dist"))


@pytest.fixture(scope="module")
def pipe(tiny_model):
    return AudioLDM.from_pretrained(tiny_model)


@pytest.fixture(scope="module")
def student(pipe, tiny_model, tmp_path_factory):
    """The page of a model with a student of few steps merged, by the command, and the pipeline that it is of."""
    adapter = start(
        pipe.unet, "lora", rank=2, targets=["to_q", "to_v"], generator=torch.Generator().manual_seed(0)
    )
    for layer in adapter.layers.values():
        for factor in layer.factors.values():
            factor.copy_(torch.randn(factor.shape, generator=torch.Generator().manual_seed(1)) / 4)
    sampling = {"steps": 4, "sampler": "ddim", "grid": "trailing", "guidance": 1.0}
    folder = tmp_path_factory.mktemp("student")
    about = {"sampling": json.dumps(sampling)}
    write(folder / "turbo.safetensors", replace(adapter, base=dict(pipe.hashes), about=about))
    words = ["export", tiny_model, "--onnx", folder / "page", "--merge", folder / "turbo.safetensors"]
    assert run([*map(str, words), *(["--web", str(WEB)] if WEB.is_dir() else [])]) == 0
    return folder / "page", AudioLDM.from_pretrained(tiny_model).adapt(folder / "turbo.safetensors")


@pytest.fixture(scope="module")
def exported(pipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx")
    return folder, export_onnx(pipe, folder, web=WEB if WEB.is_dir() else None)


def test_each_graph_is_torch_s_net(exported):
    _, rows = exported
    assert [row.graph for row in rows] == ["text", "unet", "decoder", "vocoder"]
    # of float16 weights; word embeddings have 8 bits
    assert all(row.error < (0.02 if row.graph == "text" else 2e-3) for row in rows), rows


def run_plan(plan, net, start, noises):
    """A table's result, with ``net(x_t, t)`` and the noises it draws."""
    known = {"x0": [], "noise": [start, *noises]}

    def total(terms):
        return sum(factor * known[kind][place] for kind, place, factor in terms)

    for call in plan["calls"]:
        x = total(call["x"])
        known["x0"].append(call["a"] * x + call["b"] * net(x, call["t"]))
    return total(plan["result"])


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
@pytest.mark.parametrize(
    "name", ["ddim", "ddim:eta=1", "dpmpp_2m", "heun", "unipc", "plms", "consistency", "euler_ancestral"]
)
def test_a_table_is_its_sampler(pipe, name, prediction):
    def net(x, t):
        return 0.3 * x + 0.1 * torch.sin(x) * (1 + torch.as_tensor(t).double().mean() / 1000)

    schedule = audioldm_zero_snr() if prediction == "v" else pipe.schedule
    model = replace(pipe, schedule=schedule, prediction=prediction)
    settings = Sampling(steps=6, sampler=name, grid="trailing")
    table = plan(model, settings)
    rng = torch.Generator().manual_seed(0)
    noises = [torch.randn(1, 4, 8, generator=rng, dtype=torch.float64) for _ in range(table["noises"])]
    sigmas = choose(GRIDS, "trailing", "grid")(schedule, 6)
    later = iter(noises[1:])
    denoise = as_denoiser(net, schedule, prediction=prediction)
    right = choose(SAMPLERS, name, "sampler")(
        denoise, noises[0] * sigmas[0], sigmas, noise=lambda: next(later)
    )
    output = run_plan(table, net, noises[0], noises[1:])
    assert torch.allclose(output, right * schedule.alpha_of(sigmas[-1]), atol=1e-6)


def test_a_sampler_that_looks_at_the_sound_is_refused(pipe):
    with pytest.raises(AudioLDMError, match="adaptive"):
        plan(pipe, Sampling(steps=4, sampler="adaptive"))


def test_onnxruntime_makes_the_pipeline_s_sound(exported, pipe):
    assert_same_sound(exported[0], pipe)


def test_a_merged_student_is_sampled_as_its_file_says_and_sounds_as_in_the_pipeline(student, pipe):
    folder, turbo = student
    about = json.loads((folder / "model.json").read_text())
    assert (len(about["plan"]["calls"]), about["plan"]["noises"], about["guidance"]) == (4, 1, 1.0)
    assert_same_sound(folder, turbo)
    assert not np.allclose(turbo("rain", seeds=[3])[0], pipe("rain", seeds=[3], steps=4)[0], atol=1e-3)


def assert_same_sound(folder, pipe):
    about = json.loads((folder / "model.json").read_text())
    nets = {
        row["graph"]: onnxruntime.InferenceSession(str(folder / f"{row['graph']}.onnx"))
        for row in about["graphs"]
    }
    guidance = about["guidance"]
    rows = 1 if guidance == 1 else 2
    films = pipe.encode_text(["rain", ""][:rows]).film.detach().numpy()

    def net(x, t):
        both = np.concatenate([x] * rows).astype(np.float32)
        out = nets["unet"].run(None, {"x": both, "t": np.full(rows, t, np.float32), "film": films})[0]
        return out if rows == 1 else out[1:] + guidance * (out[:1] - out[1:])

    start = torch.randn(about["shape"], generator=torch.Generator().manual_seed(3))[None].numpy()
    latent = run_plan(about["plan"], net, start, [])
    mel = nets["decoder"].run(None, {"latent": latent.astype(np.float32)})[0]
    wave = nets["vocoder"].run(None, {"mel": mel})[0][0, 0, : round(about["seconds"] * about["rate"])]
    right = pipe("rain", seeds=[3])[0].numpy()
    assert np.abs(wave - right).max() < 0.01 * np.abs(right).max()


@pytest.fixture(scope="module")
def chromium():
    place = os.environ.get("AUDIOLDM_CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if place is None or not WEB.is_dir():
        pytest.fail("no Chromium or no onnxruntime-web for the tests of the page: run `make browser`")
    with sync_playwright() as playwright:
        # this Chromium then has WebGPU also where there is only a software adapter
        flags = ["--no-sandbox", "--mute-audio", "--enable-unsafe-webgpu"]
        browser = playwright.chromium.launch(executable_path=place, args=flags)
        yield browser
        browser.close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A static host, as anybody has."""

    extensions_map: ClassVar = {
        ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm"
    }  # fmt: skip

    def log_message(self, *_):
        pass


@pytest.fixture
def host():
    """Serves a folder and gives its address."""
    servers = []

    def serve(folder):
        handler = functools.partial(Quiet, directory=str(folder))
        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/"

    yield serve
    for server in servers:
        server.shutdown()


def opened(chromium, address, runtime=None):
    """The page, its model loaded."""
    page = chromium.new_page()
    page.on("pageerror", lambda error: pytest.fail(str(error)))
    page.goto(address + (f"?runtime={runtime}" if runtime else ""))
    expect(page.get_by_role("status")).to_contain_text(f"Ready ({runtime or ''}", timeout=300_000)
    return page


def generated(page, prompt):
    """Type a prompt; the WAV that the page made, and what it says."""
    page.get_by_label("Prompt").fill(prompt)
    # what the last one left there would be taken for this one's
    page.get_by_role("status").evaluate("status => status.textContent = ''")
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_role("status")).to_contain_text("Done", timeout=300_000)
    data = page.evaluate(
        """async () => {
            const reply = await fetch(document.querySelector('audio').src);
            return [...new Uint8Array(await reply.arrayBuffer())];
        }"""
    )
    return bytes(data), page.get_by_role("status").text_content()


def test_the_page_turns_words_into_sound_and_reads_them_as_the_tokenizer_does(chromium, host, pipe, exported):
    page = opened(chromium, host(exported[0]))
    wav, line = generated(page, "rain on a tin roof")
    wave = np.frombuffer(wav[44:], dtype="<i2")
    assert len(wave) == round(1.28 * 16000) and np.abs(wave).max() > 300, line
    texts = ["A dog barking!", "l'été, naïve ROOSTER", "rain-on 12 roofs", "雨 x", "", "a\u200bb\tc"]
    texts.append("unknownword " * 90)
    read = page.evaluate(
        """async (texts) => {
            const { Tokenizer } = await import('./audioldm.js');
            const tokenizer = new Tokenizer(await (await fetch('tokenizer.json')).json());
            return texts.map((text) => tokenizer.encode(text, 77).ids);
        }""",
        texts,
    )
    right = pipe.clap.tokenizer(texts, padding="max_length", truncation=True, max_length=77).input_ids
    assert read == right


@pytest.mark.slow
def test_webgpu_makes_webassembly_s_sound(chromium, host, student):
    """Also where the adapter is software, which is slow: three orders above float32's rounding (3e-6 was measured)."""
    address, waves = host(student[0]), []
    for runtime in ("wasm", "webgpu"):
        page = opened(chromium, address, runtime)
        if runtime == "webgpu" and not page.evaluate("navigator.gpu.requestAdapter().then(Boolean)"):
            pytest.skip("this Chromium has no WebGPU adapter")
        wav, line = generated(page, "rain")
        print(runtime, line)
        waves.append(np.frombuffer(wav[44:], dtype="<i2").astype(float))
    assert np.abs(waves[0] - waves[1]).max() <= 2 + 1e-3 * np.abs(waves[0]).max()


def test_a_software_adapter_and_a_gpu_that_fails_leave_webassembly(chromium, host, student, tmp_path):
    assert "wasm" in opened(chromium, host(student[0])).get_by_role("status").text_content()
    shutil.copytree(student[0], tmp_path, dirs_exist_ok=True)
    (tmp_path / RUNTIME["webgpu"]["script"]["url"]).write_text("damaged")
    page = chromium.new_page()
    real = "Object.defineProperty(GPUAdapterInfo.prototype, 'isFallbackAdapter', {get: () => false})"
    page.add_init_script(real)
    page.goto(host(tmp_path))
    expect(page.get_by_role("status")).to_contain_text("Ready (wasm)", timeout=300_000)


def test_a_damaged_runtime_is_not_run(chromium, host, exported, tmp_path):
    shutil.copytree(exported[0], tmp_path, dirs_exist_ok=True)
    with (tmp_path / RUNTIME["wasm"]["script"]["url"]).open("ab") as file:
        file.write(b"// more")
    page = chromium.new_page()
    page.goto(host(tmp_path))
    expect(page.get_by_role("status")).to_contain_text("could not be loaded", timeout=60_000)


@pytest.mark.slow
def test_the_embedded_student_in_the_browser_is_recognised(chromium, host, tmp_path):
    import io

    import soundfile

    from audioldm.evaluation.embedders.yamnet import YamNet
    from audioldm.evaluation.prompts import class_scores, right_classes

    rows = export_onnx(AudioLDM.from_pretrained().adapt("turbo"), tmp_path, web=WEB)
    print(*rows, sep="\n")
    assert sum(row.megabytes for row in rows) < 60
    page = opened(chromium, host(tmp_path))
    wav, line = generated(page, "rain falling")
    print(line)
    if "AUDIOLDM_PICTURE" in os.environ:
        page.screenshot(path=os.environ["AUDIOLDM_PICTURE"])
    wave, rate = soundfile.read(io.BytesIO(wav), dtype="float32")
    scores = class_scores(torch.from_numpy(wave), rate, YamNet())
    assert right_classes(scores, ["Rain"]), list(scores.items())[:5]
