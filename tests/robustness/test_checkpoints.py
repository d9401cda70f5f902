"""Checkpoints that were cut off, mixed up, stripped or poisoned: an error at load or at the first result, never a
picture.
"""

import json
import os
import shutil

import hostile
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, pipeline

from gptface import GPTFaceForGuidedGeneration, GPTFaceForPreTraining, GPTFaceModel
from gptface.cli import main

TASKS = ["guided-face-editing", "face-attribute-classification", "facial-expression"]


def change_weights(folder, change):
    """Writes the tensors anew; `change` maps (name, tensor) to a tensor, or to None where it is dropped."""
    weights = {name: change(name, tensor) for name, tensor in load_file(folder / "model.safetensors").items()}
    kept = {name: tensor for name, tensor in weights.items() if tensor is not None}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.report("Downloads that broke off give errors that name no file")
@pytest.mark.parametrize("length", [0, 100, 20_000])
def test_truncated_weights_say_which_folder_to_fetch_again(checkpoint, length, face_picture, tmp_path, capsys):
    """The error names the folder and says to fetch it again.

    A download that broke off is the commonest damage; the parser's own error names no file.
    """
    os.truncate(checkpoint / "model.safetensors", length)
    with pytest.raises(OSError, match=r"damaged are truncated or damaged .*fetch them again"):
        GPTFaceForGuidedGeneration.from_pretrained(checkpoint)
    with pytest.raises((ValueError, OSError), match="truncated or damaged"):
        pipeline("facial-expression", model=str(checkpoint))
    face_picture.save(tmp_path / "face.png")
    arguments = ["expression", str(tmp_path / "face.png"), "--aligned", "--model", str(checkpoint)]
    assert main(arguments) == 2 and "truncated or damaged" in capsys.readouterr().err


@pytest.mark.parametrize("task", TASKS[:2])
def test_the_configuration_of_another_model_is_refused(checkpoint, task):
    """transformers would load it as a BERT with random weights, and the first call would end in an AttributeError."""
    other = {"model_type": "bert", "architectures": ["BertModel"], "hidden_size": 32, "num_hidden_layers": 1}
    sizes = {"num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 200}
    (checkpoint / "config.json").write_text(json.dumps({**other, **sizes}))
    with pytest.raises(ValueError, match="needs a GPTFace checkpoint, not one of a BertModel"):
        pipeline(task, model=str(checkpoint))


@pytest.mark.parametrize("task", TASKS[:2])
def test_a_backbone_without_its_weights_is_refused(checkpoint, task):
    """Layers drawn at random give plausible scores and pictures."""
    change_weights(checkpoint, lambda name, tensor: None if ".layers.1." in name else tensor)
    with pytest.raises(ValueError, match=r"lacks \d+ weights .*layers\.1"):
        pipeline(task, model=str(checkpoint))


def test_a_head_that_is_missing_counts_as_not_trained(checkpoint, face_picture):
    """The configuration still says "trained"; believed, the scores would come from random weights."""
    prefixes = ("classifiers.expression.", "match_head.")
    change_weights(checkpoint, lambda name, tensor: None if name.startswith(prefixes) else tensor)
    with pytest.raises(ValueError, match=r"'expression' of this checkpoint is not trained; .*\['attributes'\]"):
        pipeline("facial-expression", model=str(checkpoint))
    assert pipeline("face-attribute-classification", model=str(checkpoint))(face_picture, aligned=True)
    edit = pipeline("guided-face-editing", model=str(checkpoint))
    with pytest.raises(ValueError, match="matching head of this checkpoint is not trained"):
        edit(face_picture, prompt="smiling", aligned=True)


def test_a_folder_of_the_bare_model_does_not_make_pictures(tiny_checkpoint, tiny_processor, tmp_path):
    """`GPTFaceModel.save_pretrained` leaves the heads out: what follows would be drawn from a random output layer."""
    GPTFaceModel.from_pretrained(tiny_checkpoint).save_pretrained(tmp_path)
    tiny_processor.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"lacks .* lm_head"):
        pipeline("guided-face-editing", model=str(tmp_path))
    assert GPTFaceForPreTraining.from_pretrained(tmp_path).config.match_trained is False


#: What to ask of each task. Plan first or not: both ways are drawn.
ASKED = {
    "guided-face-editing": {"prompt": "smiling", "num_inference_steps": 2, "region": "mouth", "aligned": True},
    "text-to-face": {"num_inference_steps": 2},
    "face-captioning": {"num_inference_steps": 2, "num_tokens": 3, "aligned": True},
    "face-parsing": {"aligned": True},
    "facial-expression": {"aligned": True},
    "face-classification": {"aligned": True},
}


