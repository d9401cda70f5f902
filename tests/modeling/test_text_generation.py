"""Captions of faces: masked words are filled under a face by the same decoding and the same guidance."""

import pytest
import torch

from gptface import GPTFaceForGuidedGeneration


@pytest.fixture(scope="module")
def model(tiny_model):
    model = tiny_model(GPTFaceForGuidedGeneration, match_trained=True, code_embedding="levels")
    with torch.no_grad():
        model.match_head.output.weight.mul_(4)
    return model


@pytest.fixture(scope="module")
def codes(model, tiny_inputs):
    return tiny_inputs(model.config, batch=3)["image_codes"]


def seeded(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def caption(model, codes, seeds, tokens=6, **kwargs):
    return model.generate_text(
        model.masked_caption(len(codes), tokens), image_codes=codes, generator=seeded(*seeds), **kwargs
    )


def test_all_words_are_written_between_the_given_ends(model, codes):
    config = model.config
    ids = caption(model, codes, (1, 2, 3)).sequences
    assert ids.shape == (3, 8)
    assert (ids[:, 0] == config.cls_token_id).all() and (ids[:, -1] == config.sep_token_id).all()
    special = {config.pad_token_id, config.cls_token_id, config.sep_token_id, config.mask_token_id}
    assert not special & set(ids[:, 1:-1].flatten().tolist())


@pytest.mark.parametrize("decoding", ["parallel", "span", "one_shot"])
def test_given_words_stay(model, codes, decoding):
    ids = model.masked_caption(3, 6)
    ids[:, 2], ids[1, 5] = 20, 21
    output = model.generate_text(
        ids, image_codes=codes, generator=seeded(1, 2, 3), decoding=decoding, itm_guidance=1.0
    )
    given = ids != model.config.mask_token_id
    assert torch.equal(output.sequences[given], ids[given])
    assert not (output.sequences == model.config.mask_token_id).any()


def test_words_that_are_suppressed_are_not_written(model, codes):
    allowed = [30, 31]
    banned = [index for index in range(model.config.vocab_size) if index not in allowed]
    ids = caption(model, codes, (1, 2, 3), suppress_tokens=banned, top_k=5).sequences
    assert set(ids[:, 1:-1].flatten().tolist()) <= set(allowed)


@pytest.mark.parametrize("guidance", [{}, {"itm_guidance": 1.0}, {"guidance_scale": 3.0}])
def test_a_caption_is_the_same_alone_and_in_a_batch(model, codes, guidance):
    together = caption(model, codes, (1, 2, 3), **guidance)
    for index in range(3):
        alone = caption(model, codes[index : index + 1], (index + 1,), **guidance)
        assert torch.equal(alone.sequences[0], together.sequences[index])


def test_guidance_of_no_iterations_is_bit_identical_to_none(model, codes):
    plain = caption(model, codes, (1, 2, 3))
    for off in (0, {"iterations": 0}):
        output = caption(model, codes, (1, 2, 3), itm_guidance=off)
        assert torch.equal(output.sequences, plain.sequences)
        assert torch.equal(output.match_scores, plain.match_scores) and (output.guidance_kl == 0).all()


def test_guidance_raises_the_match_of_captions(model, tiny_inputs):
    codes = tiny_inputs(model.config, batch=24)["image_codes"]
    plain = caption(model, codes, range(24))
    guided = caption(model, codes, range(24), itm_guidance={"iterations": 3, "step_size": 2.0})
    assert guided.match_scores.mean() > plain.match_scores.mean() + 0.1
    assert (guided.guidance_kl > 0).all()


def test_the_face_decides_the_caption(model, codes):
    one = caption(model, codes, (1, 1, 1), temperature=0.0, guidance_scale=4.0).sequences
    assert not (torch.equal(one[0], one[1]) and torch.equal(one[1], one[2]))


@pytest.mark.parametrize("tokens", [0, 10])
def test_captions_of_impossible_length_are_refused(model, tokens):
    with pytest.raises(ValueError, match="1 to 9 tokens"):
        model.masked_caption(1, tokens)


def test_a_caption_needs_a_face(model, codes):
    with pytest.raises(ValueError, match="the face"):
        model.generate_text(model.masked_caption(1, 4))
    with pytest.raises(ValueError, match=r"must be \[2, 9\]"):
        model.generate_text(model.masked_caption(2, 4), image_codes=codes)


def test_guidance_by_an_untrained_match_head_is_refused(tiny_model, codes):
    untrained = tiny_model(GPTFaceForGuidedGeneration, code_embedding="levels")
    with pytest.raises(ValueError, match="not trained"):
        caption(untrained, codes, (1, 2, 3), itm_guidance=1.0)
