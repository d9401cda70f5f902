"""Tasks and tools of the neighbourhood (transformers, peft, torch) find here what they expect."""

import logging

import pytest
import torch
from PIL import Image
from transformers import AutoModelForMaskedLM, pipeline
from transformers.pipelines import PIPELINE_REGISTRY

import gptface
from gptface.evaluation.card import short_card

REPORT = "Tasks and tools of transformers fail: zero-shot, fill-mask, LoRA, quantize_dynamic"


@pytest.mark.report(REPORT)
def test_zero_shot(tiny_checkpoint, face_picture):
    """zero-shot-image-classification compares a picture with each label by the match head; scores sum to 1."""
    classify = pipeline("zero-shot-image-classification", model=str(tiny_checkpoint))
    labels = ["smiling", "a young man with a beard", "a sad face"]
    with pytest.warns(UserWarning, match="aligned face crop"):
        results = classify(face_picture, candidate_labels=labels, hypothesis_template="{}")
    assert {each["label"] for each in results} == set(labels)
    assert sum(each["score"] for each in results) == pytest.approx(1)


@pytest.mark.parametrize("match_head", ["cls", "cross"])
def test_each_picture_with_each_caption(tiny_model, tiny_inputs, match_head):
    """Compared each with each gives what each pair gives by itself, padded captions included."""
    model = tiny_model(gptface.GPTFaceForImageTextMatching, match_head=match_head)
    inputs = tiny_inputs(model.config, batch=3)
    inputs["attention_mask"][1, 3:] = 0
    words = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        each = model(image_codes=inputs["image_codes"][:2], **words)
        one = model(image_codes=inputs["image_codes"][:1], **{name: value[:1] for name, value in words.items()})
        for picture in range(2):
            codes = inputs["image_codes"][picture].expand(3, -1)
            pairs = model(image_codes=codes, **words)
            assert pairs.logits_per_image is None
            expected = pairs.match_logits[:, 1] - pairs.match_logits[:, 0]
            torch.testing.assert_close(each.logits_per_image[picture], expected, atol=1e-5, rtol=1e-4)
    assert each.match_logits.shape == (2, 3, 2) and one.match_logits.shape == (1, 2)
    torch.testing.assert_close(one.logits_per_image[0, 0], each.logits_per_image[0, 0], atol=1e-5, rtol=1e-4)


@pytest.mark.report(REPORT)
def test_fill_mask(tiny_checkpoint):
    """fill-mask proposes words for [MASK] of a caption; AutoModelForMaskedLM has a loss, and reads pictures too."""
    fill = pipeline("fill-mask", model=str(tiny_checkpoint))
    results = fill("a [MASK] woman", top_k=2)
    assert len(results) == 2 and results[0]["score"] >= results[1]["score"]
    model = AutoModelForMaskedLM.from_pretrained(tiny_checkpoint)
    words = torch.tensor([[2, 4, 3]])
    codes = torch.zeros(1, 64, dtype=torch.long)
    outputs = model(input_ids=words, image_codes=codes, labels=torch.tensor([[-100, 7, -100]]))
    assert outputs.logits.shape == (1, 3, model.config.vocab_size)
    torch.testing.assert_close(outputs.loss, -outputs.logits[0, 1].log_softmax(-1)[7])


@pytest.mark.report(REPORT)
def test_a_photo_for_image_classification(tiny_checkpoint, recwarn):
    """image-classification warns where a picture is no aligned crop, and names the pipelines that align."""
    classify = pipeline("image-classification", model=str(tiny_checkpoint))
    assert len(classify(Image.new("RGB", (64, 64)))) == 5
    assert not [each for each in recwarn if "aligned face crop" in str(each.message)]
    with pytest.warns(UserWarning, match=r"face-classification.*align"):
        classify(Image.new("RGB", (640, 480)))


@pytest.mark.report(REPORT)
def test_the_default_needs_no_advice(caplog):
    """A pipeline without `model` opens the package's checkpoint in silence; other defaults are still advised about."""
    logger = logging.getLogger("transformers.pipelines")
    logger.addHandler(caplog.handler)
    try:
        pipeline("facial-expression")
        assert "No model was supplied" not in caplog.text
        logger.warning("No model was supplied, defaulted to somebody/else and revision 1.")
        assert "somebody/else" in caplog.text
    finally:
        logger.removeHandler(caplog.handler)


@pytest.mark.report("Saved folders need the package and name folders of a machine; the card's task is gone")
def test_the_task_of_the_card_exists():
    """The card's pipeline_tag is a task of transformers that opens the checkpoint."""
    (line,) = [line for line in short_card().splitlines() if line.startswith("pipeline_tag:")]
    assert line.split()[1] in PIPELINE_REGISTRY.supported_tasks


@pytest.mark.report(REPORT)
def test_why_it_does_not_generate_like_a_language_model():
    """`can_generate()` is False: there is no left-to-right decoding; the class says what there is instead."""
    model_class = gptface.GPTFaceForGuidedGeneration
    assert not model_class.can_generate() and "GenerationConfig" in model_class.__doc__


@pytest.mark.report(REPORT)
@pytest.mark.parametrize("match_head", ["cls", "cross"])
def test_dynamic_quantization(tiny_model, tiny_inputs, match_head):
    """torch's quantize_dynamic gives models whose logits are near those of the model."""
    heads = {
        name: {"labels": ["a", "b"], "problem_type": "single_label_classification", "reader": name, "input": read}
        for name, read in (("attention", "pixels"), ("convolution", "codes"))
    }
    made = {
        "heads": heads,
        "image_reader": {"channels": [8, 8, 8], "blocks": [1, 1, 1], "adapter_rank": 2},
        "image_tokenizer_config": {"image_size": 64},
        "match_head": match_head,
        "caption_reader": True,
    }
    classifier = tiny_model(gptface.GPTFaceForImageClassification, **made)
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    pretraining = tiny_model(**made)
    inputs = tiny_inputs(pretraining.config)
    with torch.no_grad():
        for model, given, name in (
            (classifier, {"pixel_values": pixels}, "logits"),
            (pretraining, inputs, "match_logits"),
        ):
            quantized = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
            assert (quantized(**given)[name] - model(**given)[name]).abs().max() < 0.5


@pytest.mark.report(REPORT)
@pytest.mark.parametrize("reads", ["codes", "pixels"])
def test_lora_with_a_fresh_head(tiny_model, tiny_inputs, reads, tmp_path):
    """LoRA of peft on the attention trains with a fresh head, and what it learned changes what the model says."""
    peft = pytest.importorskip("peft")
    heads = {"mood": {"labels": ["merry", "sad"], "problem_type": "single_label_classification", "input": reads}}
    model = tiny_model(
        gptface.GPTFaceForImageClassification,
        heads=heads,
        image_tokenizer_config={"image_size": 64},
        image_reader={"channels": [8, 8, 8], "blocks": [1, 1, 1], "adapter_rank": 2},
    )
    config = peft.LoraConfig(
        target_modules=r"gptface\.layers\.\d+\.attention\.(query|value)", modules_to_save=["classifiers.mood"]
    )
    tuned = peft.get_peft_model(model, config)
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    optimizer = torch.optim.SGD((each for each in tuned.parameters() if each.requires_grad), lr=0.03)
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        losses.append(tuned(pixel_values=pixels, labels=torch.tensor([0, 1])).loss)
        losses[-1].backward()
        optimizer.step()
    moved = [parameter for name, parameter in tuned.named_parameters() if "lora_B" in name]
    assert moved and all(parameter.abs().sum() > 0 for parameter in moved)
    assert losses[-1] < losses[0]
