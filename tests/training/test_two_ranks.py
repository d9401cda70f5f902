"""Two machines must train as one with twice the batch: on other samples each, to the same weights."""

import json

import pytest
import torch
from safetensors.torch import load_file

from gptface.training.pretraining import PreTrainingConfig, pretrain

SCRIPT = """
    import json, os, sys
    from pathlib import Path

    import torch
    from safetensors.torch import save_file

    from gptface.modeling_gptface.heads_gptface import GPTFaceForPreTraining
    from gptface.training.pretraining_collator import PreTrainingCollator
    from gptface.training.pretraining import PreTrainingConfig, pretrain
    from gptface.training.pretraining_trainer import PreTrainer

    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    collate, train = PreTrainingCollator.__call__, PreTrainer.train
    seen = []

    def recording(self, samples):
        seen.append([[sample["epoch"], sample["id"]] for sample in samples])
        return collate(self, samples)

    def keeping(self, *args, **kwargs):
        train(self, *args, **kwargs)
        folder = Path(self.args.output_dir)
        weights = {n: p.detach().clone() for n, p in self.model.named_parameters()}
        save_file(weights, folder / f"rank{rank}.safetensors")
        (folder / f"rank{rank}.json").write_text(json.dumps(seen))
        seen.clear()

    PreTrainingCollator.__call__, PreTrainer.train = recording, keeping
    for recipe in sys.argv[1:]:
        pretrain(PreTrainingConfig.from_yaml(recipe))

    # last, a loss that is broken on one rank alone
    forward = GPTFaceForPreTraining.forward

    def broken(self, *args, **kwargs):
        outputs = forward(self, *args, **kwargs)
        if rank == 1:
            outputs.image_loss = outputs.loss = outputs.image_loss * float("nan")
        return outputs

    GPTFaceForPreTraining.forward = broken
    pretrain(PreTrainingConfig.from_yaml(sys.argv[1], output_dir=sys.argv[1] + ".broken"))
"""
# five steps an epoch
STEPS = 7
ARGUMENTS = {"max_steps": STEPS, "save_steps": STEPS, "eval_steps": STEPS}
KINDS = ("map", "stream")


@pytest.fixture(scope="module")
def runs(finished_run, write_recipe, run_two_ranks, tmp_path_factory):
    """Output of torchrun, and the recipes' folders: batch 4 on two ranks, batch 8 on one."""
    recipes, start = {}, str(finished_run / "final")
    for kind in KINDS:
        for batch in (4, 8):
            folder = tmp_path_factory.mktemp(f"{kind}{batch}")
            arguments = {**ARGUMENTS, "per_device_train_batch_size": batch}
            recipes[kind, batch] = write_recipe(
                folder, streaming=kind == "stream", start_from=start, arguments=arguments
            )
            if batch == 8:
                pretrain(PreTrainingConfig.from_yaml(recipes[kind, batch]))
    process = run_two_ranks(SCRIPT, *(recipes[kind, 4] for kind in KINDS))
    return process, {key: path.parent / "run" for key, path in recipes.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_ranks_see_other_samples_and_end_in_equal_weights(runs, kind):
    process, folders = runs
    folder = folders[kind, 4]
    assert (folder / "rank1.json").exists(), process.stderr[-3000:]
    seen = [json.loads((folder / f"rank{rank}.json").read_text())[:STEPS] for rank in range(2)]
    samples = [{tuple(sample) for batch in batches for sample in batch} for batches in seen]
    assert len(samples[0]) == len(samples[1]) == 4 * STEPS and not samples[0] & samples[1]
    # the second epoch is one: of other masks and captions
    assert [
        {epoch for batch in batches[at] for epoch, _ in batch} for batches in seen for at in (slice(5), slice(5, 7))
    ] == [
        {0},
        {1},
    ] * 2
    weights = [load_file(folder / f"rank{rank}.safetensors") for rank in range(2)]
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name]), name


@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_train_as_one_with_twice_the_batch(runs, kind):
    process, folders = runs
    two, one = folders[kind, 4], folders[kind, 8]
    assert (two / "final").exists(), process.stderr[-3000:]
    first, second = (load_file(folder / "final/model.safetensors") for folder in (two, one))
    for name, tensor in first.items():
        # Muon multiplies in bfloat16 where that is fast: other rounding of sums this large; steps are of 1e-3
        assert torch.allclose(tensor, second[name], rtol=0, atol=1e-4), name
    logs = [json.loads((f / f"checkpoint-{STEPS}/trainer_state.json").read_text())["log_history"] for f in (two, one)]
    for mine, other in zip(*logs, strict=True):
        for key in ("loss", "text_loss", "image_loss", "match_loss", "eval_image_loss", "eval_match_auc"):
            assert mine.get(key) == pytest.approx(other.get(key), abs=2e-3), key


def test_a_loss_broken_on_one_rank_stops_all_and_names_the_step(runs):
    process, _ = runs
    assert process.returncode != 0
    assert "the loss is not finite in step 1 (image_loss)" in process.stderr, process.stderr[-3000:]
