"""Pictures and captions in, tensors of the promised shape and range out; codes back to pictures."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoProcessor

from gptface import GPTFaceForPreTraining, GPTFaceImageProcessor, GPTFaceProcessor


def test_pixels_lie_between_minus_one_and_one(tiny_processor):
    black, white = Image.new("RGB", (64, 64)), Image.new("RGB", (64, 64), "white")
    pixels = tiny_processor(images=[black, white])["pixel_values"]
    assert pixels.shape == (2, 3, 64, 64) and pixels.dtype == torch.float32
    assert (pixels[0] == -1).all() and (pixels[1] == 1).all()


def test_values_are_the_pixels_in_order(tiny_processor, face_picture):
    picture = face_picture.resize((64, 64))
    pixels = tiny_processor(images=picture)["pixel_values"]
    expected = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1) / 127.5 - 1
    torch.testing.assert_close(pixels[0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_pictures_of_other_modes_and_sizes(tiny_processor, face_picture, mode):
    pixels = tiny_processor(images=face_picture.convert(mode))["pixel_values"]
    assert pixels.shape == (1, 3, 64, 64)
    assert pixels.min() >= -1 and pixels.max() <= 1


def test_captions_and_pictures_together(tiny_processor, face_picture):
    inputs = tiny_processor(
        images=[face_picture, face_picture], text=["a sad face", "a smiling woman with blond hair"]
    )
    assert set(inputs) == {"pixel_values", "input_ids", "attention_mask"}
    assert inputs["input_ids"].shape == inputs["attention_mask"].shape
    assert inputs["attention_mask"][0].tolist()[:6] == [1, 1, 1, 1, 1, 0]
    assert inputs["attention_mask"].dtype == inputs["input_ids"].dtype == torch.long


def test_long_captions_are_cut(tiny_processor):
    assert tiny_processor(text="a smiling woman " * 20)["input_ids"].shape == (1, 16)


def test_a_call_may_pad_otherwise(tiny_processor):
    assert tiny_processor(text="a face", padding="max_length")["input_ids"].shape == (1, 16)
    assert tiny_processor(text="a face", text_kwargs={"padding": "max_length"})["input_ids"].shape == (1, 16)
    assert tiny_processor(text="a smiling woman with hair", truncation=True, max_length=4)["input_ids"].shape == (1, 4)
    assert isinstance(tiny_processor(text="a face", return_tensors="np")["input_ids"], np.ndarray)


def test_neither_picture_nor_caption_is_refused(tiny_processor):
    with pytest.raises(ValueError, match="images, text or both"):
        tiny_processor()


def test_saved_it_loads_through_the_auto_classes(tiny_processor, tiny_checkpoint, face_picture):
    expected = tiny_processor(images=face_picture, text="A smiling Woman")
    for loaded in (AutoProcessor.from_pretrained(tiny_checkpoint), GPTFaceProcessor.from_pretrained(tiny_checkpoint)):
        assert type(loaded) is GPTFaceProcessor
        inputs = loaded(images=face_picture, text="A smiling Woman")
        assert all(torch.equal(inputs[name], expected[name]) for name in expected)
    image_processor = AutoImageProcessor.from_pretrained(tiny_checkpoint)
    assert type(image_processor) is GPTFaceImageProcessor
    pixels = image_processor(face_picture, return_tensors="pt")["pixel_values"]
    assert torch.equal(pixels, expected["pixel_values"])


def test_pixels_become_the_picture_again(tiny_processor, face_picture):
    picture = face_picture.resize((64, 64))
    (restored,) = tiny_processor.pixels_to_pil(tiny_processor(images=picture)["pixel_values"])
    assert restored.mode == "RGB" and np.array_equal(np.asarray(restored), np.asarray(picture))


def test_pixels_out_of_range_are_clipped(tiny_processor):
    pixels = torch.full((1, 3, 2, 2), 1.7)
    pixels[..., 0] = -3
    (picture,) = tiny_processor.pixels_to_pil(pixels)
    assert np.asarray(picture)[:, 0].max() == 0 and np.asarray(picture)[:, 1].min() == 255


def test_codes_become_pictures(tiny_processor, tiny_checkpoint, face_picture):
    model = GPTFaceForPreTraining.from_pretrained(tiny_checkpoint)
    codes = model.image_tokenizer.encode(tiny_processor(images=[face_picture])["pixel_values"])
    (picture,) = tiny_processor.decode_codes(codes, model.image_tokenizer)
    expected = tiny_processor.pixels_to_pil(model.image_tokenizer.decode(codes))[0]
    assert picture.size == (64, 64) and np.array_equal(np.asarray(picture), np.asarray(expected))
