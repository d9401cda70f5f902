"""The transformer: what one position may see, and that the ways of running it give the same numbers."""

import pytest
import torch

from gptface import GPTFaceForPreTraining, GPTFaceModel
from gptface.modeling_gptface.modeling_gptface import grid_sine_positions, sine_positions

VARIANTS = {
    "default": {},
    "post-norm": {"norm_position": "post", "embedding_norm": True},
    "prefix": {"attention_pattern": "prefix"},
    "levels": {"code_embedding": "levels", "position_init": "sine", "grid_convolution": True},
    "words first": {"text_attention_bias": 2.0, "match_head": "cross"},
    "untied": {"tie_word_embeddings": False, "lm_head_transform": False},
}


@pytest.fixture(params=VARIANTS)
def variant(request):
    return VARIANTS[request.param]


def padded(inputs, by=3, value=9):
    """The same captions, padded at the end with some word that must not matter."""
    longer = dict(inputs)
    longer["input_ids"] = torch.nn.functional.pad(inputs["input_ids"], (0, by), value=value)
    longer["attention_mask"] = torch.nn.functional.pad(inputs["attention_mask"], (0, by), value=0)
    return longer


def test_eager_and_sdpa_attention_agree(tiny_model, tiny_inputs, variant):
    model = tiny_model(**variant)
    inputs = padded(tiny_inputs(model.config))
    states = {}
    for implementation in ("eager", "sdpa"):
        model.set_attn_implementation(implementation)
        states[implementation] = model.gptface(**inputs).last_hidden_state
    real = torch.cat([inputs["attention_mask"].bool(), torch.ones(2, 9, dtype=torch.bool)], 1)
    torch.testing.assert_close(states["eager"][real], states["sdpa"][real], atol=1e-4, rtol=1e-4)


def test_padding_changes_no_loss(tiny_model, tiny_inputs, variant):
    """Otherwise a caption's loss would depend on the longest caption of its batch."""
    model = tiny_model(**variant)
    inputs = tiny_inputs(model.config)
    text_labels = torch.full_like(inputs["input_ids"], -100)
    text_labels[:, 1:3] = inputs["input_ids"][:, 1:3]
    labels = {"image_labels": inputs["image_codes"], "match_labels": torch.tensor([0, 1])}
    short = model(**inputs, text_labels=text_labels, **labels)
    long = model(**padded(inputs), text_labels=torch.nn.functional.pad(text_labels, (0, 3), value=-100), **labels)
    for term in ("loss", "text_loss", "image_loss", "match_loss"):
        torch.testing.assert_close(getattr(short, term), getattr(long, term), atol=1e-5, rtol=1e-5)


def test_a_cell_has_the_same_position_whatever_the_captions_length(tiny_model, tiny_inputs):
    model = tiny_model(GPTFaceModel, num_hidden_layers=0)
    short, long = tiny_inputs(model.config, text_length=3), tiny_inputs(model.config, text_length=11)
    long["image_codes"], long["image_mask"] = short["image_codes"], short["image_mask"]
    short_states, long_states = model(**short).last_hidden_state, model(**long).last_hidden_state
    torch.testing.assert_close(short_states[:, -9:], long_states[:, -9:])
    assert not torch.allclose(short_states[:, -9], short_states[:, -8])


def test_a_picture_alone_has_the_empty_caption(tiny_model, tiny_inputs):
    model = tiny_model(GPTFaceModel)
    codes = tiny_inputs(model.config)["image_codes"]
    empty = torch.tensor([[model.config.cls_token_id, model.config.sep_token_id]]).expand(2, -1)
    alone = model(image_codes=codes).last_hidden_state
    torch.testing.assert_close(alone, model(empty, torch.ones_like(empty), image_codes=codes).last_hidden_state)
    among_longer = padded({"input_ids": empty, "attention_mask": torch.ones_like(empty)})
    states = model(**among_longer, image_codes=codes).last_hidden_state
    torch.testing.assert_close(alone, torch.cat([states[:, :2], states[:, 5:]], 1))