@pytest.mark.parametrize(
    ("part", "task", "options"),
    [
        ("gptface.image_tokenizer.encoder", "guided-face-editing", {}),
        ("gptface.image_tokenizer.decoder", "guided-face-editing", {}),
        ("gptface.image_tokenizer.quantizer", "guided-face-editing", {}),
        ("gptface.image_tokenizer.plan", "guided-face-editing", {}),
        ("gptface.image_tokenizer.refiner", "guided-face-editing", {}),
        ("gptface.face_parser", "guided-face-editing", {}),
        ("gptface.layers.0", "guided-face-editing", {}),
        ("lm_head", "guided-face-editing", {}),
        ("match_head", "guided-face-editing", {}),
        ("classifiers.attributes", "guided-face-editing", {}),
        ("gptface.image_tokenizer.decoder", "text-to-face", {"plan_first": False}),
        ("gptface.image_tokenizer.refiner", "text-to-face", {}),
        ("gptface.layers.0", "text-to-face", {}),
        ("lm_head", "text-to-face", {}),
        ("match_head", "text-to-face", {"itm_guidance": 0}),
        ("gptface.image_tokenizer.encoder", "face-captioning", {}),
        ("gptface.layers.0", "face-captioning", {}),
        ("lm_head", "face-captioning", {}),
        ("match_head", "face-captioning", {"itm_guidance": 0}),
        ("gptface.face_parser", "face-parsing", {}),
        ("gptface.layers.0", "facial-expression", {}),
        ("classifiers.expression", "facial-expression", {}),
        ("gptface.pixel_reader", "face-classification", {"head": "age"}),
    ],
)
def test_weights_that_are_no_numbers_are_an_error_at_the_first_result(
    full_checkpoint, tmp_path, face_picture, part, task, options
):
    """A diverged or overflowed training must not show as a grey picture, as words at random or as equal scores."""
    checkpoint = shutil.copytree(full_checkpoint, tmp_path / "damaged")
    spoilt = []

    def spoil(name, tensor):
        if not name.startswith(part):
            return tensor
        spoilt.append(name)
        return torch.full_like(tensor, torch.nan)

    change_weights(checkpoint, spoil)
    assert spoilt
    call = pipeline(task, model=str(checkpoint), **ASKED[task], **options)
    shown = "a smiling woman" if task == "text-to-face" else face_picture
    with pytest.raises(FloatingPointError, match="not finite"):
        call(shown)
    assert "not finite" in call([shown], on_error="return")[0]["error"]


@pytest.mark.parametrize(
    "changes",
    [
        {"image_tokenizer_config": {"plan_channels": 32}},
        {"image_tokenizer_config": {"plan_levels": [5, 3]}},
        {"image_tokenizer_config": {"refiner_config": {"hidden_channels": [16, 8]}}},
        {"face_parser_config": {"block_out_channels": [8, 8, 16, 24]}},
        {"face_parser_config": {"id2label": {"0": "skin"}}},
        {"image_reader": {"channels": [8, 8, 16]}},
        {"num_hidden_layers": 1, "intermediate_size": 40},
    ],
    ids=str,
)
def test_weights_of_other_shapes_are_refused_by_name(full_checkpoint, tmp_path, changes, capsys):
    """Two folders that were mixed up; transformers' error is a RuntimeError, which a web service does not expect."""
    checkpoint = shutil.copytree(full_checkpoint, tmp_path / "damaged")
    content = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(hostile.merged(content, changes)))
    with pytest.raises(ValueError, match=r"damaged are of other shapes than its configuration says"):
        GPTFaceForGuidedGeneration.from_pretrained(checkpoint)


@pytest.mark.parametrize("base", [True, False])
def test_an_adapter_beside_the_weights_is_refused(checkpoint, base):
    """transformers would put it into the network unseen, out of a pickle too, or open another model in its place."""
    pytest.importorskip("peft")
    content = {"peft_type": "LORA", "base_model_name_or_path": str(checkpoint.parent), "target_modules": ["query"]}
    (checkpoint / "adapter_config.json").write_text(json.dumps(content))
    (checkpoint / "adapter_model.bin").write_bytes(b"a pickle")
    if base:
        (checkpoint / "config.json").rename(checkpoint.parent / "config.json")
        (checkpoint / "model.safetensors").rename(checkpoint.parent / "model.safetensors")
    for opener in (GPTFaceForGuidedGeneration.from_pretrained, AutoModel.from_pretrained):
        with pytest.raises(ValueError, match=r"holds an adapter .*peft\.PeftModel"):
            opener(checkpoint)


@pytest.mark.report("Opening a checkpoint runs code of its author")
def test_a_pickle_is_not_opened(checkpoint):
    """Only safetensors are opened.

    Opening a pickle runs whatever its author put into it.
    """

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(checkpoint / "sprung"),)

    (checkpoint / "model.safetensors").unlink()
    torch.save({"weight": Trap()}, checkpoint / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        GPTFaceForGuidedGeneration.from_pretrained(checkpoint)
    with pytest.raises((OSError, ValueError), match="safetensors"):
        pipeline("guided-face-editing", model=str(checkpoint))
    assert not (checkpoint / "sprung").exists()
