"""What a data set says of a face becomes words: what is read wrongly is taught wrongly."""

import numpy as np
import pyarrow as pa
import pytest

from gptface.data.captions import contradicts, counterfactual, mentions_of_other, render, sample_caption
from gptface.data.code_dataset import CodeTable, read_part
from gptface.data.labels import VOTES, clear_emotion, emotion_of, label_columns, labels_of


def votes(**given):
    return {**dict.fromkeys(VOTES, 0), **given}


@pytest.mark.parametrize(
    ("given", "emotion"),
    [
        ({"happiness": 8, "neutral": 2}, "happy"),
        ({"happiness": 7, "neutral": 3}, None),  # annotators disagree
        ({"contempt": 10}, None),
        ({"anger": 7, "unknown": 1, "NF": 1}, None),  # doubts count
        ({}, None),
    ],
)
def test_votes_are_an_emotion_where_the_majority_is_clear(given, emotion):
    assert clear_emotion(votes(**given)) == emotion
    labels = labels_of(votes(**given))
    assert labels.get(f"emotion:{emotion}") == (1 if emotion else None)


def test_the_emotion_of_a_row_goes_before_its_votes():
    assert emotion_of({**votes(fear=10), "emotion": "sad"}) == "sad"
    assert emotion_of({"emotion": None}) is None
    with pytest.raises(ValueError, match="one of angry"):
        labels_of({"emotion": "bored"})


@pytest.mark.parametrize(
    ("row", "labels"),
    [
        ({"age": 70, "gender": "female"}, {"Young": 0, "Male": 0}),
        ({"age": 45, "gender": "male"}, {"Male": 1}),
        ({"age": None, "gender": None, "Male": None}, {}),
        ({"age": 20, "Young": 0}, {"Young": 0}),  # what annotators saw goes before what an age implies
        ({"sunglasses": 1, "Eyeglasses": None}, {"sunglasses": 1}),
        ({"grey": True, "race": "White", "identity": 3}, {"grayscale": 1}),
        ({"Smiling": 1, "emotion": "surprise"}, {"Smiling": 1, "emotion:surprise": 1, "emotion:happy": 0}),
        ({"Smiling": 1, "emotion": "sad"}, {"Smiling": 0, "emotion:sad": 1}),
    ],
)
def test_columns_become_labels(row, labels):
    got = labels_of(row)
    assert got.items() >= labels.items()
    assert {name for name in got if not name.startswith("emotion:")} == {
        name for name in labels if not name.startswith("emotion:")
    }
    assert set(label_columns([*row, "image", "key"])) == set(row) - {"race", "identity"}


@pytest.mark.parametrize(
    ("eyeglasses", "brightness", "labels"),
    [
        (1, 0.3, {"sunglasses": 1}),
        (1, 0.6, {}),  # tinted lenses, or a shadow
        (1, 0.9, {"Eyeglasses": 1, "sunglasses": 0}),
        (0, 0.9, {"Eyeglasses": 0, "sunglasses": 0}),
        (0, 0.3, {"Eyeglasses": 0}),
    ],
)
def test_dark_glasses_are_no_eyeglasses(eyeglasses, brightness, labels):
    assert labels_of({"Eyeglasses": eyeglasses, "lens_brightness": brightness}) == labels
    assert "sunglasses" not in labels_of({"Eyeglasses": eyeglasses, "lens_brightness": None})
    own = labels_of({"Eyeglasses": eyeglasses, "sunglasses": 0, "lens_brightness": brightness})
    assert own == {"Eyeglasses": eyeglasses, "sunglasses": 0}, "the data know better"


def test_captions_say_expression_and_attributes_together():
    """Of a happy man with a beard the expression alone used to be said."""
    labels = labels_of({"emotion": "happy", "gender": "male", "No_Beard": 0, "grey": False})
    captions = [sample_caption(labels, np.random.default_rng(seed)) for seed in range(300)]
    said = [set(caption.mentions) for caption in captions]
    assert any({"emotion:happy", "Male", "No_Beard"} <= names for names in said)
    assert np.mean(["emotion:happy" in names for names in said]) > 0.5
    for caption in captions:
        assert not contradicts(caption.mentions, labels)
        assert "gray" not in caption.text and "black and white" not in caption.text


def test_plain_lists_do_not_repeat_the_smile_that_an_emotion_implies():
    labels = labels_of({"emotion": "happy"})
    caption = sample_caption(labels, np.random.default_rng(0), plain=1.0)
    assert (caption.text, caption.mentions) in (
        ("happy", {"emotion:happy": 1, "Smiling": 1}),
        ("smiling", {"Smiling": 1}),
    )


def test_grey_photos_are_called_grey_in_a_part_of_their_captions():
    for grey, low, high in ((1, 0.2, 0.6), (0, 0.0, 0.0)):
        labels = {"Male": 1, "grayscale": grey}
        captions = [sample_caption(labels, np.random.default_rng(seed)) for seed in range(200)]
        assert low <= np.mean(["grayscale" in caption.mentions for caption in captions]) <= high


def test_sunglasses_are_not_said_beside_eyeglasses():
    rng = np.random.default_rng(0)
    captions = [sample_caption({"sunglasses": 1, "Eyeglasses": 1, "Male": 1}, rng) for _ in range(200)]
    assert not any({"sunglasses", "Eyeglasses"} <= caption.mentions.keys() for caption in captions)
    assert any("dark glasses" in caption.text for caption in captions)
    assert "glasses" in render({"sunglasses": 0}, rng)
    assert counterfactual({"sunglasses": 1}, rng) == {"sunglasses": 0}
    assert counterfactual({"sunglasses": 0, "Eyeglasses": 0}, rng) in (
        {"sunglasses": 1},
        {"sunglasses": 0, "Eyeglasses": 1},
    )


def test_what_would_be_said_of_another_face_has_its_emotion_and_smile():
    happy, sad = (labels_of({"emotion": emotion}) for emotion in ("happy", "sad"))
    assert mentions_of_other({"emotion:happy": 1, "Smiling": 1}, sad) == {"emotion:sad": 1, "Smiling": 0}
    assert mentions_of_other({"Smiling": 0}, happy) == {"Smiling": 1}


def test_a_part_with_emotions_and_attributes_keeps_both(tmp_path, write_part):
    table = CodeTable(np.zeros((3, 2, 64), np.uint16), [{}] * 3, [None] * 3)
    write_part(
        tmp_path / "codes/part-00000.parquet",
        table,
        "made by",
        emotion=["happy", None, None],
        Male=[1, 0, None],
        grey=pa.array([False, True, None]),
    )
    read = read_part(tmp_path / "codes/part-00000.parquet", "made by")
    assert read.emotions == ["happy", None, None]
    assert read.labels[0].items() >= {"emotion:happy": 1, "Smiling": 1, "Male": 1, "grayscale": 0}.items()
    assert read.labels[1:] == [{"Male": 0, "grayscale": 1}, {}]


def test_a_part_without_labels_is_read(tmp_path, write_part):
    table = CodeTable(np.zeros((2, 2, 64), np.uint16), [{}] * 2, [None] * 2)
    write_part(tmp_path / "codes/part-00000.parquet", table, "made by")
    assert read_part(tmp_path / "codes/part-00000.parquet", "made by").labels == [{}, {}]
