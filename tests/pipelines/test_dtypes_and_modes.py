"""Half and double precision, other defaults, inference mode, a model in training: each is a common way to call a
pipeline.
"""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import pipeline

from gptface import GPTFaceForFaceAttributeClassification, GPTFaceForGuidedGeneration

TASKS = {
    "guided-face-editing": {"prompt": "smiling", "seed": 0, "num_inference_steps": 2, "aligned": True, "force": True},
    "text-to-face": {"seed": 0, "num_inference_steps": 2},
    "face-captioning": {"seed": 0, "num_inference_steps": 2, "num_tokens": 4, "aligned": True},
    "face-attribute-classification": {"aligned": True},
    "facial-expression": {"aligned": True},
    "face-parsing": {"aligned": True},
}
DTYPES = [torch.float16, torch.bfloat16, torch.float64]


@pytest.fixture(scope="module")
def face():
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))


def result_of(pipe, task, face):
    return pipe("a smiling man" if task == "text-to-face" else face, **TASKS[task])[0]


def scores(result):
    return {name: value for name, value in result.items() if isinstance(value, float)}


@pytest.mark.report("Half precision, float64, inference_mode, models in training: errors or random scores")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("task", TASKS)
def test_every_pipeline_works_in_every_precision(tiny_checkpoint, task, dtype, face):
    """All five tasks work in float16, bfloat16 and float64, with nearly the same scores.

    `dtype=torch.float16` is what everybody writes who has a GPU.
    """
    pipe = pipeline(task, model=str(tiny_checkpoint), dtype=dtype)
    assert pipe.model.dtype == dtype
    result = result_of(pipe, task, face)
    expected = result_of(pipeline(task, model=str(tiny_checkpoint)), task, face)
    assert result.keys() == expected.keys() and all(map(np.isfinite, scores(result).values()))
    if "classification" in task or "expression" in task:
        assert result["score"] == pytest.approx(expected["score"], abs=0.05)


@pytest.mark.report("Half precision, float64, inference_mode, models in training: errors or random scores")
@pytest.mark.parametrize("task", TASKS)
def test_every_pipeline_works_where_float64_is_the_default(tiny_checkpoint, task, face):
    """They work where float64 is the default, with the same scores and pictures.

    The weights say what they are, and a seed draws the same numbers.
    """
    expected = result_of(pipeline(task, model=str(tiny_checkpoint)), task, face)
    torch.set_default_dtype(torch.float64)
    try:
        result = result_of(pipeline(task, model=str(tiny_checkpoint)), task, face)
    finally:
        torch.set_default_dtype(torch.float32)
    assert scores(result) == pytest.approx(scores(expected), abs=1e-3)
    if "image" in result:
        close = np.abs(np.asarray(result["image"]).astype(int) - np.asarray(expected["image"])) <= 1
        assert close.mean() > 0.99


@pytest.mark.report("Half precision, float64, inference_mode, models in training: errors or random scores")
@pytest.mark.parametrize("opened_inside", [False, True])
@pytest.mark.parametrize("task", TASKS)
def test_every_pipeline_works_in_inference_mode(tiny_checkpoint, task, face, opened_inside):
    """They work in torch.inference_mode(), guidance too.

    A web server that runs everything in `torch.inference_mode()` is guided too.
    """
    pipe = pipeline(task, model=str(tiny_checkpoint))
    expected = result_of(pipe, task, face)
    with torch.inference_mode():
        if opened_inside:
            pipe = pipeline(task, model=str(tiny_checkpoint))
        result = result_of(pipe, task, face)
    assert scores(result) == pytest.approx(scores(expected))
    if "guidance_kl" in result:
        assert result["guidance_kl"] > 0


def test_saliency_and_generation_follow_gradients_in_inference_mode(tiny_model, tiny_inputs):
    model = tiny_model(GPTFaceForGuidedGeneration, match_trained=True)
    inputs = tiny_inputs(model.config)
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    expected = model.generate(**inputs, itm_guidance=2.0, num_inference_steps=2, generator=generators)
    with torch.inference_mode():
        made_inside = {name: value.clone() for name, value in inputs.items()}
        generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
        output = model.generate(**made_inside, itm_guidance=2.0, num_inference_steps=2, generator=generators)
        saliency = model.saliency(made_inside["image_codes"], made_inside["input_ids"])
    assert torch.equal(output.codes, expected.codes) and torch.isfinite(saliency).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_model_takes_what_the_processor_gives_in_any_precision(tiny_checkpoint, tiny_processor, dtype, face):
    model = GPTFaceForFaceAttributeClassification.from_pretrained(tiny_checkpoint, dtype=dtype)
    inputs = tiny_processor(images=face.resize((64, 64)))
    with torch.no_grad():
        assert model(**inputs).logits.dtype == dtype
        assert model.face_parser(inputs["pixel_values"]).logits.dtype == dtype


@pytest.mark.report("Half precision, float64, inference_mode, models in training: errors or random scores")
def test_a_model_that_was_being_trained_drops_nothing_out(tiny_checkpoint, tiny_processor, face):
    """A model in training is set to evaluation: the same photo gives the same scores.

    `pipeline(model=trainer.model)` gave other scores at each call.
    """
    model = GPTFaceForFaceAttributeClassification.from_pretrained(tiny_checkpoint, hidden_dropout_prob=0.5).train()
    classify = pipeline("face-attribute-classification", model=model, processor=tiny_processor)
    assert classify(face, aligned=True) == classify(face, aligned=True)
