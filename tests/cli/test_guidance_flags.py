"""``--sampler``, ``--grid`` and ``--guidance-*`` from the command line to the sidecar, and ``audioldm samplers``."""

import json

import pytest

from audioldm.diffusion.grids import GRIDS
from audioldm.diffusion.guidance import GUIDANCE
from audioldm.diffusion.samplers import SAMPLERS
from audioldm.pipeline.guidance import METHODS

QUICK = ("--seconds", "0.2", "--steps", "2", "--set", "figure=false")


@pytest.fixture
def generate(command, tiny_model, tmp_path, capsys):
    """One clip from the tiny model; returns (exit code, its sidecar or None, stderr)."""

    def execute(*words, model=tiny_model):
        code = command("generate", "rain", "-m", model, "-o", tmp_path / "out", "--force", *QUICK, *words)
        err = capsys.readouterr().err
        sidecar = tmp_path / "out" / "rain_seed0.json"
        return code, json.loads(sidecar.read_text()) if sidecar.exists() else None, err

    return execute


FLAGS = {
    "options of sampler and grid": (
        ("--sampler", "vp_sde:rounds=2,size=0.1", "--set", "grid=karras:rho=5"),
        {"sampler": "vp_sde:rounds=2,size=0.1", "grid": "karras:rho=5"},
    ),
    "method": (("--set", "guidance_method=rescale:phi=0.5"), {"guidance_method": "rescale:phi=0.5"}),
    "cfg++": (
        ("--set", "guidance_method=cfg_plus_plus", "--guidance", "0.6", "--sampler", "euler"),
        {"guidance_method": "cfg_plus_plus", "guidance": 0.6},
    ),
    "interval": (("--set", "guidance_interval=0.3,5"), {"guidance_interval": [0.3, 5.0]}),
    "threshold": (("--set", "guidance_threshold=0.995,3"), {"guidance_threshold": [0.995, 3.0]}),
    "also": (
        ("--set", "guidance_extra_prompts=birds:0.5", "--set", "guidance_extra_prompts=noise:-1"),
        {"guidance_extra_prompts": [["birds", 0.5], ["noise", -1.0]]},
    ),
    "clap": (("--set", "guidance_clap=30"), {"guidance_clap": 30.0}),
    "negative": (("--negative", "wind"), {"negative": "wind"}),
}


@pytest.mark.parametrize(("words", "written"), FLAGS.values(), ids=FLAGS)
def test_a_flag_reaches_the_sidecar(generate, words, written):
    code, sidecar, err = generate(*words)
    assert code == 0, err
    assert written.items() <= sidecar["settings"].items()


def test_a_weak_model_is_named_with_its_hashes(generate, tiny_model):
    code, sidecar, err = generate("--set", f"guidance_weak={tiny_model}")
    assert code == 0, err
    assert sidecar["settings"]["guidance_weak"]["name"] == "tiny"


REFUSED = {
    "unknown method": (("--set", "guidance_method=magic"), "guidance_method='magic' is unknown"),
    "unknown option": (("--set", "guidance_method=apg:mu=1"), "there is no option 'mu'"),
    "option out of range": (("--sampler", "ddim:eta=2"), "eta='2' cannot be"),
    "empty interval": (("--set", "guidance_interval=5,1"), "LOW below HIGH"),
    "interval without end": (("--set", "guidance_interval=1,inf"), "out of range"),
    "interval nan": (("--set", "guidance_interval=nan,1"), "out of range"),
    "quantile": (("--set", "guidance_threshold=2,1"), "QUANTILE=2 is out of range"),
    "floor": (("--set", "guidance_threshold=0.9,0"), "FLOOR=0 is out of range"),
    "clap": (("--set", "guidance_clap=-1"), "guidance_clap=-1"),
    "also without text": (("--set", "guidance_extra_prompts=:2"), "guidance_extra_prompts=':2'"),
    "also with another method": (
        ("--set", "guidance_extra_prompts=b", "--set", "guidance_method=apg"),
        "one prompt only",
    ),
    "cfg++ with noise": (
        ("--set", "guidance_method=cfg_plus_plus", "--sampler", "ddpm"),
        "does not go with sampler=ddpm",
    ),
    "cfg++ too strong": (
        ("--set", "guidance_method=cfg_plus_plus", "--sampler", "euler", "--guidance", "3"),
        "0 to 1",
    ),
    "weak and negative": (("--set", "guidance_weak=no/such", "--negative", "x"), "Give one"),
}


@pytest.mark.parametrize(("words", "expected"), REFUSED.values(), ids=REFUSED)
def test_what_no_run_could_use_is_refused_before_the_model(generate, words, expected):
    code, sidecar, err = generate(*words, model="no/such/model")
    assert (code, sidecar) == (2, None)
    assert expected in err
    assert err.count("\n") == 1


def test_what_does_not_fit_the_models_defaults_is_refused(generate):
    code, sidecar, err = generate("--set", "guidance_method=cfg_plus_plus")
    assert (code, sidecar) == (2, None)
    assert "guidance=2 is too much for cfg_plus_plus" in err


def test_samplers_lists_each_with_a_line_and_its_paper(command, capsys):
    assert command("samplers") == 0
    lines = capsys.readouterr().out.splitlines()
    for table in (SAMPLERS, GRIDS, METHODS):
        for name, entry in table.items():
            (line,) = [line for line in lines if line.startswith(f"  {name} ")]
            assert entry.line in line
            assert entry.paper in line
    shown = "\n".join(lines)
    assert all(entry.line in shown for entry in GUIDANCE.values())


def test_samplers_as_json(command, capsys):
    assert command("samplers", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["samplers"]["ddim"]["options"] == {"eta": 0.0}
    assert report["samplers"]["heun"]["calls_per_step"] == "2"
