"""A choice with its options: read, checked, and reaching the function."""

from math import inf

import pytest
import torch

from audioldm.diffusion.grids import GRIDS
from audioldm.diffusion.guidance import GUIDANCE
from audioldm.diffusion.samplers import SAMPLERS
from audioldm.diffusion.schedule import audioldm
from audioldm.diffusion.table import LIMITS, choose
from audioldm.errors import AudioLDMError


def test_options_reach_the_function():
    sparse, plain = (choose(GRIDS, name, "grid")(audioldm(), 5) for name in ("karras:rho=2", "karras"))
    torch.testing.assert_close(sparse, GRIDS["karras"](audioldm(), 5, rho=2))
    assert not torch.allclose(sparse, plain)
    assert choose(SAMPLERS, "vp_sde:rounds=2, size=0.1", "sampler").keywords == {"rounds": 2, "size": 0.1}


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ("magic", "Known: adaptive"),
        ("ddim:eta=2", "0 to 1"),
        ("ddim:eta=nan", "0 to 1"),
        ("ddim:eta", "eta='' cannot be"),
        ("ddim:", "no option ''"),
        ("ddim:noise=1", "Options: eta."),
        ("heun:eta=0", "takes none"),
        ("vp_sde:rounds=1.5", "a whole number"),
        ("dpmpp_2m_sde:eta=inf", "0 to 1"),
        ("unipc:order=9", "1 to 3"),
    ],
)
def test_a_wrong_choice_says_what_is_known(choice, told):
    with pytest.raises(AudioLDMError, match="sampler=") as caught:
        choose(SAMPLERS, choice, "sampler")
    assert told in str(caught.value)


@pytest.mark.parametrize("table", [SAMPLERS, GRIDS, GUIDANCE], ids=["samplers", "grids", "guidance"])
def test_every_entry_has_a_line_a_paper_and_limits_that_hold_its_defaults(table):
    for entry in table.values():
        assert entry.line.endswith(".") and "arXiv" in entry.paper
        for key, default in entry.options().items():
            low, high = LIMITS.get(key, (0, inf))
            assert low <= default <= high


@pytest.mark.parametrize("name", [name for name, entry in SAMPLERS.items() if entry.options()])
@pytest.mark.parametrize("end", [0, 1])
def test_every_option_runs_at_both_its_limits(name, end):
    x = 10 * torch.randn(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sigmas = torch.tensor([10.0, 3.0, 1.0, 0.0]).double()
    for option, default in SAMPLERS[name].options().items():
        value = LIMITS.get(option, (0, 10 * default))[end]
        if option == "most":
            value = default  # its lowest is meant to fail
        run = choose(SAMPLERS, f"{name}:{option}={value}", "sampler")
        out = run(lambda x, s: x / (1 + s[:, None] ** 2), x, sigmas, noise=lambda: torch.randn(2, 3))
        assert out.isfinite().all(), (option, value)