@pytest.mark.parametrize("text_length", [5, 11])
def test_text_alone_has_no_cells(tiny_model, tiny_inputs, text_length):
    """Also where the caption is longer than the grid has cells: its last words must not be taken for cells."""
    model = tiny_model()
    inputs = tiny_inputs(model.config, text_length=text_length)
    output = model(inputs["input_ids"], inputs["attention_mask"], text_labels=inputs["input_ids"])
    assert output.text_logits.shape == (2, text_length, 37) and output.image_logits.shape == (2, 0, 60)
    assert torch.isfinite(output.loss)


def test_pixels_are_read_as_their_codes(tiny_model):
    model = tiny_model(GPTFaceModel)
    pixels = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
    codes = model.image_tokenizer.encode(pixels)
    output = model(pixel_values=pixels)
    assert torch.equal(output.image_codes, codes)
    assert torch.equal(output.last_hidden_state, model(image_codes=codes).last_hidden_state)


def test_a_masked_cell_hides_its_code(tiny_model, tiny_inputs):
    model = tiny_model(GPTFaceModel)
    inputs = tiny_inputs(model.config)
    other = torch.where(inputs["image_mask"], (inputs["image_codes"] + 7) % 60, inputs["image_codes"])
    assert not torch.equal(other, inputs["image_codes"])
    states = model(**inputs).last_hidden_state
    assert torch.equal(states, model(**{**inputs, "image_codes": other}).last_hidden_state)
    unmasked = {**inputs, "image_mask": None}
    assert not torch.allclose(states, model(**unmasked).last_hidden_state, atol=1e-3)


def test_prefix_attention_sees_nothing_later(tiny_model, tiny_inputs):
    """
    Text sees text; a cell sees the text and the cells up to itself: else the sibling could read what it should
    predict.
    """
    model = tiny_model(GPTFaceModel, attention_pattern="prefix", num_hidden_layers=3)
    inputs = tiny_inputs(model.config, batch=1)
    words = model.get_input_embeddings()(inputs["input_ids"]).detach().requires_grad_(True)
    cells = model.embeddings.embed_codes(inputs["image_codes"]).detach().requires_grad_(True)
    states = model(inputs_embeds=words, image_embeds=cells).last_hidden_state[0]
    # unequal weights, since the final norm makes the plain sum of a state constant
    probe = torch.linspace(-1, 2, 32)
    for position in range(5 + 9):
        gradients = torch.autograd.grad((states[position] * probe).sum(), [words, cells], retain_graph=True)
        seen = torch.cat([gradient[0].norm(dim=-1) > 0 for gradient in gradients])
        last = max(position, 4)
        assert seen.tolist() == [index <= last for index in range(14)], f"position {position}"


def test_bidirectional_attention_sees_everything_but_padding(tiny_model, tiny_inputs):
    model = tiny_model(GPTFaceModel)
    inputs = padded(tiny_inputs(model.config, batch=1))
    words = model.get_input_embeddings()(inputs["input_ids"]).detach().requires_grad_(True)
    cells = model.embeddings.embed_codes(inputs["image_codes"]).detach().requires_grad_(True)
    states = model(inputs_embeds=words, attention_mask=inputs["attention_mask"], image_embeds=cells).last_hidden_state
    gradients = torch.autograd.grad((states[0, 0] * torch.linspace(-1, 2, 32)).sum(), [words, cells])
    seen = torch.cat([gradient[0].norm(dim=-1) > 0 for gradient in gradients])
    assert seen.tolist() == [True] * 5 + [False] * 3 + [True] * 9


def test_norm_position(tiny_model, tiny_inputs):
    """
    Post-norm ends in a norm of each layer: states of mean 0 and variance 1 where the norm's own weights are 1 and 0.
    """
    model = tiny_model(GPTFaceModel, norm_position="post")
    assert isinstance(model.norm, torch.nn.Identity)
    torch.nn.init.ones_(model.layers[-1].feed_forward_norm.weight)
    torch.nn.init.zeros_(model.layers[-1].feed_forward_norm.bias)
    states = model(**tiny_inputs(model.config)).last_hidden_state
    torch.testing.assert_close(states.std(-1, correction=0), torch.ones(2, 14), atol=1e-3, rtol=0)
    assert isinstance(tiny_model(GPTFaceModel).norm, torch.nn.LayerNorm)


