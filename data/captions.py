"""Captions from attribute labels by a varied grammar, and the mentions that tell matching captions from others.

A caption is a text together with its *mentions*: attribute name → 0 or 1, exactly what the text states. Mentions make
image-text matching exact: `contradicts` says whether a caption is false for an image, and `counterfactual` makes a
false caption that differs from a true one in a single attribute.

Everything is drawn from the generator that is passed in; the same generator state gives the same caption.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .grammar import choose, render
from .phrases import EMOTION_PHRASES, EMOTION_PREFIX, GRAYSCALE, HAIR_COLOURS, PHRASES, SAYABLE, SUNGLASSES

__all__ = [
    "EMOTION_PHRASES",
    "EVALUATION_PHRASES",
    "PHRASES",
    "Caption",
    "age_mentions",
    "contradictions",
    "contradicts",
    "counterfactual",
    "emotion_caption",
    "emotion_labels",
    "mentions_of_other",
    "phrase_for",
    "render",
    "render_plainly",
    "sample_caption",
    "sample_mentions",
]


@dataclass(frozen=True)
class Caption:
    """A caption and what it states.

    Attributes:
        text: lower-case text.
        mentions: attribute name → 0 or 1.
    """

    text: str
    mentions: dict[str, int]


# What an expression implies about the smile; fear and the like exclude it, surprise leaves it open.
_SMILING_OF_EMOTION = {"happy": 1, "angry": 0, "disgust": 0, "fear": 0, "sad": 0, "neutral": 0}

# Absences that people remark on in one gender only. Saying them of everybody would be true but would teach the model
# that "no beard" means a woman; and captions such as "a man without lipstick" are never typed.
_SAID_OF_MEN = frozenset(
    [
        ("No_Beard", 1),
        ("Mustache", 0),
        ("Goatee", 0),
        ("5_o_Clock_Shadow", 0),
        ("Sideburns", 0),
        ("Bald", 0),
        ("Wearing_Necktie", 0),
    ]
)
_SAID_OF_WOMEN = frozenset(
    [("Heavy_Makeup", 0), ("Wearing_Lipstick", 0), ("Wearing_Earrings", 0), ("Wearing_Necklace", 0)]
)
# With one of these mentioned, a flipped gender would be told from the words alone ("a woman with a goatee").
_GENDERED = frozenset(attribute for attribute, _ in _SAID_OF_MEN | _SAID_OF_WOMEN) | {"Receding_Hairline"}

# How often a caption of a photo without colour says so.
_GRAYSCALE_SHARE = 0.4

_FACIAL_HAIR = ("5_o_Clock_Shadow", "Goatee", "Mustache", "Sideburns")

# Values of which only one is true of a face; a counterfactual replaces one by another.
_ALTERNATIVES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(HAIR_COLOURS, HAIR_COLOURS),
    **dict.fromkeys(("Straight_Hair", "Wavy_Hair"), ("Straight_Hair", "Wavy_Hair")),
    **dict.fromkeys((EMOTION_PREFIX + e for e in EMOTION_PHRASES), tuple(EMOTION_PREFIX + e for e in EMOTION_PHRASES)),
}


def _conflict_table() -> dict[tuple[str, int], frozenset[tuple[str, int]]]:
    """(attribute, value) → the pairs that must not be mentioned beside it."""
    hair = (*HAIR_COLOURS, "Bangs", "Straight_Hair", "Wavy_Hair", "Receding_Hairline")
    pairs = [
        *((("Bald", 1), (attribute, 1)) for attribute in hair),
        (("Bald", 1), ("Bangs", 0)),
        *((("No_Beard", 1), (attribute, 1)) for attribute in _FACIAL_HAIR),
        (("No_Beard", 0), ("5_o_Clock_Shadow", 1)),
        (("No_Beard", 0), ("Goatee", 0)),
        *((("No_Beard", 1), (attribute, 0)) for attribute in _FACIAL_HAIR),
        (("Heavy_Makeup", 0), ("Wearing_Lipstick", 1)),
        (("Chubby", 0), ("Double_Chin", 1)),
        # glasses through which eyes are seen, or dark ones
        ((SUNGLASSES, 1), ("Eyeglasses", 1)),
        ((SUNGLASSES, 1), ("Eyeglasses", 0)),
        *(((a, 1), (b, 1)) for a, others in _ALTERNATIVES.items() for b in others if a != b),
    ]
    table: dict[tuple[str, int], set[tuple[str, int]]] = {}
    for first, second in pairs:
        table.setdefault(first, set()).add(second)
        table.setdefault(second, set()).add(first)
    return {pair: frozenset(others) for pair, others in table.items()}


_CONFLICTS = _conflict_table()
_NONE: frozenset[tuple[str, int]] = frozenset()


def sample_mentions(labels: Mapping[str, int], rng: np.random.Generator, max_mentions: int = 5) -> dict[str, int]:
    """Draws what a caption says out of what is true.

    Args:
        labels: name of an attribute, "sunglasses" or "emotion:NAME" → 0 or 1; unknown names are ignored, missing ones
            are never mentioned.
        rng: source of all randomness.
        max_mentions: the most attributes to mention, at least 1; small numbers are more frequent.

    Returns:
        Between 1 and `max_mentions` mentions that are all true of `labels` and do not clash with each other, in the
        order in which they were drawn; empty only if nothing in `labels` can be said. An emotion brings the smile that
        it implies as a further one, which needs no words.

    Raises:
        ValueError: if `max_mentions` is below 1.
    """
    if max_mentions < 1:
        raise ValueError(f"max_mentions must be at least 1, got {max_mentions}.")
    candidates: list[tuple[str, int]] = []
    weights: list[float] = []
    for attribute, value in labels.items():
        phrases = SAYABLE.get(attribute)
        if phrases is None or value not in phrases or not _sayable(attribute, value, labels):
            continue
        candidates.append((attribute, int(value)))
        weights.append(phrases[value].weight)
    if not candidates:
        return {}
    count = 1 + int(max_mentions * rng.random() ** 1.6)
    # Weighted order without replacement: exponential arrival times with the weights as rates.
    order = np.argsort(rng.standard_exponential(len(candidates)) / np.asarray(weights))
    mentions: dict[str, int] = {}
    for index in order.tolist():
        attribute, value = candidates[index]
        conflicts = _CONFLICTS.get((attribute, value), _NONE)
        if any((other, mentioned) in conflicts for other, mentioned in mentions.items()):
            continue
        mentions[attribute] = value
        if len(mentions) == count:
            break
    return _with_implied_smile(mentions)


def sample_caption(
    labels: Mapping[str, int], rng: np.random.Generator, max_mentions: int = 5, plain: float = 0.0
) -> Caption:
    """Draws a true caption of a face with these labels; see `sample_mentions` and `render`.

    Args:
        labels: as of `sample_mentions`; of a photo without colour ("grayscale" → 1) a part of the captions says so.
        rng: source of all randomness.
        max_mentions: the most attributes to mention.
        plain: share of captions that are lists of committed phrases (`render_plainly`).
    """
    mentions = sample_mentions(labels, rng, max_mentions)
    if mentions and rng.random() < plain:
        return Caption(render_plainly(mentions, rng), mentions)
    if labels.get(GRAYSCALE) == 1 and rng.random() < _GRAYSCALE_SHARE:
        mentions[GRAYSCALE] = 1
    return Caption(render(mentions, rng), mentions)


def counterfactual(caption_mentions: Mapping[str, int], rng: np.random.Generator) -> dict[str, int] | None:
    """Flips one mention, so that the result is false of every image that the caption was drawn from.

    A hair colour becomes another hair colour, straight hair wavy hair, an emotion another emotion; everything else
    turns from 0 to 1 or back. Mentions that clash with the flipped one are dropped (hair colours beside "Bald").

    Returns:
        The new mentions, or None if nothing that is mentioned can be flipped.
    """
    flippable = [attribute for attribute in caption_mentions if _can_flip(attribute, caption_mentions)]
    if not flippable:
        return None
    attribute = choose(flippable, rng)
    value = 1 - caption_mentions[attribute]
    flipped = attribute
    if attribute in _ALTERNATIVES:
        flipped = choose([other for other in _ALTERNATIVES[attribute] if other != attribute], rng)
        value = 1
    conflicts = _CONFLICTS.get((flipped, value), _NONE)
    result: dict[str, int] = {}
    for other, mentioned in caption_mentions.items():
        if other == attribute:
            result[flipped] = value
        elif (other, mentioned) not in conflicts:
            result[other] = mentioned
    return _with_implied_smile(result)


def mentions_of_other(mentions: Mapping[str, int], labels: Mapping[str, int]) -> dict[str, int]:
    """What a caption with these mentions would have to say of another face: the same attributes by that face's labels.

    A hair colour that the other face has not becomes the one it has. What cannot be said of the other face is left
    out.
    """
    values: dict[str, int] = {}
    for attribute in mentions:
        value = labels.get(attribute)
        if value == 0 and attribute in _ALTERNATIVES:
            attribute = next((other for other in _ALTERNATIVES[attribute] if labels.get(other) == 1), attribute)
            value = labels[attribute]
        if value is None or value not in SAYABLE.get(attribute, {}) or not _sayable(attribute, value, labels):
            continue
        conflicts = _CONFLICTS.get((attribute, value), _NONE)
        if not any(pair in conflicts for pair in values.items()):
            values[attribute] = value
    return _with_implied_smile(values)


def contradictions(mentions: Mapping[str, int], labels: Mapping[str, int]) -> int:
    """How many mentions differ from their label; attributes without a label do not contradict."""
    return sum(labels.get(attribute, value) != value for attribute, value in mentions.items())


def contradicts(mentions: Mapping[str, int], labels: Mapping[str, int]) -> bool:
    """Whether at least one mention differs from its label."""
    return contradictions(mentions, labels) > 0


def phrase_for(attribute: str, value: int) -> str:
    """The one committed phrase for a value of an attribute, such as "smiling" or "no beard".

    Raises:
        KeyError: if the attribute is unknown or this value has no phrase.
    """
    try:
        return SAYABLE[attribute][value].canonical
    except KeyError:
        raise KeyError(
            f"No phrase for {attribute!r} = {value}; attributes with phrases: {', '.join(PHRASES)}."
        ) from None


def render_plainly(mentions: Mapping[str, int], rng: np.random.Generator) -> str:
    """Says the mentions as a list of their committed phrases in random order, such as "eyeglasses, smiling, no beard".

    Raises:
        KeyError: if a mention has no phrases.
    """
    names = list(mentions)
    if "Smiling" in mentions and _emotion(mentions) is not None:
        names.remove("Smiling")  # implied
    rng.shuffle(names)
    return ", ".join(phrase_for(name, mentions[name]) for name in names)


# "No_Beard" is negative in CelebA: its positive, "no beard", is what an editing prompt says.
EVALUATION_PHRASES: dict[str, str] = {attribute: phrase_for(attribute, 1) for attribute in PHRASES}


def age_mentions(age: int) -> dict[str, int]:
    """What an age in years says about "Young": 1 below 35, 0 from 55 on, nothing between.

    Raises:
        ValueError: if `age` is negative.
    """
    if age < 0:
        raise ValueError(f"age must not be negative, got {age}.")
    if age < 35:
        return {"Young": 1}
    return {"Young": 0} if age >= 55 else {}


def emotion_labels(emotion: str) -> dict[str, int]:
    """All that an emotion tells of a face.

    Returns:
        "emotion:NAME" → 1 for this and 0 for the other six, and "Smiling" where the emotion settles it.

    Raises:
        ValueError: if `emotion` is none of the seven.
    """
    _check_emotion(emotion)
    return {
        **{EMOTION_PREFIX + other: int(other == emotion) for other in EMOTION_PHRASES},
        **_implied_smile(emotion),
    }


def emotion_caption(emotion: str, rng: np.random.Generator) -> Caption:
    """Draws a caption of a grey photo of an expression; a part of the captions says that the photo is grey.

    Returns:
        A caption that mentions "emotion:NAME", "Smiling" where the emotion settles it, and "grayscale" if it says so.

    Raises:
        ValueError: if `emotion` is none of angry, disgust, fear, happy, sad, surprise, neutral.
    """
    _check_emotion(emotion)
    mentions = {EMOTION_PREFIX + emotion: 1, **_implied_smile(emotion)}
    if rng.random() < _GRAYSCALE_SHARE:
        mentions[GRAYSCALE] = 1
    return Caption(render(mentions, rng), mentions)


def _sayable(attribute: str, value: int, labels: Mapping[str, int]) -> bool:
    """Whether a true value is worth saying and not put in doubt by the other labels."""
    if value and attribute in _ALTERNATIVES:
        # Two hair colours at once are noise, and their counterfactual might be true.
        return all(other == attribute or labels.get(other) != 1 for other in _ALTERNATIVES[attribute])
    if (attribute, value) in _SAID_OF_MEN:
        if attribute == "No_Beard" and any(labels.get(other) == 1 for other in _FACIAL_HAIR):
            return False
        return labels.get("Male") == 1
    if (attribute, value) in _SAID_OF_WOMEN:
        return labels.get("Male") == 0
    return True


def _can_flip(attribute: str, mentions: Mapping[str, int]) -> bool:
    if attribute in _ALTERNATIVES:
        return mentions[attribute] == 1
    if attribute == "Male":
        return not any(other in _GENDERED for other in mentions)
    if attribute == "Smiling" and _emotion(mentions) is not None:
        return False
    return 1 - mentions[attribute] in SAYABLE.get(attribute, {})


def _emotion(mentions: Mapping[str, int]) -> str | None:
    """The emotion that is mentioned."""
    return next((name.removeprefix(EMOTION_PREFIX) for name in mentions if name.startswith(EMOTION_PREFIX)), None)


def _with_implied_smile(mentions: dict[str, int]) -> dict[str, int]:
    """The mentions; beside an emotion "Smiling" is what that implies, for it gets no words of its own."""
    emotion = _emotion(mentions)
    if emotion is None:
        return mentions
    return {name: value for name, value in mentions.items() if name != "Smiling"} | _implied_smile(emotion)


def _implied_smile(emotion: str) -> dict[str, int]:
    return {"Smiling": _SMILING_OF_EMOTION[emotion]} if emotion in _SMILING_OF_EMOTION else {}


def _check_emotion(emotion: str) -> None:
    if emotion not in EMOTION_PHRASES:
        raise ValueError(f"Unknown emotion {emotion!r}; it must be one of {', '.join(EMOTION_PHRASES)}.")
