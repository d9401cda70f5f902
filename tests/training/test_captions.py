"""Captions must be true of their labels: a false one would teach the matching head the opposite of what it is for."""

import re
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptface.data.captions import (
    EMOTION_PHRASES,
    EVALUATION_PHRASES,
    PHRASES,
    Caption,
    age_mentions,
    contradicts,
    counterfactual,
    emotion_caption,
    emotion_labels,
    phrase_for,
    render,
    sample_caption,
    sample_mentions,
)

HAIR_COLOURS = ["Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair"]
NOT_ATTRIBUTES = {"Attractive", "Blurry"}
CELEBA = sorted([*PHRASES, *NOT_ATTRIBUTES])

GENDER_WORDS = {
    ("Male", 1): ["he", "his", "man", "guy", "gentleman", "male"],
    ("Male", 0): ["she", "her", "woman", "lady", "female"],
}

seeds = st.integers(0, 2**32 - 1)
full_labels = st.fixed_dictionaries(dict.fromkeys(CELEBA, st.integers(0, 1)))
partial_labels = st.dictionaries(st.sampled_from(CELEBA), st.integers(0, 1))


def phrases_of(phrases) -> set[str]:
    return {
        *phrases.listed,
        *phrases.nouns,
        *(phrase for slot, phrase in phrases.around_noun if slot != "without"),
        *(phrase for _, phrase in phrases.predicates),
    }


def reverse_table() -> dict[str, tuple[str, int]]:
    table: dict[str, tuple[str, int]] = {}
    for attribute, values in PHRASES.items():
        for value, phrases in values.items():
            for phrase in phrases_of(phrases) | set(GENDER_WORDS.get((attribute, value), ())):
                assert table.setdefault(phrase, (attribute, value)) == (attribute, value), f"{phrase!r} is ambiguous"
    return table


TABLE = reverse_table()
# Leftmost, then longest: "not wearing glasses" hides "wearing glasses".
PARSER = re.compile(
    r"(?<![\w-])(" + "|".join(map(re.escape, sorted(TABLE, key=len, reverse=True))) + r")(?![\w-])",
)


def parse(text: str) -> set[tuple[str, int]]:
    return {TABLE[match] for match in PARSER.findall(text)}


def random_labels(rng: np.random.Generator) -> dict[str, int]:
    """Labels that are about as rare as in photos, so that every value gets its turn."""
    labels = {name: int(rng.random() < 0.3) for name in CELEBA}
    for colour in HAIR_COLOURS:
        labels[colour] = 0
    labels[HAIR_COLOURS[int(rng.integers(4))]] = int(rng.random() < 0.8)
    labels["Male"] = int(rng.random() < 0.5)
    labels["No_Beard"] = int(rng.random() < 0.6)
    labels["Straight_Hair"] *= 1 - labels["Wavy_Hair"]
    return labels


@pytest.fixture(scope="module")
def many() -> list[tuple[dict[str, int], Caption]]:
    rng = np.random.default_rng(0)
    rows = [random_labels(rng) for _ in range(20_000)]
    return [(row, sample_caption(row, rng)) for row in rows]


@settings(max_examples=300, deadline=None)
@given(st.one_of(full_labels, partial_labels), seeds)
def test_a_caption_states_its_mentions_and_nothing_else(labels, seed):
    caption = sample_caption(labels, np.random.default_rng(seed))
    assert parse(caption.text) == set(caption.mentions.items())
    assert not contradicts(caption.mentions, labels)
    assert caption.mentions.keys() <= labels.keys()
    assert caption.text == caption.text.lower().strip() != ""


@settings(max_examples=300, deadline=None)
@given(full_labels, seeds)
def test_a_counterfactual_is_false_and_its_text_says_so(labels, seed):
    rng = np.random.default_rng(seed)
    mentions = sample_mentions(labels, rng)
    before = dict(mentions)
    flipped = counterfactual(mentions, rng)
    assert mentions == before
    if flipped is None:
        return
    assert contradicts(flipped, labels)
    assert len(flipped.items() - mentions.items()) == 1
    assert sum(flipped.get(colour, 0) for colour in HAIR_COLOURS) <= 1
    assert parse(render(flipped, rng)) == set(flipped.items())


def test_most_captions_have_a_counterfactual(many):
    rng = np.random.default_rng(1)
    flipped = [counterfactual(caption.mentions, rng) for _, caption in many[:4000]]
    assert sum(other is None for other in flipped) < 400


