"""The captions by which matching is measured: fixed wording, three attributes each, drawn from a seed.

True and false captions are made so that words alone tell nothing: within each half of the faces (even and odd rows)
the false captions are the true ones of other faces, each used once. [`words_only_auc`] checks it. Counterfactual
captions have no such balance (flipping makes rare values frequent), so their figure must be read beside that of the
words.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gptface.data.captions import PHRASES, contradicts, counterfactual, phrase_for
from gptface.data.masking import sample_generator
from gptface.metrics.ranking import area_under_curve

MENTIONS = 3
MINIMUM = 20  # positives and negatives of an attribute that counts


@dataclass(frozen=True)
class FaceCaptions:
    """
    Captions of one face: true of it, true of another face but not of it, and with one of the three attributes flipped.
    """

    true: str
    false: str
    counterfactual: str


def frequent_attributes(labels: Sequence[Mapping[str, int]], minimum: int = MINIMUM) -> list[str]:
    """
    Attributes with at least `minimum` positives and negatives that have a committed phrase ("Attractive" and "Blurry"
    have none).
    """
    counts = {name: Counter(row.get(name) for row in labels) for name in PHRASES}
    return [name for name, count in counts.items() if min(count[0], count[1]) >= minimum]


def protocol_captions(labels: Sequence[Mapping[str, int]], seed: int = 0) -> list[FaceCaptions]:
    """
    The captions of every face.

    Each names exactly three attributes, drawn with equal probability from the [`frequent_attributes`] whose value of
    this face has a committed phrase (absence has one for about half of the attributes: nobody says "no oval face");
    triples of which none can be flipped into another committed phrase are drawn again.

    Raises:
        ValueError: where too few attributes are frequent, or no other face's caption is false of a face.
    """
    attributes = frequent_attributes(labels)
    if len(attributes) < MENTIONS:
        raise ValueError(
            f"matching needs {MENTIONS} attributes with at least {MINIMUM} positive and {MINIMUM} negative faces; "
            f"of {len(labels)} faces these have them: {attributes or 'none'}"
        )
    drawn = [_draw(row, known, attributes, sample_generator(seed, 0, row)) for row, known in enumerate(labels)]
    mentions = [own for own, _ in drawn]
    strangers = np.empty(len(labels), int)
    for half in range(2):
        rows = np.arange(half, len(labels), 2)
        strangers[rows] = rows[_pair(mentions[half::2], labels[half::2], sample_generator(seed, 1, half))]
    return [
        FaceCaptions(plain(own), plain(mentions[stranger]), plain(flipped))
        for (own, flipped), stranger in zip(drawn, strangers, strict=True)
    ]


def plain(mentions: Mapping[str, int]) -> str:
    """Mentions → their committed phrases in this order, such as "smiling, no beard, eyeglasses"."""
    return ", ".join(phrase_for(name, value) for name, value in mentions.items())


def _draw(
    row: int, known: Mapping[str, int], attributes: Sequence[str], generator: np.random.Generator
) -> tuple[dict[str, int], dict[str, int]]:
    """Three true mentions of a face, and the same with one flipped, so that they contradict its labels."""
    candidates = [name for name in attributes if known.get(name) in PHRASES[name]]
    for _ in range(200):
        names = [candidates[index] for index in generator.permutation(len(candidates))[:MENTIONS]]
        mentions = {name: int(known[name]) for name in names}
        flipped = counterfactual(mentions, generator)
        # a flip that drops what clashes with it would be told by its length
        if flipped and len(flipped) == len(mentions) == MENTIONS and contradicts(flipped, known):
            return mentions, flipped
    raise ValueError(f"face {row} has too few attributes that can be said and flipped: {candidates}")


def _pair(
    mentions: Sequence[Mapping[str, int]], labels: Sequence[Mapping[str, int]], generator: np.random.Generator
) -> np.ndarray:
    """A permutation [faces]: whose caption each face gets, so that it is false of it."""
    order = generator.permutation(len(labels))
    for face in range(len(labels)):
        if contradicts(mentions[order[face]], labels[face]):
            continue
        for _ in range(5000):
            other = int(generator.integers(len(labels)))
            if contradicts(mentions[order[other]], labels[face]) and contradicts(mentions[order[face]], labels[other]):
                order[[face, other]] = order[[other, face]]
                break
        else:
            raise ValueError(f"no other face's caption is false of a face with the labels {dict(labels[face])}")
    return order


def words_only_auc(true: Sequence[str], false: Sequence[str]) -> float:
    """
    AUC of a naive Bayes classifier that sees the words and no picture: counted on the captions of even rows, scored on
    odd ones. What it reaches above 0.5 a model can reach without looking.
    """
    counts = [Counter(word for text in texts[::2] for word in text.split()) for texts in (true, false)]
    totals = [count.total() + len(counts[0] | counts[1]) for count in counts]

    def scores(texts: Sequence[str]) -> np.ndarray:
        def evidence(word: str) -> float:
            rates = [(count[word] + 1) / total for count, total in zip(counts, totals, strict=True)]
            return math.log(rates[0]) - math.log(rates[1])

        # rounded, so that sums in another order tie
        return np.array([round(sum(map(evidence, text.split())), 9) for text in texts[1::2]])

    return area_under_curve(scores(true), scores(false))
