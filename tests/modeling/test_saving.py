"""One folder serves every class: what was trained comes back, and nothing comes back as garbage."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForImageClassification

from gptface import (
    GPTFaceConfig,
    GPTFaceForFaceAttributeClassification,
    GPTFaceForFacialExpression,
    GPTFaceForGuidedGeneration,
    GPTFaceForImageClassification,
    GPTFaceForImageTextMatching,
    GPTFaceForPreTraining,
    GPTFaceImageTokenizer,
    GPTFaceModel,
)

TASK_CLASSES = [
    GPTFaceForPreTraining,
    GPTFaceForGuidedGeneration,
    GPTFaceForImageTextMatching,
    GPTFaceForImageClassification,
    GPTFaceForFaceAttributeClassification,
    GPTFaceForFacialExpression,
]


def load(model_class, folder, **kwargs):
    """The model and what transformers says about the loading."""
    return model_class.from_pretrained(folder, output_loading_info=True, **kwargs)


def assert_same_weights(model, other):
    weights, others = model.state_dict(), other.state_dict()
    assert weights.keys() == others.keys()
    different = [name for name in weights if not torch.equal(weights[name], others[name])]
    assert different == []


@pytest.mark.parametrize("model_class", TASK_CLASSES)
def test_one_folder_serves_every_class(tiny_checkpoint, tmp_path, model_class):
    model, info = load(model_class, tiny_checkpoint)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    model.save_pretrained(tmp_path)
    for other in (model_class, GPTFaceForPreTraining):
        assert_same_weights(model, other.from_pretrained(tmp_path))
    assert model.lm_head.text_decoder.weight is model.get_input_embeddings().weight


def test_the_bare_model_reads_the_same_folder(tiny_checkpoint):
    model, info = load(GPTFaceModel, tiny_checkpoint)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert_same_weights(model, GPTFaceForPreTraining.from_pretrained(tiny_checkpoint).gptface)
    assert isinstance(AutoModel.from_pretrained(tiny_checkpoint), GPTFaceModel)


def test_a_bare_model_becomes_a_task_model(tiny_model, tiny_inputs, tmp_path):
    bare = tiny_model(GPTFaceModel)
    bare.save_pretrained(tmp_path)
    model, info = load(GPTFaceForPreTraining, tmp_path)
    assert_same_weights(bare, model.gptface)
    assert {name.split(".")[0] for name in info["missing_keys"]} == {"lm_head", "match_head"}
    assert torch.isfinite(model(**tiny_inputs(model.config)).image_logits).all()


def test_training_one_head_keeps_the_others(tiny_checkpoint, tmp_path):
    model = GPTFaceForFacialExpression.from_pretrained(tiny_checkpoint)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.SGD([parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.1)
    codes = torch.randint(60, (4, 64), generator=torch.Generator().manual_seed(0))
    model(image_codes=codes, labels=torch.tensor([0, 1, 2, 3])).loss.backward()
    optimizer.step()
    model.save_pretrained(tmp_path)
    after = GPTFaceForPreTraining.from_pretrained(tmp_path).state_dict()
    kept = ("classifiers.attributes", "match_head", "gptface.image_tokenizer")
    for name, tensor in before.items():
        if name.startswith(kept):
            assert torch.equal(after[name], tensor), name
    assert not torch.equal(after["classifiers.expression.query.weight"], before["classifiers.expression.query.weight"])
    config = GPTFaceConfig.from_pretrained(tmp_path)
    assert config.heads == GPTFaceConfig.from_pretrained(tiny_checkpoint).heads and config.match_trained


def without_heads(model, folder):
    """A folder from which all heads are missing."""
    model.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if name.startswith("gptface.")}
    assert len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors", {"format": "pt"})


def test_what_the_folder_lacks_is_initialised(tiny_model, tmp_path):
    """
    transformers builds models without memory behind them: a weight that nobody initialises is whatever lay there.
    """
    heads = {"mood": {"labels": ["up", "down"], "problem_type": "single_label_classification"}}
    without_heads(tiny_model(heads=heads, code_embedding="levels"), tmp_path)
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(GPTFaceForPreTraining.from_pretrained(tmp_path).state_dict())
        # what was freed must not happen to hold the right values
        torch.full((200_000,), float("nan"))
    for name, tensor in states[0].items():
        assert torch.isfinite(tensor).all(), name
        assert torch.equal(tensor, states[1][name]), name
    fresh = {name: tensor for name, tensor in states[0].items() if not name.startswith("gptface.")}
    for name, tensor in fresh.items():
        if name == "lm_head.text_decoder.weight":
            continue  # tied to the words
        if name.endswith("norm.weight"):
            assert (tensor == 1).all(), name
        elif name.endswith("bias"):
            assert (tensor == 0).all(), name
        else:
            assert 0.01 < tensor.std() < 0.03, name


def test_new_parts_of_the_backbone_are_initialised_too(tiny_model, tmp_path):
    """A grid convolution added to a model that was trained without one must start as the identity."""
    tiny_model().save_pretrained(tmp_path)
    plain = GPTFaceForPreTraining.from_pretrained(tmp_path)
    model = GPTFaceForPreTraining.from_pretrained(tmp_path, grid_convolution=True)
    codes = torch.zeros(1, 9, dtype=torch.long)
    assert model.config.grid_convolution
    torch.testing.assert_close(model(image_codes=codes).image_logits, plain(image_codes=codes).image_logits)


def test_stored_as_fp16_it_opens_as_fp32(tiny_model, tmp_path):
    """Half the download, and no surprise on a CPU, where fp16 is slow or missing."""
    model = tiny_model()
    half = {name: tensor.half() for name, tensor in model.state_dict().items()}
    model.save_pretrained(tmp_path, state_dict=dict(half))
    config = json.loads((tmp_path / "config.json").read_text())
    config["dtype"] = config["image_tokenizer_config"]["dtype"] = "float32"
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert {tensor.dtype for tensor in load_file(tmp_path / "model.safetensors").values()} == {torch.float16}
    for model_class in (GPTFaceForPreTraining, GPTFaceForImageClassification, GPTFaceModel):
        loaded = model_class.from_pretrained(tmp_path)
        assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    loaded = GPTFaceForPreTraining.from_pretrained(tmp_path)
    assert all(torch.equal(tensor.half(), half[name]) for name, tensor in loaded.state_dict().items())


def test_shards(tiny_model, tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path, max_shard_size="50KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    assert_same_weights(model, GPTFaceForPreTraining.from_pretrained(tmp_path))


def test_untied_weights_stay_untied(tiny_model, tmp_path):
    model = tiny_model(tie_word_embeddings=False)
    assert model.lm_head.image_bias is None
    model.save_pretrained(tmp_path)
    loaded = GPTFaceForPreTraining.from_pretrained(tmp_path)
    assert_same_weights(model, loaded)
    assert not torch.equal(loaded.lm_head.text_decoder.weight, loaded.get_input_embeddings().weight)


def test_tied_words_are_stored_once_and_learn_together(tiny_model, tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path)
    assert "lm_head.text_decoder.weight" not in load_file(tmp_path / "model.safetensors")
    loaded = GPTFaceForPreTraining.from_pretrained(tmp_path)
    with torch.no_grad():
        loaded.get_input_embeddings().weight[7] = 5.0
    assert (loaded.lm_head.text_decoder.weight[7] == 5).all()


def test_a_head_of_ones_own_on_a_trained_backbone(tiny_checkpoint):
    """`num_labels` alone must not overwrite the heads that the checkpoint brings."""
    config = GPTFaceConfig.from_pretrained(tiny_checkpoint)
    config.heads = {"mood": {"labels": ["up", "down"], "problem_type": "single_label_classification"}, **config.heads}
    config.classification_head = "mood"
    model, info = load(GPTFaceForImageClassification, tiny_checkpoint, config=config)
    assert {name.split(".")[1] for name in info["missing_keys"]} == {"mood"}
    assert model.head_name == "mood" and model(image_codes=torch.zeros(1, 64, dtype=torch.long)).logits.shape == (1, 2)


@pytest.mark.parametrize("auto", [False, True])
def test_num_labels_on_a_trained_backbone(tiny_checkpoint, tmp_path, auto):
    """
    The usual start of a fine-tuning script: labels of one's own beside the heads that are there, and found again.
    """
    source = AutoModelForImageClassification if auto else GPTFaceForImageClassification
    model = source.from_pretrained(tiny_checkpoint, num_labels=4)
    assert model.head_name == "labels" and model.config.num_labels == 4
    model.save_pretrained(tmp_path)
    again, info = load(GPTFaceForImageClassification, tmp_path)
    assert again.head_name == "labels" and not info["missing_keys"]
    assert_same_weights(model, again)
    assert GPTFaceForFacialExpression.from_pretrained(tmp_path).config.heads["expression"]["trained"]


def test_a_head_with_other_labels_is_new_and_the_rest_is_kept(tiny_checkpoint):
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        GPTFaceForFacialExpression.from_pretrained(tiny_checkpoint, num_labels=4)
    model = GPTFaceForFacialExpression.from_pretrained(tiny_checkpoint, num_labels=4, ignore_mismatched_sizes=True)
    old = GPTFaceForFacialExpression.from_pretrained(tiny_checkpoint).state_dict()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, old[name])}
    head = "classifiers.expression."
    assert changed == {head + "query.weight", head + "output.weight", head + "output.bias"}
    assert model(image_codes=torch.zeros(1, 64, dtype=torch.long)).logits.shape == (1, 4)
    assert not model.config.heads["expression"]["trained"]


def test_the_image_tokenizer_inside_is_the_one_that_was_saved(tiny_checkpoint, tmp_path):
    model = GPTFaceModel.from_pretrained(tiny_checkpoint)
    model.image_tokenizer.save_pretrained(tmp_path)
    assert GPTFaceImageTokenizer.from_pretrained(tmp_path).fingerprint() == model.image_tokenizer.fingerprint()
