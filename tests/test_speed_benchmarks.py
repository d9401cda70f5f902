"""The speed benchmark runs to its table: a row that breaks is noticed before the machine is set aside for an hour. No times."""

import json

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")


pytestmark = pytest.mark.usefixtures("checkout_on_path")


def test_rows_run_at_a_tiny_size_and_are_written_down(tmp_path, capsys):
    from benchmarks.speed.run import main

    rows = ["pretraining", "masking", "editing", "classifier", "data"]
    target = tmp_path / "speed.json"
    options = ["--rounds", "1", "--threads", "1", "--tiny", "--output", str(target)]
    assert main(["--rows", *rows, *options]) == 0
    report = json.loads(target.read_text())
    assert list(report["rows"]) == rows
    for row in rows:
        for result in report["rows"][row]:
            names = [contender["name"] for contender in result["contenders"]]
            assert len(names) == len(set(names)) >= 2
            assert all(claim["peer"] in names and claim["ratio"] > 0 for claim in result["claims"])
    assert "BertForMaskedLM" in capsys.readouterr().out


def test_contenders_take_turns_and_the_ratio_is_work_per_time():
    from benchmarks.speed.timing import Claim, Comparison, Contender, measure

    order = []
    ours, peer = (Contender(name, lambda name=name: order.append(name)) for name in ("ours", "peer"))
    result = measure(Comparison("case", [ours, peer], [Claim("peer", "pairs", 2, 1, 1.0)]), rounds=3)
    assert order == ["ours", "peer"] * 4
    first, second = (contender["wall_min"] for contender in result["contenders"])
    assert result["claims"][0]["ratio"] == pytest.approx(2 * second / first)


def test_both_sides_of_the_masking_row_mask_as_much():
    from benchmarks.speed import masking
    from benchmarks.speed.models import TINY

    case = next(masking.comparisons(TINY))
    ours, peer = (contender.run() for contender in case.contenders)
    for name in ("text_labels", "image_labels"):
        assert torch.equal((ours[name] != -100).sum(1), (peer[name] != -100).sum(1))
    assert ours["input_ids"].shape == peer["input_ids"].shape


def test_flops_of_attention_are_counted():
    from benchmarks.speed.timing import Contender

    states = torch.zeros(1, 2, 8, 4)
    attention = torch.nn.MultiheadAttention(4, 2)
    contender = Contender(
        "sdpa", lambda: torch.nn.functional.scaled_dot_product_attention(states, states, states), [attention]
    )
    assert contender.count_flops() == 2 * 2 * 2 * 8 * 8 * 4
    assert contender.parameters() == sum(np.prod(p.shape) for p in attention.parameters())
