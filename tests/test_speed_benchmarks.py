"""The speed benchmark runs to its table: a row that breaks is noticed before the machine is set aside for an hour. No
times.
"""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("diffusers")


pytestmark = pytest.mark.usefixtures("checkout_on_path")


def test_rows_run_at_a_tiny_size_and_are_written_down(tmp_path, capsys):
    from benchmarks.speed.run import main

    rows = ["pretraining", "all_terms", "masking", "editing", "classifier", "data"]
    target = tmp_path / "speed.json"
    options = ["--rounds", "1", "--threads", "1", "--tiny", "--output", str(target)]
    assert main(["--rows", *rows, *options]) == 0
    report = json.loads(target.read_text())
    assert list(report["rows"]) == rows
    for row in rows:
        for result in report["rows"][row]:
            names = [contender["name"] for contender in result["contenders"]]
            # a clone without history has no implementation from before to compare with
            assert len(names) == len(set(names)) >= (1 if row == "all_terms" else 2)
            assert all(claim["peer"] in names and claim["ratio"] > 0 for claim in result["claims"])
    assert "BertForMaskedLM" in capsys.readouterr().out


def test_a_photo_is_classified_end_to_end(tmp_path):
    """What a user waits for is the whole way from the file to the label: a face must be found in the photo."""
    pytest.importorskip("cv2")
    from benchmarks.speed import photo
    from benchmarks.speed.models import TINY
    from benchmarks.speed.run import main

    target = tmp_path / "speed.json"
    options = ["--rounds", "1", "--threads", "1", "--tiny", "--output", str(target)]
    assert main(["--rows", "photo", *options]) == 0
    (result,) = json.loads(target.read_text())["rows"]["photo"]
    names = [contender["name"] for contender in result["contenders"]]
    assert names == ["GPTFace, pixel reader", "GPTFace, tokenization included", "reading and finding alone"]
    first = next(photo.comparisons(TINY)).contenders[0].run()
    assert set(first[0]) == {"label", "score", "box"}
    with Image.open(io.BytesIO(photo.jpeg_photo(photo.SIDES))) as opened:
        assert opened.width * opened.height == 12e6


def test_classifiers_stand_beside_their_peers_with_and_without_the_reader():
    from benchmarks.speed import classifier
    from benchmarks.speed.models import TINY

    cases = list(classifier.comparisons(TINY))
    assert [case.case.split(",")[0] for case in cases] == ["batch 1", "batch 8"]
    for case in cases:
        targets = {claim.peer: claim.target for claim in case.claims}
        assert targets["ViTForImageClassification"] == targets["CLIPVisionModel"] == 1.2
        first, second = case.contenders[:2]
        assert (first.name, second.name) == ("GPTFace, pixel reader", "GPTFace, tokenization included")
        assert first.run().logits.shape == second.run().logits.shape


def test_the_row_of_a_gpu_measures_a_step_and_says_where_there_is_none():
    from benchmarks.speed import gpu_step
    from benchmarks.speed.models import TINY

    (result,) = gpu_step._on_device(TINY, "cpu", (2,), 1, compiled=False)
    assert result["seconds"] > 0 and result["flops"] > 0 and result["claims"][0]["per_second"] > 0
    if not torch.cuda.is_available():
        (nothing,) = gpu_step.steps(TINY, 1)
        assert nothing["claims"] == [] and "CUDA" in nothing["notes"][0]


def test_where_git_lacks_the_commit_the_row_goes_on_without_it(tmp_path):
    from benchmarks.speed import all_terms

    with pytest.raises(LookupError, match="0000000 is not to be had"):
        all_terms.export("0" * 40, tmp_path)


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
