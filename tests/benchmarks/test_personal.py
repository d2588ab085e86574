"""The table of all ways to teach a sound: means over whole sets only, and FD as a change."""

import torch

from audioldm import recipes
from benchmarks.personal import loudest
from benchmarks.personal_table import METHODS, tables

BASE = ("real clips", "base, told the caption", 'base, told "my sound"')


def content(sets):
    row = {"clap": 0.5, "yamnet": 0.25, "adherence": 0.1, "diversity": 0.2, "forgetting": 10.0}
    whole = {method: dict(row) for method in (*BASE, *METHODS)}
    whole["LoRA"] = {
        **row,
        "forgetting": 12.5,
        "parameters": 386048,
        "megabytes": 1.5,
        "minutes": 2.0,
        "gigabytes": 1.0,
    }
    cells = {name: {k: dict(v) for k, v in whole.items()} for name in sets}
    for place, rows in enumerate(cells.values()):
        rows["LoRA"]["clap"] += 0.1 * place
    return {"base": "m", "settings": {"batches": 3}, "sets": dict.fromkeys(sets, "x"), "cells": cells}


def test_every_method_is_a_recipe():
    assert {f"personal/{name}" for name in METHODS.values()} <= set(recipes.names())


def test_the_mean_is_over_sets_that_are_whole():
    told = content(["a", "b", "c"])
    del told["cells"]["c"]["LoHa"]
    lines = tables(told).splitlines()
    assert "**mean of a, b**" in lines
    lora = [line for line in lines if line.startswith("| LoRA ")]
    assert lora[0] == "| LoRA | 0.55 | 0.25 | 0.10 | 0.20 | +2.50 | 386,048 | 1.50 | 2.00 | 1.00 |"
    assert len(lora) == 4


def test_the_loudest_second_is_found():
    wave = torch.zeros(5 * 16000)
    wave[40000:44000] = 0.5
    assert loudest(wave).square().sum() == 1000
    assert len(loudest(wave)) == 15600
