"""What a user of `pipeline("guided-face-editing")` counts on, with a tiny random checkpoint."""

import warnings
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from drawn_faces import parser_by_rule
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import pipeline

from gptface import GPTFaceForGuidedGeneration, GPTFaceProcessor, GPTFaceRefiner, GPTFaceRefinerConfig
from gptface.modeling_gptface.configuration_gptface import FACE_CLASSES
from gptface.pipelines.edit_plan import read_requests, transfers_of
from gptface.pipelines.edit_verification import kept_attributes, kept_outside, trust
from gptface.processing.alignment import CROP_LANDMARKS, similarity_transform
from gptface.processing.detection import DetectedFace
from gptface.processing.edits import EDITS
from gptface.processing.masks import cells_to_mask
from gptface.processing.prompt_reading import UnknownEditError
from gptface.processing.regions import REGIONS, region_cells, shown_cells

STEPS = 2

NEEDS_OPENCV = pytest.mark.skipif(find_spec("cv2") is None, reason="needs OpenCV")


@pytest.fixture(scope="module")
def edit(tiny_checkpoint):
    return pipeline("guided-face-editing", model=str(tiny_checkpoint), num_inference_steps=STEPS, force=True)


@pytest.fixture(scope="module")
def face():
    generator = np.random.default_rng(0)
    small = Image.fromarray(generator.integers(0, 255, (8, 8, 3), dtype=np.uint8))
    return small.resize((96, 96), Image.Resampling.BICUBIC)


def pixels(result):
    return np.asarray(result["image"])


def test_one_picture_gives_a_list_of_candidates_best_first(edit, face):
    results = edit(face, prompt="smiling", aligned=True, seed=5, num_images_per_prompt=3)
    assert {result["seed"] for result in results} == {5, 6, 7}
    scores = [trust(result) for result in results]
    assert scores == sorted(scores, reverse=True)
    assert all(result["image"].size == face.size for result in results)
    assert results[0]["face"].size == (edit.face_size, edit.face_size) and results[0]["mask"].size == face.size
    assert results[0]["box"] is None


@pytest.mark.report("The same seed gives another picture")
def test_the_same_seed_gives_the_same_picture_alone_and_in_a_batch(edit, face):
    """It gives the same bytes, alone, in a batch and among candidates."""
    alone = edit(face, prompt="smiling", aligned=True, seed=3)[0]
    batch = edit([face.rotate(90), face], prompt=["glasses", "smiling"], aligned=True, seed=3)
    candidates = edit(face, prompt="smiling", aligned=True, seed=2, num_images_per_prompt=2)
    again = next(result for result in candidates if result["seed"] == 3)
    assert np.array_equal(pixels(alone), pixels(batch[1][0]))
    assert np.array_equal(pixels(alone), pixels(again))
    assert not np.array_equal(pixels(alone), pixels(edit(face, prompt="smiling", aligned=True, seed=4)[0]))


def test_a_generator_takes_the_place_of_a_seed(edit, face):
    first = edit(face, prompt="smiling", aligned=True, generator=torch.Generator().manual_seed(1))[0]
    second = edit(face, prompt="smiling", aligned=True, generator=torch.Generator().manual_seed(1))[0]
    assert np.array_equal(pixels(first), pixels(second))
    with pytest.raises(ValueError, match="not both"):
        edit(face, prompt="smiling", aligned=True, seed=1, generator=torch.Generator())


def test_pixels_outside_the_mask_are_those_of_the_photo(edit, face):
    mask = np.zeros((96, 96), np.uint8)
    mask[50:80, 20:70] = 255
    result = edit(face, prompt="smiling", aligned=True, seed=0, mask_image=Image.fromarray(mask))[0]
    changed = (pixels(result) != np.asarray(face)).any(-1)
    assert changed.any() and not changed[mask == 0].any()


@pytest.fixture
def sees(edit, monkeypatch):
    """Sets the rule of a face parser, see [`parser_by_rule`]."""
    return lambda rule: monkeypatch.setattr(edit, "parse_faces", parser_by_rule(edit.face_size, rule))