def test_the_words_do_not_give_a_flipped_gender_away():
    rng = np.random.default_rng(0)
    for _ in range(50):
        assert counterfactual({"Male": 1, "Goatee": 1}, rng) == {"Male": 1, "Goatee": 0}
        assert counterfactual({"Male": 0, "Oval_Face": 1}, rng) == {"Male": 1, "Oval_Face": 1}


def test_hair_colours_replace_each_other():
    rng = np.random.default_rng(0)
    seen = Counter(next(iter(counterfactual({"Black_Hair": 1}, rng) or [""])) for _ in range(300))
    assert set(seen) == {"Blond_Hair", "Brown_Hair", "Gray_Hair"}
    assert counterfactual({"Straight_Hair": 1}, rng) == {"Wavy_Hair": 1}
    assert counterfactual({"Oval_Face": 1}, rng) is None
    assert counterfactual({}, rng) is None


def test_what_would_clash_is_not_said_together():
    rng = np.random.default_rng(0)
    bald = {"Bald": 1, "Brown_Hair": 1, "Male": 1}
    assert all("Brown_Hair" not in m for m in (sample_mentions(bald, rng) for _ in range(200)) if "Bald" in m)
    assert counterfactual({"Bald": 0, "Oval_Face": 1}, rng) == {"Bald": 1, "Oval_Face": 1}
    results = [counterfactual({"No_Beard": 0, "Mustache": 1}, rng) for _ in range(50)]
    assert {"No_Beard": 1} in results
    texts = [render({"Smiling": 1, "Mouth_Slightly_Open": 0}, rng) for _ in range(500)]
    assert not any("laugh" in text or "grin" in text for text in texts)


def test_no_face_with_a_face():
    rng = np.random.default_rng(0)
    texts = [render({"Young": 0, "Smiling": 0}, rng) for _ in range(2000)]
    assert any("old face" in text for text in texts)
    assert not any(re.search(r"\bface with\b.*\bface\b", text) for text in texts)


def test_two_hair_colours_at_once_are_noise():
    labels = {"Black_Hair": 1, "Brown_Hair": 1}
    assert sample_caption(labels, np.random.default_rng(0)).mentions == {}


def test_clean_shaven_is_said_of_men_without_any_facial_hair(many):
    said = [labels for labels, caption in many if "No_Beard" in caption.mentions and labels["No_Beard"]]
    assert said
    for labels in said:
        assert labels["Male"] == 1
        assert not any(labels[name] for name in ("Goatee", "Mustache", "5_o_Clock_Shadow", "Sideburns"))


def test_same_seed_same_caption():
    labels = random_labels(np.random.default_rng(3))
    draws = [[sample_caption(labels, rng) for _ in range(20)] for rng in map(np.random.default_rng, (7, 7, 8))]
    assert draws[0] == draws[1] != draws[2]


def test_every_value_with_phrases_occurs(many):
    seen = {pair for _, caption in many for pair in caption.mentions.items()}
    assert seen == {(attribute, value) for attribute, values in PHRASES.items() for value in values}


def test_every_phrase_occurs():
    rng = np.random.default_rng(0)
    for attribute, values in PHRASES.items():
        for value, phrases in values.items():
            texts = " | ".join(render({attribute: value}, rng) for _ in range(800))
            for phrase in phrases_of(phrases):
                assert phrase in texts, (attribute, value, phrase)


def test_what_people_type_occurs_as_a_whole_caption(many):
    texts = Counter(caption.text for _, caption in many)
    for prompt in ["smiling", "not smiling", "eyeglasses", "glasses", "blond hair", "a hat", "woman", "old", "bangs"]:
        assert texts[prompt] > 0, prompt
    missing = [phrase for phrase in EVALUATION_PHRASES.values() if not texts[phrase]]
    assert not missing


def test_captions_are_short_and_varied(many):
    lengths = [len(caption.text.split()) for _, caption in many]
    assert np.percentile(lengths, 95) <= 18
    assert max(lengths) <= 40
    assert len({caption.text for _, caption in many}) > 10_000


def test_no_judgement_and_no_race(many):
    words = {word for _, caption in many for word in re.findall(r"[\w-]+", caption.text)}
    assert not words & {"attractive", "beautiful", "ugly", "pretty", "handsome", "blurry"}
    assert not words & {"asian", "african", "caucasian", "indian", "european", "latino", "race", "ethnic"}
    # "black" and "white" speak of hair only.
    for _, caption in many:
        assert "black and white" not in caption.text
        for colour in re.findall(r"\b(?:black|white)\b[- ](\w+)", caption.text):
            assert colour in {"hair", "haired", "and"}, "as in: her hair is black and her eyebrows are arched"


