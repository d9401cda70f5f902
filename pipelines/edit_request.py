"""What one pass of the editing pipeline is asked for, and whether a face has it."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from gptface.processing.edits import Edit
from gptface.processing.part_colour import PartColour
from gptface.processing.prompt_reading import EditIntent, read_prompt
from gptface.processing.regions import regions_from_prompt, speaks_of_expressions_alone

from .edit_verification import HeadScores, probability

#: Probability from which on a face has what is asked for, so that nothing is painted: what is in doubt is painted. Of
#: 240 CelebA validation faces it keeps 2 % of those without a smile from getting one, and finds 95 % of those without
#: glasses.
SETTLED = 0.97
#: Of other kinds there is always more to have: make-up, age, waves.
MAY_BE_SETTLED = frozenset(("add", "remove", "expression", "colour"))


@dataclass(frozen=True)
class EditRequest:
    """
    Args:
        text: the whole prompt as the user wrote it.
        told: what the model is told.
        regions: names of the regions that may change.
        expression: whether only what a face does changes, so that skin keeps its tone.
        intents: the edits, one by one; none of words that were passed on as they are.
        defaults: parameters of the call that suit the edit, see [`Edit`].
    """

    text: str
    told: str
    regions: tuple[str, ...]
    expression: bool
    intents: tuple[EditIntent, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def edits(self) -> tuple[Edit, ...]:
        """Their rows of the table."""
        return tuple(intent.edit for intent in self.intents)

    @property
    def part_colours(self) -> tuple[PartColour, ...]:
        """The parts that take another colour, where nothing else is asked for."""
        found = tuple(edit.part_colour for edit in self.edits)
        return tuple(each for each in found if each is not None) if None not in found else ()

    def is_settled(self, scores: HeadScores) -> bool:
        """Whether all faces have all that is asked for, and more of it was not asked for."""
        return bool(self.intents) and all(
            intent.edit.kind in MAY_BE_SETTLED
            and not intent.comparative
            and intent.detail is None
            and (found := probability(scores, intent.edit.target)) is not None
            and found.min() >= SETTLED
            for intent in self.intents
        )


def read_requests(prompt: Any, strict: bool = True, at_once: bool = False) -> list[EditRequest]:
    """
    A prompt → the passes of the pipeline that it asks for, one an edit; warns of what was ignored or corrected, and of
    edits that seldom work.

    Args:
        strict: whether words must be those of an edit of the table; else they are passed on to the model as they are,
            with a warning where the table has not all of them, and change the regions that they name, or the face.
        at_once: one pass for all edits, for an area that the user chose.

    Raises:
        UnknownEditError: `strict`, and no edit is known by these words.
        ValueError: no text, or edits that contradict each other.
    """
    if not strict:
        return [_words_as_they_are(prompt)]
    reading = read_prompt(prompt)
    if reading.remark is not None:
        warnings.warn(f"prompt: {reading.remark}", stacklevel=2)
    doubtful = [f'"{intent.edit.phrase}"' for intent in reading.intents if intent.edit.quality == "experimental"]
    if doubtful:
        named = " and ".join(doubtful)
        warnings.warn(f"prompt: {named} may come out badly, it is experimental (gptface edits)", stacklevel=2)
    groups = [reading.intents] if at_once else [(intent,) for intent in reading.intents]
    return [_request(prompt, group) for group in groups]


def _request(text: str, intents: tuple[EditIntent, ...]) -> EditRequest:
    return EditRequest(
        text,
        told=", ".join(intent.phrase for intent in intents),
        regions=tuple(dict.fromkeys(region for intent in intents for region in intent.regions)),
        expression=all(intent.edit.kind == "expression" for intent in intents),
        intents=intents,
        defaults=intents[0].edit.defaults if len(intents) == 1 else MappingProxyType({}),
    )


def _words_as_they_are(prompt: Any) -> EditRequest:
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError(f'prompt must say what the face should be, for example "smiling"; got {prompt!r}')
    try:
        remark = read_prompt(prompt).remark
    except ValueError as error:
        remark = str(error)
    if remark is not None:
        warnings.warn(
            "these words were passed on to the model as they are; the list of edits has other ones", stacklevel=3
        )
    return EditRequest(
        prompt,
        told=prompt,
        regions=tuple(regions_from_prompt(prompt)) or ("face",),
        expression=speaks_of_expressions_alone(prompt),
    )