def test_embedding_norm(tiny_model, tiny_inputs):
    model = tiny_model(GPTFaceModel, embedding_norm=True, num_hidden_layers=1)
    torch.nn.init.ones_(model.embeddings.norm.weight)
    torch.nn.init.zeros_(model.embeddings.norm.bias)
    embeddings = model(**tiny_inputs(model.config), output_hidden_states=True).hidden_states[0]
    torch.testing.assert_close(embeddings.std(-1, correction=0), torch.ones(2, 14), atol=1e-3, rtol=0)


def test_level_vectors_are_summed_and_tied_to_the_head(tiny_model, tiny_inputs):
    model = tiny_model(code_embedding="levels")
    embeddings = model.gptface.embeddings
    table = embeddings.code_table()
    levels = embeddings.level_embeddings.weight
    for code in (0, 1, 17, 59):
        digits = code % 3, code // 3 % 4, code // 12
        parts = [levels[digits[0]], levels[3 + digits[1]], levels[7 + digits[2]]]
        torch.testing.assert_close(table[code], embeddings.code_embeddings.weight[code] + sum(parts))
    inputs = {name: tensor for name, tensor in tiny_inputs(model.config).items() if name != "image_mask"}
    vectors = table[inputs.pop("image_codes")].detach()
    before = model(**inputs, image_embeds=vectors).image_logits
    with torch.no_grad():
        levels[2] += 3.0  # the codes whose first digit is 2
    moved = (model(**inputs, image_embeds=vectors).image_logits - before).abs().sum((0, 1))
    assert (moved[2::3] > 0).all() and (moved[::3] == 0).all() and (moved[1::3] == 0).all()


def test_the_image_head_reads_the_code_vectors(tiny_model, tiny_inputs):
    """A trained code vector must be the one the head predicts with."""
    model = tiny_model(code_embedding="levels")
    states = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    transformed = model.lm_head.transform(states)
    expected = transformed @ model.gptface.embeddings.code_table().t() + model.lm_head.image_bias
    torch.testing.assert_close(model.lm_head.image(states, model.gptface.embeddings.code_table()), expected)
    loss = model(**tiny_inputs(model.config), image_labels=tiny_inputs(model.config)["image_codes"]).loss
    loss.backward()
    assert model.gptface.embeddings.level_embeddings.weight.grad.abs().sum() > 0


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_gradient_checkpointing_gives_the_same_gradients(tiny_model, tiny_inputs):
    gradients = {}
    for checkpointing in (False, True):
        model = tiny_model(grid_convolution=True).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        inputs = tiny_inputs(model.config)
        model(**inputs, image_labels=inputs["image_codes"], match_labels=torch.tensor([1, 0])).loss.backward()
        gradients[checkpointing] = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert gradients[True].keys() == gradients[False].keys() and len(gradients[True]) > 30
    for name, gradient in gradients[False].items():
        torch.testing.assert_close(gradients[True][name], gradient, msg=name)


@pytest.mark.parametrize("attention_pattern", ["bidirectional", "prefix"])
def test_it_compiles_to_one_graph(tiny_model, tiny_inputs, attention_pattern):
    model = tiny_model(GPTFaceModel, attention_pattern=attention_pattern, code_embedding="levels")
    inputs = padded(tiny_inputs(model.config))
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(**inputs).last_hidden_state, model(**inputs).last_hidden_state)
    torch._dynamo.reset()


def test_hidden_states_and_attentions(tiny_model, tiny_inputs):
    model = tiny_model(num_hidden_layers=3)
    model.set_attn_implementation("eager")
    output = model(**padded(tiny_inputs(model.config)), output_hidden_states=True, output_attentions=True)
    assert len(output.hidden_states) == 4 and all(states.shape == (2, 17, 32) for states in output.hidden_states)
    assert len(output.attentions) == 3 and all(weights.shape == (2, 4, 17, 17) for weights in output.attentions)
    weights = output.attentions[0]
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 17))
    assert (weights[..., 5:8] == 0).all(), "padding is looked at"


def test_more_words_can_be_added(tiny_model, tiny_inputs):
    model = tiny_model()
    inputs = tiny_inputs(model.config)
    before = model(**inputs).text_logits
    model.resize_token_embeddings(41)
    after = model(**inputs).text_logits
    assert model.config.vocab_size == 41 and after.shape == (2, 5, 41)
    torch.testing.assert_close(after[..., :37], before)
    assert model.lm_head.text_decoder.weight is model.get_input_embeddings().weight
    inputs["input_ids"][:, 1] = 40
    assert torch.isfinite(model(**inputs, text_labels=inputs["input_ids"]).loss)


