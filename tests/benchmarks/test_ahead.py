"""The ideas that stay out of the product are measured on what they claim to be."""

import json

import torch

from benchmarks import ahead


def test_int8_weights_give_the_same_product_within_their_rounding():
    row = ahead.one_byte(16, 64, 32, repeats=1)
    # a weight is off by at most 1/254 of its row's greatest, the input by 1/256; their sums over 64 stay well below
    assert 0 < row["relative_error"] < 0.03 and row["int8"] > 0


def test_only_a_part_of_the_net_is_linear():
    sizes = ahead.bytes_by_kind(tiny=True)
    assert 0 < sizes["linear_mib"] < sizes["all_mib"]


def test_the_net_that_is_exported_answers_as_the_unet():
    net, (x, t, film) = ahead.net(tiny=True), ahead.given()
    with torch.inference_mode():
        program = torch.export.export(net, (x, t, film), strict=False)
        assert torch.equal(program.module()(x, t, film), net(x, t, film))
        assert ahead.relative(net(x, t, film), net(x, t, film)) == 0


def test_rows_are_kept_where_the_time_is_short(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["ahead", "--rehearse", "--seconds", "40", "--repeats", "1", "--out",
                                     str(tmp_path / "rows.json"), "--file", str(tmp_path / "net.pt2")])  # fmt: skip
    ahead.main()
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert rows[0]["all_mib"] > rows[0]["linear_mib"]
    assert "skipped" in rows[-1]
