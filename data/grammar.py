"""The grammar of captions: mentions in, a short text out.

It knows how to say things, not whether they are true; `captions` decides what is mentioned.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from .phrases import EMOTION_PREFIX, GRAYSCALE, HAIR_COLOURS, SAYABLE

T = TypeVar("T")

# phrase → the mention beside which it would sound wrong
_CLASHES = dict.fromkeys(
    ("laughing", "grinning", "a grin", "grin", "a big smile", "big smile"), ("Mouth_Slightly_Open", 0)
)

_NEUTRAL_NOUNS = ("person", "person", "face", "someone")
_PRONOUNS: dict[int | None, tuple[tuple[str, str, bool], ...]] = {
    # (subject, possessive, plural verb)
    1: (("he", "his", False), ("he", "his", False), ("the man", "his", False), ("this man", "his", False)),
    0: (("she", "her", False), ("she", "her", False), ("the woman", "her", False), ("this woman", "her", False)),
    None: (("the person", "the person's", False), ("this person", "their", False), ("they", "their", True)),
}
_FRAMES = (
    "a photo of ",
    "a portrait of ",
    "a picture of ",
    "photo of ",
    "portrait of ",
    "a close-up of ",
    "an image of ",
)
_GRAY_FRAMES = (
    "a black and white photo of ",
    "a black and white portrait of ",
    "a grey photo of ",
    "a gray photo of ",
    "a grayscale photo of ",
    "black and white photo of ",
)
_GRAY_ENDINGS = (
    "black and white photo",
    "grey photo",
    "gray photo",
    "black and white",
    "grayscale",
    "monochrome photo",
)
_EMPTY = ("a face", "a person", "a photo of a person", "a portrait", "a photo of a face", "someone", "face", "person")

# Adjectives of age and hair stand next to the noun: "a smiling young blond woman".
_ADJECTIVE_RANK = {"Young": 1, **dict.fromkeys(HAIR_COLOURS, 2), "Male": 3}


def render(mentions: Mapping[str, int], rng: np.random.Generator) -> str:
    """Says the mentions, all of them and nothing else, as a short lower-case text.

    The style is drawn: a list ("woman, blond hair, smiling"), a noun phrase ("a photo of a smiling woman with
    glasses"), a sentence ("she has bangs and is smiling") or a noun phrase and a sentence. Gendered words occur only
    if "Male" is mentioned.

    Args:
        mentions: attribute name → 0 or 1. Beside attributes, "emotion:NAME" and "grayscale" with value 1; a "Smiling"
            that stands beside an emotion is implied by it and not said again.
        rng: source of all randomness.

    Raises:
        KeyError: if a mention has no phrases.
    """
    said = _said(mentions, rng)
    grayscale = mentions.get(GRAYSCALE) == 1
    if not said:
        return choose(_GRAY_FRAMES, rng) + "a face" if grayscale else choose(_EMPTY, rng)
    draw = rng.random()
    frames: Sequence[str] = _FRAMES
    ending = ""
    if grayscale:
        # A frame needs a noun phrase after it; other styles say it at the end.
        if draw >= 0.4:
            draw = 0.4 + 0.35 * rng.random()
            frames = _GRAY_FRAMES
        else:
            ending = ", " + choose(_GRAY_ENDINGS, rng)
    # A single attribute is what people type as a prompt, and they type it bare.
    if draw < (0.5 if len(said) == 1 and not grayscale else 0.4):
        text = _list(said, rng)
    elif draw < 0.75:
        text = _framed(said, rng, frames, always=grayscale)
    elif draw < 0.92 or len(said) < 3:
        text = _sentence(said, rng)
    else:
        text = _noun_phrase_and_sentence(said, rng)
    return text + ending


def _said(mentions: Mapping[str, int], rng: np.random.Generator) -> dict[str, int]:
    """The mentions that get words of their own, in random order."""
    names = [attribute for attribute in mentions if attribute != GRAYSCALE]
    if "Smiling" in mentions and any(name.startswith(EMOTION_PREFIX) for name in names):
        names.remove("Smiling")
    return {name: mentions[name] for name in _shuffled(names, rng)}


def _list(said: Mapping[str, int], rng: np.random.Generator) -> str:
    words = [
        _choose_fitting(SAYABLE[attribute][value].listed, said, rng)
        for attribute, value in said.items()
        if attribute != "Male"
    ]
    if "Male" in said:
        words.insert(0, choose(SAYABLE["Male"][said["Male"]].nouns, rng))
    if len(words) == 2 and "Male" not in said and rng.random() < 0.3:
        return " and ".join(words)
    return ", ".join(words)


def _framed(said: Mapping[str, int], rng: np.random.Generator, frames: Sequence[str], always: bool = False) -> str:
    """A noun phrase, with or without "a photo of"; without a noun if only complements are to be said."""
    draw = rng.random()
    if always or draw < 0.35:
        return choose(frames, rng) + _noun_phrase(said, rng)
    if draw < 0.5 and "Male" not in said:
        complements = _complements(said, rng)
        if complements:
            return complements
    if draw < 0.7:
        return _noun_phrase(said, rng, article=False)
    return _noun_phrase(said, rng)


def _complements(said: Mapping[str, int], rng: np.random.Generator) -> str:
    """Complements without a noun ("with glasses and a smile"), empty if one of the mentions has none."""
    things: list[str] = []
    for attribute, value in said.items():
        phrases = SAYABLE[attribute][value]
        options = phrases.with_ + phrases.wear
        if not options:
            return ""
        things.append(_choose_fitting(options, said, rng))
    return "with " + _join(things)


def _noun_phrase(said: Mapping[str, int], rng: np.random.Generator, article: bool = True) -> str:
    slots: dict[str, list[str]] = {"with_": [], "wear": [], "doing": [], "without": []}
    adjectives: list[tuple[int, str]] = []
    for attribute, value in said.items():
        if attribute == "Male":
            continue
        phrases = SAYABLE[attribute][value]
        # More than two adjectives before a noun read like a list.
        options = phrases.around_noun if len(adjectives) < 2 else phrases.after_noun
        slot, phrase = _choose_slot(options, said, rng)
        if slot == "before":
            adjectives.append((_ADJECTIVE_RANK.get(attribute, 0), phrase))
        else:
            slots[slot].append(phrase)

    worn = slots["wear"]
    if worn and rng.random() < 0.5:
        slots["with_"].extend(worn)
        worn = []
    # Neither "a face wearing a hat" nor "a face with an old face".
    face_fits = not worn and not slots["doing"] and not any("face" in thing for thing in slots["with_"])
    noun = _noun(said, rng, adjectives, face_fits)
    head = " ".join([*(adjective for _, adjective in sorted(adjectives, key=lambda pair: pair[0])), noun])
    if article and noun != "someone":
        head = f"{_article(head)} {head}"

    complements = []
    if slots["with_"]:
        complements.append("with " + _join(slots["with_"]))
    if worn:
        complements.append("wearing " + _join(worn))
    complements.extend(f"without {thing}" for thing in slots["without"])
    text = f"{head} {_join(complements)}" if complements else head
    if slots["doing"]:
        doing = _join(slots["doing"])
        if not complements:
            text += f" {doing}"
        else:
            text += f", {doing}" if rng.random() < 0.6 else f" who is {doing}"
    return text


def _noun(
    said: Mapping[str, int], rng: np.random.Generator, adjectives: list[tuple[int, str]], face_fits: bool
) -> str:
    """The subject noun; may add "male" or "female" to `adjectives`."""
    if "Male" not in said:
        noun = choose(_NEUTRAL_NOUNS, rng)
        if (noun == "someone" and adjectives) or (noun == "face" and not face_fits):
            return "person"
        return noun
    phrases = SAYABLE["Male"][said["Male"]]
    if rng.random() < 0.15:
        adjectives.append((_ADJECTIVE_RANK["Male"], phrases.before[0]))
        return "face" if face_fits and rng.random() < 0.6 else "person"
    return choose(phrases.nouns, rng)


def _sentence(said: Mapping[str, int], rng: np.random.Generator, pronoun: bool = False) -> str:
    """Clauses about a subject. `pronoun`: the subject was named before, refer to it by a pronoun."""
    subjects = _PRONOUNS[said.get("Male")]
    subject, possessive, plural = (
        (subjects[0] if "Male" in said else subjects[-1]) if pronoun else choose(subjects, rng)
    )
    slots: dict[str, list[str]] = {"before": [], "doing": [], "with_": [], "wear": [], "own": []}
    for attribute, value in said.items():
        if attribute == "Male":
            continue
        slot, phrase = _choose_slot(SAYABLE[attribute][value].predicates, said, rng)
        slots[slot].append(phrase)
    # "is bearded and not wearing a hat": the other order would negate both.
    slots["is"] = slots["before"] + slots["doing"]
    verbs = {
        "is": "are" if plural else "is",
        "with_": "have" if plural else "has",
        "wear": ("are wearing" if plural else "is wearing") if rng.random() < 0.5 else ("wear" if plural else "wears"),
    }
    predicates = [f"{verb} {_join(slots[slot])}" for slot, verb in verbs.items() if slots[slot]]
    clauses = [f"{possessive} {clause}" for clause in slots["own"]]
    if predicates:
        clauses.insert(0, f"{subject} {_join(_shuffled(predicates, rng))}")
    elif not clauses:
        # Only the gender is to be said.
        clauses = ["this is " + _noun_phrase(said, rng)]
    text = _join(clauses)
    return text + "." if rng.random() < 0.25 else text


def _noun_phrase_and_sentence(said: Mapping[str, int], rng: np.random.Generator) -> str:
    attributes = [attribute for attribute in said if attribute != "Male"]
    gender = {"Male": said["Male"]} if "Male" in said else {}
    first = attributes[: len(attributes) // 2]
    rest = attributes[len(first) :]
    head = _framed_with_noun({**gender, **{name: said[name] for name in first}}, rng)
    return head + ". " + _sentence({**gender, **{name: said[name] for name in rest}}, rng, pronoun=True)


def _framed_with_noun(said: Mapping[str, int], rng: np.random.Generator) -> str:
    return (choose(_FRAMES, rng) if rng.random() < 0.4 else "") + _noun_phrase(said, rng)


def choose(options: Sequence[T], rng: np.random.Generator) -> T:
    # `rng.random` is several times faster than `rng.integers` or `rng.choice` for single draws.
    return options[int(rng.random() * len(options))]


def _choose_fitting(options: Sequence[str], said: Mapping[str, int], rng: np.random.Generator) -> str:
    phrase = choose(options, rng)
    if _clashes(phrase, said):
        phrase = choose([option for option in options if not _clashes(option, said)], rng)
    return phrase


def _choose_slot(
    options: Sequence[tuple[str, str]], said: Mapping[str, int], rng: np.random.Generator
) -> tuple[str, str]:
    chosen = choose(options, rng)
    if _clashes(chosen[1], said):
        chosen = choose([option for option in options if not _clashes(option[1], said)], rng)
    return chosen


def _clashes(phrase: str, said: Mapping[str, int]) -> bool:
    clash = _CLASHES.get(phrase)
    return clash is not None and said.get(clash[0]) == clash[1]


def _shuffled(items: Iterable[T], rng: np.random.Generator) -> list[T]:
    result = list(items)
    for last in range(len(result) - 1, 0, -1):
        other = int(rng.random() * (last + 1))
        result[last], result[other] = result[other], result[last]
    return result


def _join(parts: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _article(phrase: str) -> str:
    return "an" if phrase[0] in "aeiou" else "a"