def test_neutral_words_where_the_gender_is_not_mentioned(many):
    words = {word for pair in GENDER_WORDS.values() for word in pair}
    for _, caption in many:
        if "Male" not in caption.mentions:
            assert not words & set(re.findall(r"[\w-]+", caption.text))


def test_unlabelled_faces_get_a_neutral_caption():
    rng = np.random.default_rng(0)
    for _ in range(50):
        caption = sample_caption({"race": 2}, rng)
        assert caption.mentions == {} and parse(caption.text) == set()


@pytest.mark.parametrize("most", [1, 2, 8])
def test_max_mentions(most):
    rng = np.random.default_rng(0)
    counts = {len(sample_mentions(random_labels(rng), rng, max_mentions=most)) for _ in range(500)}
    assert counts == set(range(1, most + 1))


def test_max_mentions_below_one_is_an_error():
    with pytest.raises(ValueError, match="max_mentions"):
        sample_mentions({"Smiling": 1}, np.random.default_rng(0), max_mentions=0)


def test_contradicts():
    assert contradicts({"Blond_Hair": 1}, {"Blond_Hair": 0, "Black_Hair": 1})
    assert contradicts({"Smiling": 1, "Male": 1}, {"Smiling": 1, "Male": 0})
    assert not contradicts({"Smiling": 1}, {"Male": 0})
    assert not contradicts({}, {"Male": 0})


def test_canonical_phrases_are_committed():
    expected = {"Smiling": "smiling", "Eyeglasses": "eyeglasses", "Blond_Hair": "blond hair", "Male": "man"}
    assert expected.items() <= EVALUATION_PHRASES.items()
    assert EVALUATION_PHRASES.keys() == PHRASES.keys() and len(PHRASES) == 38
    assert phrase_for("Smiling", 0) == "not smiling"
    assert phrase_for("No_Beard", 0) == "a beard"
    for attribute, values in PHRASES.items():
        for value in values:
            assert parse(phrase_for(attribute, value)) == {(attribute, value)}
    with pytest.raises(KeyError, match="Oval_Face"):
        phrase_for("Oval_Face", 0)
    with pytest.raises(KeyError, match="Attractive"):
        phrase_for("Attractive", 1)


def test_age():
    assert [age_mentions(age) for age in (0, 34, 35, 54, 55, 110)] == [{"Young": 1}] * 2 + [{}] * 2 + [
        {"Young": 0}
    ] * 2
    with pytest.raises(ValueError, match="negative"):
        age_mentions(-1)


@pytest.mark.parametrize("emotion", EMOTION_PHRASES)
def test_emotions(emotion):
    rng = np.random.default_rng(0)
    captions = [emotion_caption(emotion, rng) for _ in range(600)]
    gray = re.compile(r"gr[ae]y|black and white|monochrome")
    others = set().union(*(phrases_of(EMOTION_PHRASES[other]) for other in EMOTION_PHRASES if other != emotion))
    assert EMOTION_PHRASES[emotion].canonical in {caption.text for caption in captions}
    for caption in captions:
        assert caption.mentions[f"emotion:{emotion}"] == 1
        assert bool(gray.search(caption.text)) == ("grayscale" in caption.mentions)
        assert not contradicts(caption.mentions, emotion_labels(emotion))
        assert caption.text not in others
        flipped = counterfactual(caption.mentions, rng)
        assert flipped is not None and contradicts(flipped, emotion_labels(emotion))
        assert sum(name.startswith("emotion:") for name in flipped) == 1
        assert ("grayscale" in flipped) == ("grayscale" in caption.mentions)
        render(flipped, rng)
    assert 0.2 < np.mean(["grayscale" in caption.mentions for caption in captions]) < 0.6
    assert captions[0].mentions.get("Smiling") == {"happy": 1, "surprise": None}.get(emotion, 0)


def test_emotion_phrases_are_unambiguous():
    seen: dict[str, str] = {}
    for emotion, phrases in EMOTION_PHRASES.items():
        for phrase in phrases_of(phrases):
            assert seen.setdefault(phrase, emotion) == emotion


def test_unknown_emotion():
    for function in (emotion_labels, lambda emotion: emotion_caption(emotion, np.random.default_rng(0))):
        with pytest.raises(ValueError, match="one of angry"):
            function("bored")


def test_a_caption_costs_less_than_reading_its_codes():
    rng = np.random.default_rng(0)
    rows = [random_labels(rng) for _ in range(500)]
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        for row in rows:
            sample_caption(row, rng)
        best = min(best, (time.process_time() - start) / len(rows))
    # 50 µs on a laptop; the bound leaves room for a slow machine.
    assert best < 400e-6
