"""What the columns of a face data set say of a face, as labels: attribute or mention → 0/1.

Read are the 40 attributes of CelebA and `sunglasses` (0/1), `age` (years) and `gender` ("male" or "female") as in
UTKFace, `emotion` (one of seven), the votes of FER+ (a column an expression), and what
[`~gptface.data.encode.encode_columns`] measured: `grey` (whether the picture has no colour) and `lens_brightness`, by
which `Eyeglasses` becomes `sunglasses` where those are dark. All else is left aside.
"""

from collections.abc import Collection, Mapping
from typing import Any

from .captions import age_mentions, emotion_labels
from .lenses import glasses_labels
from .phrases import GRAYSCALE, PHRASES, SUNGLASSES

GENDERS = {"female": 0, "male": 1}
#: Columns of FER+ (Barsoum et al. 2016): how many annotators chose what; `None` is none of the seven emotions.
VOTES: dict[str, str | None] = {
    "neutral": "neutral",
    "happiness": "happy",
    "surprise": "surprise",
    "sadness": "sad",
    "anger": "angry",
    "disgust": "disgust",
    "fear": "fear",
    "contempt": None,
    "unknown": None,
    "NF": None,
}
#: A majority is clear that holds this share of all votes.
CLEAR_MAJORITY = 0.8


def label_columns(names: Collection[str]) -> list[str]:
    """Which of a table's columns [`labels_of`] and [`emotion_of`] read."""
    attributes = [name for name in names if name in PHRASES]
    others = [name for name in (SUNGLASSES, "age", "gender", "emotion", "grey", "lens_brightness") if name in names]
    return attributes + others + (list(VOTES) if VOTES.keys() <= set(names) else [])


def emotion_of(row: Mapping[str, Any]) -> str | None:
    """The emotion of a row: its `emotion`, else the clear majority of its votes, else None."""
    if row.get("emotion") is not None:
        return row["emotion"]
    return clear_emotion(row) if VOTES.keys() <= row.keys() else None


def clear_emotion(votes: Mapping[str, int], share: float = CLEAR_MAJORITY) -> str | None:
    """The emotion that at least `share` (above one half) of all votes chose, or None."""
    total = sum(votes[name] for name in VOTES)
    return next((emotion for name, emotion in VOTES.items() if emotion and votes[name] >= share * total > 0), None)


def labels_of(row: Mapping[str, Any]) -> dict[str, int]:
    """
    All that is known of a face; what a row has as null is not.

    Raises:
        ValueError: an emotion that is none of the seven, or a negative age.
    """
    names = [name for name in row if (name in PHRASES or name == SUNGLASSES) and row[name] is not None]
    labels = {name: int(row[name]) for name in names}
    if row.get("age") is not None:
        labels = {**age_mentions(int(row["age"])), **labels}
    if row.get("gender") in GENDERS:
        labels.setdefault("Male", GENDERS[row["gender"]])
    emotion = emotion_of(row)
    if emotion is not None:
        labels |= emotion_labels(emotion)
    if row.get("lens_brightness") is not None and SUNGLASSES not in labels:
        labels = glasses_labels(labels, row["lens_brightness"])
    if row.get("grey") is not None:
        labels[GRAYSCALE] = int(row["grey"])
    return labels
