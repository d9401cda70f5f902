"""Carrying a trained transformer over to another image tokenizer: what was learned of the codes must not be lost."""

import pytest
import torch

from gptface import GPTFaceImageTokenizer
from gptface.data.encode import ABSENT
from gptface.training.code_transfer import paired_codes, split_by_levels, swap_image_tokenizer


def codes_of(config, faces=40):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(config.num_codes, (faces, config.num_image_tokens), generator=generator).numpy()


@pytest.mark.parametrize("code_embedding", ["free", "levels"])
def test_the_same_tokenizer_keeps_the_code_vectors_that_occur(tiny_model, code_embedding, monkeypatch):
    model = tiny_model(code_embedding=code_embedding)
    codes = codes_of(model.config, 400)
    # the tiny tokenizer is random: what it decodes it does not encode again
    same = torch.from_numpy(codes).flatten()
    monkeypatch.setattr("gptface.training.code_transfer.paired_codes", lambda *_: (same, same))
    carried = swap_image_tokenizer(model, model.image_tokenizer, codes)
    old, new = model.gptface.embeddings.code_table(), carried.gptface.embeddings.code_table()
    assert (new - old).norm() < 0.25 * old.norm()
    torch.testing.assert_close(carried.match_head.dense.weight, model.match_head.dense.weight)


def test_another_number_of_levels_gives_a_model_that_runs(tiny_model, tiny_inputs):
    model = tiny_model(code_embedding="levels")
    config = model.image_tokenizer.config.to_dict() | {"fsq_levels": [4, 4, 5, 2]}
    tokenizer = GPTFaceImageTokenizer(type(model.image_tokenizer.config).from_dict(config))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    carried = swap_image_tokenizer(model, tokenizer, codes_of(model.config))
    assert carried.config.num_codes == 160
    assert carried.image_tokenizer.fingerprint() == tokenizer.fingerprint()
    output = carried(**tiny_inputs(carried.config))
    assert output.image_logits.shape[-1] == 160 and torch.isfinite(output.image_logits).all()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_cells_without_pixels_pair_no_codes(tiny_model):
    """Faces of tight sets have such cells at their edge; a mean over them would be one of noise."""
    tokenizer = tiny_model().image_tokenizer
    codes = codes_of(tiny_model().config, 20).astype("uint16")
    codes[:, 0] = ABSENT
    old, new = paired_codes(tokenizer, tokenizer, codes)
    assert len(old) == len(new) == 20 * 8 and int(new.max()) < tokenizer.config.num_codes


def test_vectors_that_are_sums_of_level_vectors_are_split_into_them():
    from gptface import GPTFaceImageTokenizerConfig
    from gptface.modeling_gptface.quantization import code_levels

    config = GPTFaceImageTokenizerConfig(fsq_levels=[3, 4])
    generator = torch.Generator().manual_seed(0)
    levels = torch.randn(7, 5, generator=generator)
    codes = torch.randint(12, (2000,), generator=generator)
    indices = code_levels(codes, [3, 4]) + torch.tensor([0, 3])
    targets = levels[indices].sum(1)
    own, found = split_by_levels(targets, codes, config)
    torch.testing.assert_close(own[codes] + found[indices].sum(1), targets, atol=0.02, rtol=0.02)
    assert own.abs().max() < 0.02


def test_a_grid_of_another_size_is_refused(tiny_model):
    model = tiny_model()
    config = model.image_tokenizer.config.to_dict() | {"image_size": 32}
    tokenizer = GPTFaceImageTokenizer(type(model.image_tokenizer.config).from_dict(config))
    with pytest.raises(ValueError, match="grid of the same size"):
        swap_image_tokenizer(model, tokenizer, codes_of(model.config))


def test_a_recipe_with_another_image_tokenizer_goes_on_with_what_its_model_knows(
    tmp_path, write_recipe, write_part, code_table
):
    from gptface import GPTFaceForPreTraining
    from gptface.training.pretraining import PreTrainingConfig, build_model, pretrain, training_arguments

    final = pretrain(PreTrainingConfig.from_yaml(write_recipe(tmp_path)))
    torch.manual_seed(5)
    other = GPTFaceImageTokenizer(GPTFaceImageTokenizer.from_pretrained(tmp_path / "image_tokenizer").config)
    other.save_pretrained(tmp_path / "other")
    write_part(tmp_path / "recoded/part-00000.parquet", code_table, other.fingerprint())
    config = PreTrainingConfig.from_yaml(
        write_recipe(
            tmp_path,
            start_from=str(final),
            image_tokenizer=str(tmp_path / "other"),
            train=[str(tmp_path / "recoded")],
            output_dir=str(tmp_path / "second"),
        )
    )
    model, _, _ = build_model(config, training_arguments(config))
    known = GPTFaceForPreTraining.from_pretrained(final)
    assert model.image_tokenizer.fingerprint() == other.fingerprint() != known.image_tokenizer.fingerprint()
    torch.testing.assert_close(model.match_head.dense.weight, known.match_head.dense.weight)
    assert not torch.equal(model.gptface.embeddings.code_table(), known.gptface.embeddings.code_table())