def test_a_mask_that_is_worn_is_found_and_nothing_of_it_is_read(edit, face, sees):
    """Who wears a mask need not paint where it is."""
    size, side = edit.face_size, face.width
    worn = np.s_[side // 2 :, side // 4 : 3 * side // 4]
    sees(lambda y, x, _: {"face_mask": (y >= size // 2) & (y < size) & (x >= size // 4) & (x < 3 * size // 4)})
    bare = []
    for colour in ((20, 90, 200), (240, 240, 235)):
        photo = np.array(face)
        photo[worn] = colour
        (result,) = edit(Image.fromarray(photo), prompt="remove the mask", aligned=True, seed=0)
        assert result["note"] is None and result["edits"] == ["no_face_mask"] and result["prompt"] == "a face"
        assert np.asarray(result["mask"])[worn].min() == 255
        assert np.array_equal(pixels(result)[: side // 4], photo[: side // 4])
        bare.append(pixels(result))
    assert np.array_equal(*bare)


def test_where_no_mask_is_worn_none_is_taken_off(edit, face, sees, monkeypatch):
    sees(lambda y, x, _: {"skin": y > 20})
    looked, parse = [], edit.parse_face
    monkeypatch.setattr(edit, "parse_face", lambda *face: looked.append(1) or parse(*face))
    (result,) = edit(face, prompt="without a mask", aligned=True, seed=0)
    assert np.array_equal(pixels(result), np.asarray(face)) and "no mask over mouth and nose is seen" in result["note"]
    assert looked == [1], "to look twice at one photo takes twice as long"
    half = Image.new("L", face.size)
    half.paste(255, (0, face.height // 2, *face.size))
    assert edit(face, prompt="without a mask", aligned=True, seed=0, mask_image=half, hole=True)[0]["note"] is None
    config = edit.require_face_parser().config
    monkeypatch.setattr(config, "id2label", dict(enumerate(FACE_CLASSES[:-1])))
    with pytest.raises(ValueError, match="cannot find a face mask: give mask_image"):
        edit(face, prompt="without a mask", aligned=True, seed=0)


def test_what_is_behind_the_hair_stays(edit, face, sees):
    """A new hair colour must not repaint the wall."""
    corner, middle = np.s_[:30, :30], edit.face_size // 2

    def changes(prompt="blond hair", **options):
        result = edit(face, prompt=prompt, strict=False, aligned=True, seed=0, **options)[0]
        return (pixels(result) != np.asarray(face)).any(-1)

    sees(lambda y, x, _: {"hair": (y >= middle) | (x >= middle)})
    for prompt in ("blond hair", "long blond hair"):
        assert changes(prompt).any() and not changes(prompt)[corner].any()
    assert changes(region="all")[corner].any()
    assert changes(region=["Hair", "hat"])[:20, :30].any(), "a hat may come to lie on it"
    sees(lambda *_: {})
    assert changes()[corner].any(), "nobody was found: the whole region changes"


def test_a_checkpoint_without_a_face_parser_edits_by_shapes(edit, face, monkeypatch):
    monkeypatch.setattr(type(edit), "has_face_parser", False)
    for prompt in ("blond hair", "long blond hair", "smiling", "eyeglasses", "no eyeglasses"):
        result = edit(face, prompt=prompt, strict=False, aligned=True, seed=0)[0]
        assert (pixels(result) != np.asarray(face)).any(), prompt


def test_a_new_colour_keeps_what_is_there_and_is_not_drawn(edit, face, sees, monkeypatch):
    """Hair and lips that were drawn anew had another cut, or none: of a colour alone only the colour is wanted."""
    sees(lambda y, x, _: {"hair": y < 20, "upper_lip": (y > 45) & (x < 42), "skin": (y > 20) & (y < 45)})

    def never(**_):
        raise AssertionError("drawn")

    with monkeypatch.context() as patch:
        for name in ("generate", "generate_plan_first"):
            patch.setattr(edit.model, name, never)
        common = {"aligned": True, "seed": 0}
        for prompt, part in (("blond hair", np.s_[:25]), ("lipstick", np.s_[75:90, 8:56])):
            first, second = edit(face, prompt=prompt, num_images_per_prompt=2, **common)
            change = pixels(first).astype(float) - np.asarray(face)
            assert (np.abs(change[part]) > 5).any(-1).mean() > 0.9 and not change[36:60].any()
            assert (pixels(first) == pixels(second)).all() and first["guidance_kl"] == 0
            assert np.isfinite(first["match_score"]) and np.asarray(first["mask"])[part].min() > 250
        half, whole = (
            np.abs(pixels(edit(face, prompt="blond hair", strength=share, **common)[0]).astype(float) - face).sum()
            for share in (0.5, 1.0)
        )
        assert 0.4 < half / whole < 0.6
    for options in (
        {"prompt": "blond hair, eyeglasses", "region": ["hair", "glasses"]},
        {"prompt": "blond hair", "region": "face"},
        {"prompt": "long blond hair", "strict": False},
    ):
        with monkeypatch.context() as patch, pytest.raises(AssertionError, match="drawn"):
            patch.setattr(edit.model, "generate", never)
            edit(face, **options, **common)


def test_a_bald_head_has_no_hair_whose_colour_could_change(edit, face, sees):
    sees(lambda *_: {"skin": True})
    assert edit(face, prompt="blond hair", aligned=True, seed=0)[0]["guidance_kl"] > 0, "hair is drawn"


def test_a_new_hair_colour_is_carried_on_above_the_crop(edit, sees):
    sees(lambda y, x, picture: {"hair": picture.max(-1) < 60})
    photo = Image.new("RGB", (240, 240), (60, 90, 220))
    photo.paste((40, 30, 20), (90, 60, 150, 125))
    points = np.array([[0.35, 0.43], [0.65, 0.43], [0.5, 0.62], [0.38, 0.75], [0.62, 0.75]]) * 96 + [72, 100]

    def above(prompt, **options):
        result = edit(photo, prompt=prompt, strict=False, seed=0, landmarks=points, composite="replace", **options)[0]
        changed = (pixels(result) != np.asarray(photo)).any(-1)
        return changed[:80].any()

    assert not above("long blond hair")
    result = edit(photo, prompt="blond hair", seed=0, landmarks=points)[0]
    assert (pixels(result) != np.asarray(photo)).any(-1)[65:80, 95:145].all()


@pytest.mark.parametrize("shape", [np.s_[10:86, 40:42], np.s_[30:70, 20:75]], ids=["stroke", "rectangle"])
def test_nothing_of_what_covers_a_hole_is_read(edit, face, shape):
    """A mask of another colour, or a scratch of another brightness, must not change what is below it."""
    pytest.importorskip("cv2")
    mask = np.zeros((96, 96), np.uint8)
    mask[shape] = 255
    results = []
    for colour in ((255, 255, 255), (133, 193, 214)):
        covered = np.array(face)
        covered[mask > 0] = colour
        result = edit(Image.fromarray(covered), prompt="smiling", aligned=True, seed=0, mask_image=mask, hole=True)[0]
        results.append(pixels(result))
        assert np.array_equal(results[-1][mask == 0], covered[mask == 0])
    assert np.array_equal(*results)
    assert np.asarray(result["mask"]).any()
    # black that JPEG has left not quite black is no hole
    dirty = edit(Image.fromarray(covered), prompt="smiling", aligned=True, seed=0, mask_image=mask | 9, hole=True)[0]
    assert np.array_equal(pixels(dirty), results[-1])
    partly = edit(face, prompt="smiling", aligned=True, seed=0, mask_image=mask, hole=True, strength=0.5)[0]
    assert not (pixels(partly) != np.asarray(face)).any(-1)[mask == 0].any()


@given(
    width=st.integers(16, 150),
    height=st.integers(16, 150),
    region=st.sampled_from(sorted(REGIONS)),
    seed=st.integers(0, 2**31),
    composite=st.sampled_from(["blend", "residual", "replace"]),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_size_and_region_keep_size_and_mode(edit, width, height, region, seed, composite):
    picture = Image.fromarray(
        np.random.default_rng(seed).integers(0, 255, (height, width, 4), dtype=np.uint8), mode="RGBA"
    )
    result = edit(picture, prompt="smiling", aligned=True, seed=seed, region=region, composite=composite)[0]
    assert result["image"].size == (width, height) and result["image"].mode == "RGBA"
    assert np.array_equal(pixels(result)[..., 3], np.asarray(picture)[..., 3])


def test_strength_redraws_fewer_cells(edit, face):
    full = edit(face, prompt="smiling", aligned=True, seed=0, region="face")[0]["mask"]
    part = edit(face, prompt="smiling", aligned=True, seed=0, region="face", strength=0.3)[0]["mask"]
    assert 0 < np.count_nonzero(part) < np.count_nonzero(full)


def test_auto_redraws_a_quarter_of_the_grid(edit, face):
    crop = face.resize((edit.face_size, edit.face_size))
    mask = edit(crop, prompt="smiling", aligned=True, seed=0, region="auto")[0]["mask"]
    cells = np.asarray(mask).reshape(8, 8, 8, 8).any((1, 3))
    assert cells.sum() == 16


def test_guidance_and_negative_prompt_reach_the_result(edit, face):
    plain = edit(face, prompt="smiling", aligned=True, seed=0, itm_guidance=0, guidance_scale=1)[0]
    guided = edit(face, prompt="smiling", aligned=True, seed=0, itm_guidance=5.0, guidance_scale=1)[0]
    free = edit(face, prompt="smiling", aligned=True, seed=0, itm_guidance=0, guidance_scale=100.0)[0]
    negative = edit(
        face, prompt="smiling", aligned=True, seed=0, itm_guidance=0, guidance_scale=100.0, negative_prompt="glasses"
    )[0]
    pictures = [pixels(result).tobytes() for result in (plain, guided, free, negative)]
    assert len(set(pictures)) == 4


def test_callback_sees_every_step_and_may_change_it(edit, face):
    seen = []
    ask = {"prompt": "smiling", "aligned": True, "seed": 0, "num_inference_steps": 3, "region": "all"}

    def watch(pipe, step, timestep, tensors):
        seen.append((pipe is edit, step, timestep, int(tensors["mask"].sum()), set(tensors)))

    plain = edit(face, callback_on_step_end=watch, **ask)[0]
    assert [(mine, step, timestep) for mine, step, timestep, *_ in seen] == [(True, 0, 2), (True, 1, 1), (True, 2, 0)]
    left = [count for *_, count, _ in seen]
    assert left == sorted(left, reverse=True) and left[-1] == 0
    assert all(names == {"codes", "mask"} for *_, names in seen)

    def stop(pipe, step, timestep, tensors):
        return {"mask": tensors["mask"] & False, "codes": tensors["codes"] * 0}

    stopped = edit(face, callback_on_step_end=stop, composite="replace", **ask)[0]
    assert not np.array_equal(pixels(stopped), pixels(plain))
    blank = edit(face.rotate(90), callback_on_step_end=stop, composite="replace", **ask)[0]
    assert np.array_equal(np.asarray(stopped["face"]), np.asarray(blank["face"])), (
        "the codes are those of the callback"
    )
    images = []
    edit(
        face,
        callback_on_step_end=lambda pipe, step, timestep, tensors: images.append(tensors),
        callback_on_step_end_tensor_inputs=["images"],
        **ask,
    )
    assert [image.size for image in images[0]["images"]] == [(edit.face_size, edit.face_size)] and len(images) == 3
    with pytest.raises(ValueError, match="latents"):
        edit(face, callback_on_step_end=watch, callback_on_step_end_tensor_inputs=["latents"], **ask)
    with pytest.raises(ValueError, match="callback_on_step_end gave"):
        edit(face, callback_on_step_end=lambda *_: {"codes": torch.zeros(1, 3)}, **ask)


@pytest.mark.parametrize("prompt", [None, "", "   ", 7])
def test_a_prompt_without_words_is_refused(edit, face, prompt):
    with pytest.raises(ValueError, match="prompt must say"):
        edit(face, prompt=prompt, aligned=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"region": "moth"}, "mouth"),
        ({"strength": 0.0}, "strength"),
        ({"strength": 1.5}, "strength"),
        ({"num_images_per_prompt": 0}, "num_images_per_prompt"),
        ({"num_inference_steps": 0}, "num_steps"),
        ({"composite": "refined"}, '"blend".*"residual".*"replace".*refined'),
        ({"composite": "adaptive"}, '"blend"'),
        ({"feather": -1.0}, "feather"),
        ({"feather": 1000.0}, "feather"),
        ({"decoding": "serial"}, "one_shot"),
        ({"top_k": 0}, "top_k"),
        ({"source_prompt": 7}, "source_prompt must be a text"),
        ({"mask_image": np.zeros((96, 96))}, "empty"),
        ({"mask_image": np.ones((96, 96)), "region": "mouth"}, "not both"),
        ({"hole": True}, "needs its mask_image"),
        pytest.param({"hole": True, "mask_image": np.ones((96, 96))}, "whole photo", marks=NEEDS_OPENCV),
        ({"negative_prompt": "glasses", "guidance_scale": 1}, "guidance_scale"),
    ],
)
def test_parameters_that_make_no_sense_are_named(edit, face, options, message):
    with pytest.raises(ValueError, match=message):
        edit(face, prompt="smiling", aligned=True, **options)


@pytest.mark.report("A misspelled parameter is swallowed")
def test_an_unknown_parameter_is_refused(edit, face):
    """It is a TypeError that names it."""
    with pytest.raises(TypeError, match="guidence_scale"):
        edit(face, prompt="smiling", aligned=True, guidence_scale=2)


def test_one_bad_input_does_not_stop_the_others(edit, face, tmp_path):
    broken = tmp_path / "notes.jpg"
    broken.write_text("this is no picture")
    results = edit([face, str(broken), face], prompt="smiling", aligned=True, seed=0, on_error="return")
    assert "notes.jpg" in results[1]["error"]
    assert np.array_equal(pixels(results[0][0]), pixels(results[2][0]))
    with pytest.raises(ValueError, match="image 1"):
        edit([face, str(broken)], prompt="smiling", aligned=True, seed=0)


def test_prompts_of_another_number_than_the_images_are_refused(edit, face):
    with pytest.raises(ValueError, match="2 entries for 1 images"):
        edit([face], prompt=["smiling", "glasses"], aligned=True)


def test_a_matching_head_that_is_not_trained_does_not_guide(edit, face, monkeypatch):
    monkeypatch.setattr(edit.model.config, "match_trained", False)
    with pytest.raises(ValueError, match="not trained"):
        edit(face, prompt="smiling", aligned=True, itm_guidance=1.0)


@pytest.mark.report("A photo without a face gives a crash, or an edit of the wall")
def test_a_photo_without_a_face_says_what_helps(edit):
    """It raises an error that says so."""
    pytest.importorskip("cv2")
    with pytest.raises(ValueError, match="no face found"):
        edit(Image.new("RGB", (300, 300), "blue"), prompt="smiling")


@pytest.mark.report("Landmarks in another order, as (y, x) or as fractions give confident wrong scores")
def test_landmarks_in_the_persons_own_order_are_refused_by_name(edit, face):
    """One such set among several is refused, and the others go on."""
    points = np.array([[0.35, 0.43], [0.65, 0.43], [0.5, 0.62], [0.38, 0.75], [0.62, 0.75]]) * 96
    sets = [points, points[[1, 0, 2, 4, 3]], points / 96]
    results = edit([face] * 3, prompt="smiling", seed=0, landmarks=sets, on_error="return")
    assert isinstance(results[0], list)
    assert "image 1: landmarks" in results[1]["error"] and "image 2: landmarks" in results[2]["error"]


@pytest.mark.report("Landmarks in another order, as (y, x) or as fractions give confident wrong scores")
def test_a_face_of_few_pixels_is_worth_a_warning(edit, face):
    """Of faces below 32 pixels a warning says that scores mean little."""
    points = np.array([[0.35, 0.43], [0.65, 0.43], [0.5, 0.62], [0.38, 0.75], [0.62, 0.75]]) * 96
    with pytest.warns(UserWarning, match="only 2[0-9] pixels wide"):
        edit(face, prompt="smiling", seed=0, landmarks=points * 0.4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        edit(face, prompt="smiling", seed=0, landmarks=points)


@pytest.mark.report("Black-and-white and sepia photos gain colours")
@pytest.mark.parametrize("composite", ["blend", "residual", "replace"])
def test_a_black_and_white_photo_stays_one_unless_the_user_wants_colour(edit, face, composite):
    """The edit and its face stay without colour; keep_colour_space=False lets it in."""
    options = {"prompt": "smiling", "seed": 0, "aligned": True, "composite": composite}
    grey = face.convert("L")
    result = edit(grey, **options)[0]
    assert not np.ptp(pixels(result), axis=2).any() and not np.ptp(np.asarray(result["face"]), axis=2).any()
    assert (pixels(result) != np.asarray(grey.convert("RGB"))).any()
    assert np.ptp(pixels(edit(grey, **options, keep_colour_space=False)[0]), axis=2).any()


@NEEDS_OPENCV
def test_landmarks_below_a_hole_count_only_where_the_user_gives_them(edit, face, monkeypatch):
    """A detector guesses the mouth below a mask; who says where it is knows it."""
    points = CROP_LANDMARKS * (face.width / 128) + np.array([[0, 0], [0, 0], [1, 0], [4, 1], [4, -1]])
    hole = Image.new("L", face.size)
    hole.paste(255, (0, round(0.55 * face.height), *face.size))
    found = [DetectedFace(box=(0, 0, *face.size), landmarks=points, score=1.0)]
    monkeypatch.setattr(
        "gptface.pipelines.face_pipeline.default_detector", lambda: SimpleNamespace(detect=lambda *_, **__: found)
    )
    (request,) = read_requests("a face")
    for landmarks, known in ((None, points[:2]), (points, points)):
        plan = edit.plan(face, request, mask_image=hole, hole=True, landmarks=landmarks)
        expected = similarity_transform(known, CROP_LANDMARKS[: len(known)] * (edit.face_size / 128))
        np.testing.assert_allclose(plan.faces[0].face.matrix, expected, atol=1e-6)


def test_five_points_are_one_set_of_landmarks_for_all(edit, face):
    points = np.array([[0.35, 0.43], [0.65, 0.43], [0.5, 0.62], [0.38, 0.75], [0.62, 0.75]]) * 96
    both = edit([face, face], prompt="smiling", seed=0, landmarks=points.tolist())
    assert np.array_equal(pixels(both[0][0]), pixels(edit(face, prompt="smiling", seed=0, landmarks=points)[0]))


@pytest.mark.report("Habits of diffusers: output_type, callbacks, progress bar, to, generators, .images")
def test_each_candidate_may_have_a_generator_of_its_own(edit, face):
    """A list of generators is one for each candidate.

    As in diffusers: what was drawn comes back with its seed, and the seed gives it again.
    """
    ask = {"prompt": "smiling", "aligned": True, "num_images_per_prompt": 2}

    def generators(*seeds):
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    both = edit(face, generator=generators(1, 2), **ask)
    assert len({result["seed"] for result in both}) == 2
    alone = edit(face, **{**ask, "num_images_per_prompt": 1}, seed=both[1]["seed"])[0]
    assert np.array_equal(pixels(alone), pixels(both[1]))
    lists = edit([face, face], generator=generators(3, 4, 1, 2), **ask)
    assert [pixels(each).tobytes() for each in lists[1]] == [pixels(each).tobytes() for each in both]
    with pytest.raises(ValueError, match="1 generators for 2 candidates"):
        edit(face, generator=generators(1), **ask)
    with pytest.raises(ValueError, match="2 images with 2 candidates"):
        edit([face, face], generator=generators(1, 2), **ask)


def test_a_model_in_bfloat16_is_guided_too(tiny_checkpoint, face):
    half = pipeline(
        "guided-face-editing", model=str(tiny_checkpoint), dtype=torch.bfloat16, num_inference_steps=1, force=True
    )
    assert half(face, prompt="smiling", aligned=True, seed=0, region="mouth", itm_guidance=1.0)[0]["image"].size == (
        96,
        96,
    )


def test_a_smile_is_told_to_the_model_in_full_unless_the_user_does_not_want_it_or_it_does_not_fit(
    edit, face, monkeypatch
):
    monkeypatch.setattr("gptface.processing.prompt_words.MOUTH_OPEN", "a")  # this checkpoint reads a few tokens
    ask = {"aligned": True, "seed": 0}
    assert edit(face, prompt="smile", **ask)[0]["prompt"] == "smiling, a"
    for options in ({"expand_prompt": False}, {"region": "hair"}, {"negative_prompt": "teeth"}):
        assert edit(face, prompt="smile", **options, **ask)[0]["prompt"] == "smiling"
    tokenizer = edit.processor.tokenizer
    full = "smile" + " a" * (tokenizer.model_max_length - len(tokenizer("smile")["input_ids"]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing of what the user wrote is cut
        assert edit(face, prompt=full, strict=False, **ask)[0]["prompt"] == full


@pytest.mark.parametrize("seen", [False, True])
@pytest.mark.parametrize("region", ["smile", ["smile", "hair"]])
def test_the_lower_edge_of_the_chin_stays_also_beside_hair(edit, face, sees, monkeypatch, region, seen):
    sees(lambda *_: {"skin": True})
    monkeypatch.setattr(type(edit), "has_face_parser", seen)
    crop = face.resize((edit.face_size, edit.face_size))
    result = edit(crop, prompt="smiling", region=region, aligned=True, seed=0, composite="replace", feather=0.0)[0]
    mask = np.asarray(result["mask"])
    put_back = region_cells("smile", 8) & ~shown_cells("smile", 8) & ~region_cells("hair", 8)
    assert put_back.any() and not mask[cells_to_mask(put_back, len(mask)) > 0].any()
    kept = cells_to_mask(shown_cells("smile", 8), len(mask)) > 0
    assert (mask[kept] == 255).all()


def test_a_smile_in_the_region_mouth_redraws_the_chin_too(edit, face):
    """Above a chin that stays few smiles come about."""
    chin = region_cells("chin", edit.model.config.grid_size)
    for prompt, redrawn in (("smiling", True), ("lipstick", False)):
        (request,) = read_requests(prompt)
        (plan,) = edit.plan(face, request, region="Mouth", aligned=True).faces
        assert plan.area.cells[chin].all() == redrawn


@pytest.mark.report("The photo comes back in another size, or changed beside the edit")
def test_the_mask_shows_at_the_photos_size_what_changed(edit, face, sees):
    """It has its size; what the mask does not show is bit for bit as it was.

    Whoever goes on with the picture elsewhere needs to know which pixels are the edit's.
    """
    sees(lambda y, x, _: {"skin": (y > 20) & (x > 20)})
    photo = Image.new("RGB", (200, 150), (90, 120, 60))
    photo.paste(face, (70, 30))
    points = np.array([[0.35, 0.43], [0.65, 0.43], [0.5, 0.62], [0.38, 0.75], [0.62, 0.75]]) * 96 + [70, 30]
    for prompt in ("smiling", "stop smiling and add glasses"):
        result = edit(photo, prompt=prompt, seed=0, landmarks=points)[0]
        mask, changed = np.asarray(result["mask"]), (pixels(result) != np.asarray(photo)).any(-1)
        assert result["mask"].mode == "L" and mask.shape == changed.shape
        assert changed.any() and not changed[mask == 0].any() and (mask[changed] > 0).all()
        assert changed[mask > 128].mean() > 0.8 and (mask > 0).mean() < 0.5


def test_an_expression_keeps_the_tone_of_the_skin_and_what_has_a_colour_does_not(edit, face, monkeypatch):
    """Dark faces came out lighter with each smile; lipstick that fits the skin around it is none."""
    torch.manual_seed(0)
    refiner = GPTFaceRefiner(GPTFaceRefinerConfig(image_size=64, hidden_channels=[4, 6, 8], dilations=[1]))
    tones, refine = [], refiner.forward
    monkeypatch.setattr(refiner, "forward", lambda *inputs: (tones.append(float(inputs[-1])), refine(*inputs))[1])
    monkeypatch.setattr(edit.model.image_tokenizer, "refiner", refiner)
    for prompt in ("smiling", "a beard", "lipstick", "surprised"):
        assert (pixels(edit(face, prompt=prompt, aligned=True, seed=0)[0]) != np.asarray(face)).any()
    assert tones == [1, 0, 0, 1]


def test_a_mouth_in_profile_stays_and_the_result_says_so(edit, face, sees):
    """A smile beside the mouth, or on the neck."""
    size = edit.face_size

    def rule(y, x, _):
        below = y - 0.75 * size - 0.9 * (x - size / 2)
        mouth = (abs(x - size / 2) < size / 6) & (abs(below) < size / 8)
        return {"upper_lip": mouth & (below < 0), "lower_lip": mouth & (below >= 0), "skin": ~mouth & (y > 0)}

    sees(rule)
    result = edit(face, prompt="smiling", aligned=True, seed=0, force=True)[0]
    assert "no whole mouth is seen" in result["note"] and np.array_equal(pixels(result), np.asarray(face))
    assert edit(face, prompt="smiling", aligned=True, seed=0, force=True, draw=True)[0]["note"] is None


def test_movements_that_one_prompt_asks_for_are_one_pass_and_other_edits_are_their_own():
    """ "Mouth open, angry" was angry with a closed mouth, and did not say so."""
    (angry,) = read_requests("mouth open, angry")
    (warp,) = transfers_of(angry.intents)
    assert warp.part and not warp.close and warp.moves == EDITS["angry"].transfer.moves
    prompt = "sad, eyeglasses, arched eyebrows"
    names = [[edit.name for edit in request.edits] for request in read_requests(prompt)]
    assert names == [["sad", "arched_eyebrows"], ["eyeglasses"]]
    assert len(transfers_of(read_requests(prompt)[0].intents)) == 1
    assert len(read_requests(prompt, drawn=True)) == 3, "the model draws one after the other"


def test_a_prompt_that_asks_for_no_edit_is_refused_and_words_of_ones_own_are_passed_on_if_wanted(edit, face):
    """Every Latin string has pieces that the checkpoint knows: "as a pirate" made a white mask of a face."""
    with pytest.raises(UnknownEditError, match="did you mean"):
        edit(face, prompt="as a pirate", aligned=True)
    with pytest.warns(UserWarning, match="passed on"):
        assert edit(face, prompt="as a pirate", strict=False, aligned=True)[0]["prompt"] == "as a pirate"
    with pytest.warns(UserWarning, match="zombie"):
        assert edit(face, prompt="a smiling zombie", aligned=True)[0]["edits"] == ["smiling"]


def test_several_edits_are_done_one_after_the_other(edit, face):
    ask = {"aligned": True, "seed": 3, "expand_prompt": False}
    both = edit(face, prompt="make him smile and add glasses", num_images_per_prompt=2, **ask)
    assert {result["seed"] for result in both} == {3, 4}
    assert both[0]["prompt"] == "smiling, eyeglasses" and both[0]["edits"] == ["smiling", "eyeglasses"]
    by_hand = edit(edit(face, prompt="smiling", **ask)[0]["image"], prompt="eyeglasses", **ask)[0]
    result = next(result for result in both if result["seed"] == 3)
    assert np.array_equal(pixels(result), pixels(by_hand))
    # where the user chose an area all of it is drawn at once
    at_once = edit(face, prompt="smiling, eyeglasses", region="face", **ask)[0]
    assert at_once["prompt"] == "smiling, eyeglasses" and at_once["edits"] == both[0]["edits"]


def test_several_edits_are_of_the_face_that_was_found_in_the_photo(edit, face, monkeypatch):
    """Found anew after the first edit, it lies a little elsewhere, and the next one changes what is outside of it."""
    points = np.array([[0.35, 0.43], [0.65, 0.43], [0.5, 0.62], [0.38, 0.75], [0.62, 0.75]]) * 96
    looked = []

    class Detector:
        def detect(self, image, thorough=False):
            looked.append(image)
            return [DetectedFace((20.0, 20.0, 76.0, 84.0), points + 5 * (len(looked) - 1), 0.9)]

    monkeypatch.setattr("gptface.pipelines.face_pipeline.default_detector", Detector)
    found = edit(face, prompt="smiling, eyeglasses", seed=3)[0]
    given = edit(face, prompt="smiling, eyeglasses", seed=3, landmarks=points)[0]
    assert len(looked) == 1 and found["box"] == (20.0, 20.0, 76.0, 84.0)
    assert np.array_equal(pixels(found), pixels(given))


def test_what_is_there_already_is_not_painted_again(edit, face, monkeypatch):
    """ "Remove the glasses" where there are none painted ghost glasses."""
    answer = {"Smiling": np.array([0.98])}
    monkeypatch.setattr("gptface.pipelines.guided_face_editing.read_heads", lambda *_: {"attributes": answer})
    ask = {"aligned": True, "seed": 0, "force": False}
    result = edit(face, prompt="smiling", **ask)[0]
    assert np.array_equal(pixels(result), np.asarray(face)) and not np.asarray(result["mask"]).any()
    assert "already" in result["note"] and result["verified"]["smiling"]["before"] == 0.98
    for options in ({"prompt": "smiling", "force": True}, {"prompt": "a bigger smile"}):
        result = edit(face, **{**ask, **options})[0]
        assert result["note"] is None and np.asarray(result["mask"]).any()
    answer["Smiling"] = np.array([0.6])
    assert edit(face, prompt="smiling", **ask)[0]["note"] is None, "in doubt it is painted"


def test_where_a_face_lacks_what_an_edit_needs_it_stays_unless_the_model_is_to_draw(edit, face, sees):
    """Earrings that were drawn into hair were spots, and bangs on bald heads."""
    sees(lambda y, x, _: {"skin": (y > 20) & (y < 50)})
    for prompt, missing in (("earrings", "ear"), ("bangs", "hair")):
        ask = {"prompt": prompt, "aligned": True, "seed": 0}
        result = edit(face, **ask)[0]
        assert np.array_equal(pixels(result), np.asarray(face)) and not np.asarray(result["mask"]).any()
        assert f"no {missing}" in result["note"] and "draw=True" in result["note"]
        assert edit(face, **ask, draw=True)[0]["note"] is None


def test_a_hat_that_is_not_there_is_not_taken_off(edit, face, sees):
    """Boxes were painted on bare heads."""
    ask = {"prompt": "no hat", "aligned": True, "seed": 0}
    sees(lambda y, x, _: {"skin": (y > 20) & (y < 50)})
    bare = edit(face, **ask)[0]
    assert np.array_equal(pixels(bare), np.asarray(face)) and "no hat is seen" in bare["note"]
    white = Image.new("L", face.size, 255)
    for options in ({"draw": True}, {"mask_image": white}):
        assert edit(face, **ask, **options)[0]["note"] is None, "where the user says so it is drawn"
    sees(lambda y, x, _: {"skin": (y > 20) & (y < 50), "hat": y <= 20})
    assert edit(face, **ask)[0]["note"] is None


def test_what_the_parser_sees_to_be_worn_is_not_drawn_over(edit, face, sees, monkeypatch):
    """Heads miss thin glasses; frames that were drawn over them were broken."""
    answer = {"Eyeglasses": np.array([0.02])}
    monkeypatch.setattr("gptface.pipelines.guided_face_editing.read_heads", lambda *_: {"attributes": answer})
    size = face.width

    def glasses(y, x, _):
        return {"eyeglasses": (y > 0.36 * size) & (y < 0.6 * size) & (x > 0.2 * size) & (x < 0.8 * size)}

    sees(glasses)
    for force in (False, True):
        ask = {"prompt": "eyeglasses", "aligned": True, "seed": 0, "force": force}
        result = edit(face, **ask)[0]
        assert np.array_equal(pixels(result), np.asarray(face)) and "already" in result["note"]
    assert edit(face, **ask, draw=True)[0]["note"] is None
    removed = edit(face, prompt="no eyeglasses", aligned=True, seed=0, force=False)[0]
    assert np.asarray(removed["mask"]).any(), "what the parser sees is there, whatever a head thinks"
    assert "made up" in removed["note"], "no eye is seen: who gets another person's eyes is told so"
    sees(lambda y, x, _: {"skin": y > 20})
    answer["Eyeglasses"] = np.array([0.3])
    assert "already" in edit(face, prompt="no eyeglasses", aligned=True, seed=0, force=False)[0]["note"]
    answer["Eyeglasses"] = np.array([0.6])
    assert edit(face, prompt="no eyeglasses", aligned=True, seed=0, force=False)[0]["note"] is None, "it may miss them"


def test_a_head_that_is_turned_keeps_its_beard_with_a_note(edit, face, sees):
    """Background was drawn over its jaw."""
    for nose, note in ((0.2, "no face that faces the camera is seen"), (0.5, None)):

        def head(y, x, _, nose=nose):
            y, x = y / face.width, x / face.width
            return {
                "nose": (np.abs(x - nose) < 0.05) & (np.abs(y - 0.55) < 0.1),
                "skin": (y > 0.2) & (y < 0.9) & (x > 0.1) & (x < 0.9) & (np.abs(x - nose) >= 0.05),
            }

        sees(head)
        found = edit(face, prompt="no beard", aligned=True, seed=0)[0]["note"]
        assert found == note or found.startswith(note)


def test_brows_that_are_not_seen_keep_nobody_from_smiling(edit, face, sees):
    """All movements of a prompt are one pass, and nothing of it was done where a face lacks what one of them needs."""
    size = edit.face_size

    def rule(y, x, _):
        mouth = (np.abs(x - size / 2) < size / 6) & (np.abs(y - 0.75 * size) < size / 16)
        return {"upper_lip": mouth & (y < 0.75 * size), "lower_lip": mouth & (y >= 0.75 * size), "skin": ~mouth}

    sees(rule)
    result = edit(face, prompt="smiling, bushy eyebrows", aligned=True, seed=0, force=True)[0]
    assert result["note"].startswith('no pair of eyebrows is seen: "bushy eyebrows" was left out')
    alone = edit(face, prompt="smiling", aligned=True, seed=0, force=True)[0]
    assert np.array_equal(pixels(result), pixels(alone)) and np.asarray(alone["mask"]).any()


def test_glasses_that_are_to_go_are_no_hat_that_is_there_already(edit, face, sees):
    """The reason was told of the wrong edit."""
    size = face.width

    def turned(y, x, _):
        nose, worn = (np.abs(x - 0.2 * size) < 4) & (np.abs(y - 0.6 * size) < 6), np.abs(y - 0.4 * size) < 0.06 * size
        inside = (x > 0.1 * size) & (x < 0.9 * size)
        return {"nose": nose, "eyeglasses": worn & inside, "skin": inside & ~nose & ~worn}

    sees(turned)
    ask = {"aligned": True, "seed": 0, "mask_image": Image.new("L", face.size, 255)}
    note = edit(face, prompt="no eyeglasses, a hat", **ask)[0]["note"]
    assert note.startswith('no bare head that faces the camera is seen: "a hat" was left out')


def test_a_mask_is_taken_off_before_what_it_hides_is_changed():
    with pytest.warns(UserWarning, match='"no face mask" may come out badly'):
        requests = read_requests("smiling, eyeglasses, remove the mask")
    assert [request.covering for request in requests] == ["face_mask", "", ""]
    assert requests[0].told == "a face" and requests[0].intents[0].phrase == "no face mask"


def test_of_edits_at_once_what_is_told_to_be_missing_is_missing(edit, face, sees):
    sees(lambda y, x, _: {"skin": (y > 20) & (y < 50)})
    ask = {"aligned": True, "seed": 0}
    with_hat = edit(face, prompt="a hat, bangs", region=["hat", "bangs"], **ask)[0]
    missing = "no hair above a forehead that faces the camera is seen"
    assert with_hat["note"].startswith(f'{missing}: "bangs" was left out'), "the head is bare"
    assert np.asarray(with_hat["mask"]).any(), "it gets its hat"
    note = edit(face, prompt="makeup, bangs", region=["face", "bangs"], **ask)[0]["note"]
    assert note.startswith(f'{missing}: "bangs" was left out, it would be drawn along with that: "heavy makeup" was')
    drawn = edit(face, prompt="a hat, lipstick", region=["hat", "mouth"], **ask)[0]
    assert drawn["note"] is None and np.asarray(drawn["mask"]).any(), (
        "a mouth that is not seen is drawn, the hat with it"
    )


def test_wishes_that_are_there_already_are_told_beside_those_that_are_done(edit, face, sees):
    """Of a hat and bangs at once the hat that was worn already was passed over in silence."""
    sees(lambda y, x, _: {"skin": (y > 20) & (y < 50), "hair": y <= 10, "hat": (y > 10) & (y <= 20)})
    ask = {"aligned": True, "seed": 0, "region": ["hat", "hair"]}
    result = edit(face, prompt="a hat, blond hair", **ask)[0]
    assert result["note"].startswith('it is there already: "a hat" was left out') and np.asarray(result["mask"]).any()


PLACES = np.array([[0.35, 0.43], [0.65, 0.43], [0.5, 0.62], [0.38, 0.75], [0.62, 0.75]]) * 96


@pytest.fixture
def two(face):
    """Two faces beside each other in one photo, the right one with something green, and their landmarks."""
    photo = Image.new("RGB", (400, 160), (90, 120, 60))
    for left in (30, 270):
        photo.paste(face, (left, 30))
    photo.paste((0, 255, 0), (290, 75, 346, 120))
    return photo, PLACES + np.array([[[30, 30]], [[270, 30]]])


def green(picture):
    return (picture[..., 1] > 230) & (picture[..., 0] < 40) & (picture[..., 2] < 40)


def test_of_several_faces_that_one_changes_which_wears_a_mask(edit, two, sees):
    """The others were looked at and drawn over with nothing, and nobody was told."""
    sees(lambda y, x, picture: {"face_mask": green(picture), "skin": ~green(picture)})
    photo, landmarks = two
    (result,) = edit(photo, prompt="remove the mask", face="all", landmarks=landmarks, seed=0)
    assert result["note"] == 'no mask over mouth and nose is seen in 1 of 2 faces: "no face mask" was left out'
    changed = (pixels(result) != np.asarray(photo)).any(-1)
    assert changed[75:120, 290:346].mean() > 0.9 and not changed[:, :200].any()


def test_each_of_several_faces_gets_the_edit_as_it_suits_that(edit, two, sees):
    """Where one of them had to be drawn all were, hair whose colour alone was to change, too."""
    sees(lambda y, x, picture: {"hair": (y < 20) & (green(picture).mean() < 0.02), "skin": y >= 20})
    photo, landmarks = two
    (both,) = edit(photo, prompt="blond hair", face="all", landmarks=landmarks, seed=0)
    (left,) = edit(photo, prompt="blond hair", landmarks=landmarks[0], seed=0)
    assert left["guidance_kl"] == 0 < both["guidance_kl"] and both["note"] is None
    assert np.array_equal(pixels(both)[:, :200], pixels(left)[:, :200])
    assert (pixels(both) != np.asarray(photo)).any(-1)[:, 200:].any()


def test_lips_are_not_painted_on_a_mask(edit, two, sees):
    sees(lambda y, x, picture: {"face_mask": green(picture), "upper_lip": (y > 45) & (green(picture).mean() < 0.02)})
    photo, landmarks = two
    (result,) = edit(photo, prompt="lipstick", face="all", landmarks=landmarks, seed=0)
    assert result["note"].startswith('no lower face without a mask is seen in 1 of 2 faces: "lipstick" was left out')
    changed = (pixels(result) != np.asarray(photo)).any(-1)
    assert changed[:, :200].any() and not changed[:, 200:].any()


def test_a_result_tells_what_the_models_own_heads_see_in_it(edit, face):
    result = edit(face, prompt="smiling", aligned=True, seed=0)[0]
    verified, kept = result["verified"], result["kept"]
    assert set(verified) == {"smiling"} and all(0 <= verified["smiling"][when] <= 1 for when in ("before", "after"))
    assert kept["outside"] == 1 and 0 < kept["attributes"] < 1
    assert edit(face, prompt="bangs", aligned=True, seed=0)[0]["verified"] == {}, (
        "this checkpoint's head does not know them"
    )


def test_what_was_verified_is_true_of_the_picture_after_the_last_of_several_edits(edit, face):
    """What one edit brought the next may take away."""
    both = edit(face, prompt="smiling, lipstick", aligned=True, seed=0, draw=True)[0]
    alone = edit(face, prompt="smiling", aligned=True, seed=0)[0]
    seen = edit(both["face"], prompt="smiling", aligned=True, seed=0)[0]["verified"]["smiling"]["before"]
    assert both["verified"]["smiling"]["after"] == pytest.approx(seen, abs=1e-3)
    assert both["verified"]["smiling"]["before"] == alone["verified"]["smiling"]["before"]
    assert both["verified"]["smiling"]["after"] != alone["verified"]["smiling"]["after"]


def test_what_was_kept_leaves_out_what_the_edit_is_about():
    """An open mouth is no side effect of a smile; another hair colour is."""
    edits = [EDITS["smiling"]]
    before = {name: np.array([0.0, 0.5]) for name in ("Smiling", "Mouth_Slightly_Open", "Male", "Black_Hair")}
    after = before | {"Smiling": np.array([1.0, 1.0]), "Mouth_Slightly_Open": np.array([1.0, 1.0])}
    assert kept_attributes(edits, {"attributes": before}, {"attributes": after}) == 1
    after["Black_Hair"] = np.array([0.2, 0.3])
    assert kept_attributes(edits, {"attributes": before}, {"attributes": after}) == pytest.approx(0.9)
    assert kept_attributes(edits, {}, {}) is None


def test_what_changed_outside_of_the_mask_is_told():
    photo, mask = Image.new("RGB", (4, 4)), Image.new("L", (4, 4))
    edited = photo.copy()
    edited.putpixel((0, 0), (0, 0, 1))
    assert kept_outside(photo, edited, mask) == 15 / 16
    mask.putpixel((0, 0), 255)
    assert kept_outside(photo, edited, mask) == 1 == kept_outside(photo, edited, Image.new("L", (4, 4), 255))


def test_a_candidate_that_matches_but_lacks_the_edit_is_not_the_first():
    def result(match, after):
        return {"match_score": match, "verified": {"smiling": {"before": 0.0, "after": after}}}

    assert trust(result(6.0, 0.9994)) > trust(result(6.5, 0.988)) > trust(result(6.5, 0.3))
    assert trust(result(6.5, 1.0)) > trust(result(6.0, 1.0)), "sure of both, the better match"
    assert trust({"match_score": 2.0, "verified": {}}) == 2.0
    assert trust({**result(6.0, 0.9), "realness": -1.0}) > trust({**result(6.5, 0.9), "realness": -2.0})


def with_critic(checkpoint, folder):
    """The pipeline of a checkpoint to which a critic was added, in a new folder."""
    model = GPTFaceForGuidedGeneration.from_pretrained(checkpoint, critic_channels=8)
    model.config.critic_trained = True
    model.save_pretrained(folder)
    GPTFaceProcessor.from_pretrained(checkpoint).save_pretrained(folder)
    return pipeline("guided-face-editing", model=str(folder), num_inference_steps=STEPS, force=True)


def test_the_critic_says_how_real_candidates_are_and_has_a_say_in_their_order(tiny_checkpoint, face, tmp_path):
    edit = with_critic(tiny_checkpoint, tmp_path)
    results = edit(face, prompt="lipstick, smiling", aligned=True, seed=0, num_images_per_prompt=3, draw=True)
    scores = [trust(result) for result in results]
    assert len({result["realness"] for result in results}) == 3 and scores == sorted(scores, reverse=True)
    (edited,) = edit(face, prompt="smiling", aligned=True, seed=0)
    assert np.isfinite(edited["realness"])
    assert edit(face, prompt="lipstick", aligned=True, seed=0)[0].keys() == edited.keys()


def test_the_critic_has_a_say_in_the_guidance_where_the_plan_is_drawn_first(planned_checkpoint, face, tmp_path):
    edit = with_critic(planned_checkpoint, tmp_path)

    def drawn(prompt="smiling", **options):
        return edit(face, prompt=prompt, draw=True, aligned=True, seed=0, **options)[0]

    weights = [0.0, 1.0, 1e6]
    results = [drawn(itm_guidance={"step_size": 4.0, "critic_weight": weight}) for weight in weights]
    without = drawn(itm_guidance=4.0)
    assert np.array_equal(results[0]["image"], without["image"]) and results[0]["realness"] == without["realness"]
    assert results[2]["guidance_kl"] not in (without["guidance_kl"], results[1]["guidance_kl"])
    with pytest.raises(ValueError, match="plan_first=True"):
        drawn("a beard", itm_guidance={"step_size": 4.0, "critic_weight": 1.0})
    assert drawn("a beard", itm_guidance={"step_size": 4.0, "critic_weight": 1.0}, plan_first=True)["realness"]


def test_without_a_critic_nothing_is_said_of_realness(edit, face):
    assert edit(face, prompt="smiling", aligned=True, seed=0)[0]["realness"] is None


def test_a_row_may_redraw_a_part_of_its_regions_where_the_user_chose_none(edit, face):
    """All of a face, redrawn to be older, is another person's."""
    shares = {}
    for name, options in {"row": {}, "whole": {"strength": 1.0}, "chosen": {"region": "face"}}.items():
        shares[name] = np.count_nonzero(
            np.asarray(edit(face, prompt="old", draw=True, aligned=True, seed=0, **options)[0]["mask"])
        )
    assert 0 < shares["row"] < 0.6 * shares["whole"] and shares["chosen"] == shares["whole"]


def test_experimental_edits_say_so_and_others_do_not(edit, face):
    with pytest.warns(UserWarning, match='"pale skin" and "bald" may come out badly'):
        edit(face, prompt="pale skin, bald, smiling", aligned=True, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        edit(face, prompt="smiling", aligned=True, seed=0)
