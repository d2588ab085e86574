"""Memory that is let go of keeps its contents, and what was changed is not let go of."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from audioldm.nets.folder import load_component, save_component
from audioldm.nets.machine import heap
from audioldm.nets.unet import build_unet

pytestmark = pytest.mark.skipif(heap.libc() is None, reason="needs glibc 2.33")


def held(net: nn.Module) -> int:
    """KiB of the weight files of ``net`` that are in memory."""
    places = [weight.data_ptr() for weight in net.parameters()]
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ", 1)[0]:
            begin, end = (int(address, 16) for address in line.split(" ", 1)[0].split("-"))
            inside = any(begin <= place < end for place in places)
        elif inside and line.startswith("Rss:"):
            total += int(line.split()[1])
    return total


def loaded(folder: Path) -> nn.Module:
    """A U-Net of 4 MB that views its file."""
    torch.manual_seed(0)
    save_component(build_unet(channels=(32, 64, 64, 96), layers=1, head_channels=8, film_dim=16), folder)
    return load_component(folder)


def test_forgotten_weights_are_read_again(tmp_path: Path) -> None:
    net = loaded(tmp_path)
    before = [weight.clone() for weight in net.parameters()]
    full = held(net)
    heap.release_weight_pages(net, least=0)
    assert held(net) < 0.2 * full
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_nets_that_are_small_stay(tmp_path: Path) -> None:
    net = loaded(tmp_path)
    full = held(net)
    heap.release_weight_pages(net)
    assert held(net) == full


def test_a_changed_weight_is_never_forgotten(tmp_path: Path) -> None:
    net = loaded(tmp_path)
    with torch.no_grad():
        net.conv_in.weight.add_(1)
    before = [weight.clone() for weight in net.parameters()]
    heap.release_weight_pages(net, least=0)
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_a_folder_can_be_saved_over_the_file_that_it_was_loaded_from(tmp_path: Path) -> None:
    net = loaded(tmp_path)
    before = [weight.clone() for weight in net.parameters()]
    with torch.no_grad():
        net.conv_in.weight.add_(1)
    save_component(net, tmp_path)
    again = load_component(tmp_path)
    assert torch.equal(again.conv_in.weight, net.conv_in.weight)
    assert all(torch.equal(a, b) for a, b in zip(before[1:], list(net.parameters())[1:], strict=True))
    assert [path.suffix for path in tmp_path.iterdir() if "part" in path.name] == []


def test_idle_memory_goes_back_above_the_limit() -> None:
    code = """
import torch
from audioldm.nets.machine import heap
heap.keep_freed()
pieces = [torch.ones(2**20) for _ in range(100)]
wall = torch.ones(1)
full = heap.private()
del pieces
kept = heap.private()
heap.trim_heap(2**30)
assert heap.private() > full - 2**25 and kept > full - 2**25, "below the limit it is kept"
heap.trim_heap(2**27)
assert heap.private() < full - 300 * 2**20, "above it goes"
"""
    subprocess.run([sys.executable, "-c", code], check=True)
