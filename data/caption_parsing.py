"""Captions → the attributes that they state, by the phrases that captions are made of."""

import re

from .captions import PHRASES
from .phrases import SAYABLE, SUNGLASSES


def _table() -> dict[str, tuple[str, int]]:
    """Words of a phrase → (attribute, value), of all phrases that belong to one attribute and value only."""
    table: dict[str, set[tuple[str, int]]] = {}
    # without those of sunglasses, "dark glasses" would be read as glasses
    for attribute, values in {**PHRASES, SUNGLASSES: SAYABLE[SUNGLASSES]}.items():
        for value, phrases in values.items():
            slots = (
                phrases.nouns,
                phrases.before,
                phrases.with_,
                phrases.wear,
                phrases.doing,
                phrases.own,
                phrases.alone,
            )
            absent = [f"without {phrase}" for phrase in phrases.without]
            for phrase in (phrases.canonical, *absent, *(each for slot in slots for each in slot)):
                table.setdefault(_words(_bare(phrase)), set()).add((attribute, value))
    return {phrase: next(iter(pairs)) for phrase, pairs in table.items() if len(pairs) == 1}


def _bare(phrase: str) -> str:
    """Without articles: a caption may say "glasses" or "the glasses"."""
    return re.sub(r"\b(?:the|an|a)\b", " ", phrase)


def _words(text: str) -> str:
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


_PHRASES = _table()
_ANY_PHRASE = re.compile(rf"\b(?:{'|'.join(sorted(map(re.escape, _PHRASES), key=len, reverse=True))})\b")


def stated_attributes(caption: str) -> set[tuple[str, int]]:
    """
    (attribute, value) pairs of the phrases in a caption, the longest phrase first: "no beard" is not a beard. Case,
    articles and punctuation do not matter.
    """
    return {_PHRASES[match] for match in _ANY_PHRASE.findall(_words(_bare(caption.lower())))}
