"""What users of diffusers expect of a pipeline that makes pictures."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import pipeline


@pytest.fixture(scope="module")
def make(tiny_checkpoint):
    return pipeline("text-to-face", model=str(tiny_checkpoint), num_inference_steps=2, seed=0)


@pytest.fixture(scope="module")
def edit(tiny_checkpoint):
    return pipeline(
        "guided-face-editing", model=str(tiny_checkpoint), num_inference_steps=2, seed=0, force=True, aligned=True
    )


@pytest.fixture(scope="module")
def face():
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))


@pytest.mark.report("Habits of diffusers: output_type, callbacks, progress bar, to, generators, .images")
def test_images_are_the_pictures_in_the_order_of_the_results(make, edit, face):
    """Results are lists of dicts and have `.images`, best first."""
    results = make("smiling", num_images_per_prompt=3)
    assert isinstance(results, list) and results.images == [result["image"] for result in results]
    several = edit([face, "missing.png", face], "smiling", num_images_per_prompt=2, on_error="return")
    assert several.images == several[0].images + several[2].images and len(several.images) == 4


@pytest.mark.report("Habits of diffusers: output_type, callbacks, progress bar, to, generators, .images")
def test_pictures_come_as_arrays_or_tensors_where_wanted(make, edit, face):
    """output_type may be "pil", "np" or "pt"."""
    picture = make("smiling").images[0]
    array = make("smiling", output_type="np").images[0]
    tensor = make("smiling", output_type="pt").images[0]
    assert array.shape == (64, 64, 3) and np.array_equal(np.rint(array * 255), np.asarray(picture))
    assert tensor.shape == (3, 64, 64) and torch.equal(tensor.permute(1, 2, 0), torch.from_numpy(array))
    transparent = face.copy()
    transparent.putalpha(100)
    edited = edit(transparent, "smiling and add glasses", output_type="np").images[0]
    assert edited.shape == (64, 64, 4) and (edited[..., 3] == np.float32(100 / 255)).all()
    for pipe, given in ((make, "smiling"), (edit, face)):
        options = {} if pipe is make else {"prompt": "smiling"}
        with pytest.raises(ValueError, match="output_type"):
            pipe(given, output_type="latent", **options)


@pytest.mark.report("Habits of diffusers: output_type, callbacks, progress bar, to, generators, .images")
def test_the_progress_bar_is_set_once_for_all_calls(tiny_checkpoint, capfd):
    """set_progress_bar_config sets the bar of all calls."""
    make = pipeline("text-to-face", model=str(tiny_checkpoint), num_inference_steps=2)
    capfd.readouterr()
    make("smiling")
    assert "decoding" not in capfd.readouterr().err
    assert make.set_progress_bar_config(desc="drawing") is make
    make("smiling")
    assert "drawing" in capfd.readouterr().err
    make("smiling", progress_bar=False)
    make.set_progress_bar_config(disable=True)
    make("smiling")
    assert "drawing" not in capfd.readouterr().err
    make("smiling", progress_bar=True)
    assert "decoding" in capfd.readouterr().err


@pytest.mark.report("Habits of diffusers: output_type, callbacks, progress bar, to, generators, .images")
def test_to_moves_the_pipeline(tiny_checkpoint, face):
    """`to` moves the pipeline and gives it back."""
    classify = pipeline("face-attribute-classification", model=str(tiny_checkpoint))
    assert classify.to(torch.bfloat16).to("cpu") is classify
    assert classify.model.dtype == torch.bfloat16 and classify.device == torch.device("cpu")
    assert classify(face, aligned=True)


@pytest.mark.report("Habits of diffusers: output_type, callbacks, progress bar, to, generators, .images")
def test_a_callback_may_stop_the_decoding_of_some(make):
    """callback_on_step_end sees each step; the tensors that it gives back are used.

    As in diffusers, where a callback interrupts the pipeline or changes its latents: what it gives back is used.
    """
    steps = []

    def finish(pipe, step, timestep, tensors):
        steps.append((step, timestep, tuple(tensors["mask"].shape)))
        return {"mask": torch.zeros_like(tensors["mask"])}

    options = {"num_images_per_prompt": 2, "num_inference_steps": 4}
    make("smiling", callback_on_step_end=finish, **options)
    assert steps == [(0, 3, (2, 64))], "nothing is masked any more: there is no second step"
    make("smiling", callback_on_step_end=lambda *_: None, **options)
    with pytest.raises(ValueError, match="must give a dict"):
        make("smiling", callback_on_step_end=lambda *_: 7, **options)
