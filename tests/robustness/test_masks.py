"""Masks as drawing programs, segmentation models and people make them."""

import io
import warnings

import numpy as np
import pytest
import torch
from PIL import Image


@pytest.fixture
def mask():
    """The lower half of the face picture, 80×96."""
    values = np.zeros((96, 80), np.uint8)
    values[48:, 10:70] = 255
    return values


def red_drawing(mask):
    layer = np.zeros((*mask.shape, 4), np.uint8)
    layer[mask > 0] = (255, 0, 0, 255)
    return Image.fromarray(layer)


FORMS = {
    "PIL": Image.fromarray,
    "boolean": lambda mask: mask > 0,
    "float": lambda mask: mask.astype(np.float32) / 255,
    "integers 0/1": lambda mask: (mask // 255).astype(np.int64),
    "torch [1, H, W]": lambda mask: torch.from_numpy(mask)[None],
    "1-bit picture": lambda mask: Image.fromarray(mask).convert("1"),
    "RGBA drawing": red_drawing,
    "RGBA cut-out": lambda mask: Image.merge("RGBA", [Image.new("L", (80, 96), 255)] * 3 + [Image.fromarray(mask)]),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_means_the_same(edit, face, mask, form):
    """A mask in the form of another program would be read as all or nothing."""
    expected = edit(face, prompt="smiling", mask_image=mask)[0]["image"]
    result = edit(face, prompt="smiling", mask_image=FORMS[form](mask))[0]["image"]
    assert np.array_equal(np.asarray(result), np.asarray(expected))
    changed = (np.asarray(result) != np.asarray(face)).any(-1)
    assert changed.any() and not changed[mask == 0].any()


def test_a_mask_of_another_size_is_resized_and_that_is_said_once(edit, face, mask, tmp_path):
    """A mask for a thumbnail, applied in silence, changes places that the user did not mean."""
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for path in paths:
        face.save(path)
    small = Image.fromarray(mask).resize((40, 48), Image.Resampling.NEAREST)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        results = edit(paths, prompt="smiling", mask_image=small)
    messages = [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)]
    assert len(messages) == 1 and "40×48 pixels, the picture 80×96" in messages[0]
    changed = (np.asarray(results[0][0]["image"]) != np.asarray(face)).any(-1)
    assert changed.any() and not changed[:46].any()


REPORT = "Masks: an erased photo's brightness is the mask, and masks of turned or other pictures are stretched"


@pytest.mark.report(REPORT)
@pytest.mark.parametrize("left", [(0, 0, 0, 0), None, (255, 255, 255, 0)])
def test_what_is_erased_from_a_photo_is_the_mask(edit, face, mask, left):
    """What is transparent may change, whatever colour an eraser left there; nothing else does."""
    expected = edit(face, prompt="smiling", mask_image=mask)[0]["image"]
    erased = np.dstack([np.asarray(face), 255 - mask])
    if left is not None:
        erased[mask > 0] = left
    result = edit(face, prompt="smiling", mask_image=Image.fromarray(erased))[0]["image"]
    assert np.array_equal(np.asarray(result), np.asarray(expected))


@pytest.mark.report(REPORT)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_mask_of_the_stored_photo_is_turned_with_it(edit, face, mask, orientation):
    """Programs that ignore EXIF draw the mask on the photo as it is stored: it is turned as the photo is."""
    upright = {value: Image.Transpose(turn) for value, turn in enumerate([0, 3, 1, 5, 4, 6, 2], start=2)}
    stored = {2: 4, 4: 2}  # of the quarter turns the opposite
    exif = Image.Exif()
    exif[0x0112] = orientation
    mask_image = Image.fromarray(mask)
    photo, drawn = face, mask_image
    if orientation > 1:
        turn = upright[orientation]
        back = Image.Transpose(stored.get(turn.value, turn.value))
        photo = face.transpose(back)
        drawn = mask_image.transpose(back) if orientation >= 5 else mask_image  # of one size: upright is usual
    stream = io.BytesIO()
    photo.save(stream, "PNG", exif=exif)
    expected = edit(face, prompt="smiling", mask_image=mask)[0]["image"]
    for given in (drawn, np.asarray(drawn), mask_image):
        result = edit(stream.getvalue(), prompt="smiling", mask_image=given)[0]["image"]
        assert np.array_equal(np.asarray(result), np.asarray(expected))


@pytest.mark.report(REPORT)
def test_a_mask_of_other_proportions_is_refused(edit, face):
    """A mask of a crop or of another photo is refused; sizes that differ by rounding are not."""
    for size in ((80, 80), (96, 80), (160, 96)):
        with pytest.raises(ValueError, match=f"{size[0]}×{size[1]} pixels, the picture 80×96.*proportions"):
            edit(face, prompt="smiling", mask_image=Image.new("L", size, 255))
    with pytest.warns(UserWarning, match="resized"):
        edit(face, prompt="smiling", mask_image=Image.new("L", (27, 32), 255))


@pytest.mark.parametrize("empty", [np.zeros((96, 80), np.uint8), np.zeros((96, 80), bool), Image.new("L", (80, 96))])
def test_an_empty_mask_is_refused(edit, face, empty):
    """The unchanged photo would look like an edit that failed."""
    with pytest.raises(ValueError, match="mask is empty"):
        edit(face, prompt="smiling", mask_image=empty)


def test_an_all_white_mask_frees_the_whole_face(edit, face):
    whole = edit(face, prompt="smiling", mask_image=Image.new("L", (80, 96), 255))[0]
    assert np.asarray(whole["mask"]).min() == 255
    every_cell = edit(face, prompt="smiling", region="all")[0]
    assert np.array_equal(np.asarray(whole["image"]), np.asarray(every_cell["image"]))


@pytest.mark.parametrize(
    "mask",
    [
        np.full((96, 80), 0.5) * 300,
        np.full((96, 80), np.nan),
        np.zeros((96, 80, 7)),
        np.array([["white"]]),
        b"text",
        "",
    ],
)
def test_what_is_no_mask_is_refused_and_the_rest_goes_on(edit, face, mask):
    with pytest.raises(ValueError, match="mask"):
        edit(face, prompt="smiling", mask_image=mask)
    results = edit([face, face], prompt="smiling", mask_image=[mask, np.ones((96, 80))], on_error="return")
    assert "mask" in results[0]["error"] and results[1][0]["image"].size == face.size