def test_sine_positions_and_the_identity_convolution_are_what_training_starts_from(tiny_config):
    torch.manual_seed(0)
    model = GPTFaceForPreTraining(tiny_config(position_init="sine", grid_convolution=True)).gptface
    positions = model.embeddings.position_embeddings.weight
    sines = torch.cat([sine_positions(11, 32), grid_sine_positions(3, 32)])
    scale = positions.norm() / sines.norm()
    torch.testing.assert_close(positions, sines * scale)
    assert positions[:11].std().item() == pytest.approx(model.config.initializer_range, rel=1e-4)
    for layer in model.layers:
        assert not layer.grid_convolution.conv.weight.any() and not layer.grid_convolution.conv.bias.any()
    # the first half tells the row, the second the column
    grid = sines[11:].view(3, 3, 32)
    assert torch.equal(grid[1, 0, :16], grid[1, 2, :16]) and torch.equal(grid[0, 2, 16:], grid[1, 2, 16:])


def test_the_convolution_mixes_neighbours_on_the_grid_alone(tiny_model, tiny_inputs):
    model = tiny_model(GPTFaceModel, grid_convolution=True)
    states = torch.randn(1, 5 + 9, 32, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    mixed = model.layers[0].grid_convolution(states, 5)
    assert torch.equal(mixed[:, :5], states[:, :5])
    (gradient,) = torch.autograd.grad(mixed[0, 5 + 0].sum(), states)  # the upper left cell
    seen = (gradient[0].norm(dim=-1) > 0).nonzero()[:, 0].tolist()
    assert seen == [5, 6, 8, 9]  # itself, right, below, below right
    assert torch.isfinite(model(tiny_inputs(model.config)["input_ids"]).last_hidden_state).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_ids": None, "attention_mask": None, "image_codes": None, "image_mask": None}, "give a text"),
        ({"pixel_values": torch.zeros(2, 3, 24, 24)}, "not both"),
        ({"inputs_embeds": torch.zeros(2, 5, 32)}, "not both"),
        ({"image_codes": torch.zeros(2, 8, dtype=torch.long), "image_mask": None}, "8 cells"),
        ({"image_codes": torch.full((2, 9), 60)}, "0…59"),
        ({"image_codes": torch.full((2, 9), -2)}, r"0…59 \(−1 = absent\)"),
        ({"image_mask": torch.ones(2, 8, dtype=torch.bool)}, "image_mask"),
        ({"image_codes": None}, "image_mask without a picture"),
        ({"input_ids": torch.ones(2, 12, dtype=torch.long), "attention_mask": None}, "max_text_length = 11"),
    ],
)
def test_wrong_inputs_are_named(tiny_model, tiny_inputs, changes, message):
    model = tiny_model(GPTFaceModel)
    with pytest.raises(ValueError, match=message):
        model(**{**tiny_inputs(model.config), **changes})


def test_text_attention_bias_turns_attention_to_the_words(tiny_model, tiny_inputs):
    """Five words among hundreds of cells are not heard otherwise."""
    shares = {}
    for bias in (0.0, 2.0):
        model = tiny_model(text_attention_bias=bias, attn_implementation="eager")
        weights = model.gptface(**tiny_inputs(model.config), output_attentions=True).attentions[0]
        shares[bias] = weights[..., :5].sum(-1).mean()
    expected = shares[0.0] * 2.718**2 / (shares[0.0] * 2.718**2 + 1 - shares[0.0])
    assert abs(shares[2.0] - expected) < 0.05 < shares[2.0] - shares[0.0]


def test_text_attention_bias_without_a_mask_is_that_with_a_mask_of_ones(tiny_model, tiny_inputs):
    model = tiny_model(text_attention_bias=2.0)
    inputs = tiny_inputs(model.config)
    states = model.gptface(**inputs).last_hidden_state
    del inputs["attention_mask"]
    torch.testing.assert_close(model.gptface(**inputs).last_hidden_state, states)


def test_text_attention_bias_refuses_attention_that_would_ignore_it(tiny_model, tiny_inputs):
    model = tiny_model(text_attention_bias=2.0)
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match="sdpa"):
        model.gptface._favour_words(None, torch.zeros(1, 4, 8), 2)
