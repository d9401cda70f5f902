"""What one pass of the editing pipeline is asked for, and whether a face has it."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch

from gptface.modeling_gptface.task_model import GPTFaceTaskModel
from gptface.processing.edits import Target
from gptface.processing.part_colour import PartColour
from gptface.processing.prompt_reading import EditIntent, read_prompt
from gptface.processing.regions import regions_from_prompt, speaks_of_expressions_alone

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
    def targets(self) -> dict[str, Target]:
        """Of each edit that a head can verify, by its name."""
        found = {intent.edit.name: intent.edit.target for intent in self.intents}
        return {name: target for name, target in found.items() if target is not None}

    @property
    def part_colours(self) -> tuple[PartColour, ...]:
        """The parts that take another colour, where nothing else is asked for."""
        found = tuple(intent.edit.part_colour for intent in self.intents)
        return tuple(each for each in found if each is not None) if None not in found else ()

    def is_settled(self, probabilities: Mapping[str, Sequence[float]]) -> bool:
        """Whether all faces have all that is asked for, and more of it was not asked for."""
        return bool(self.intents) and all(
            intent.edit.kind in MAY_BE_SETTLED
            and not intent.comparative
            and intent.detail is None
            and min(probabilities.get(intent.edit.name, [0.0])) >= SETTLED
            for intent in self.intents
        )


def read_requests(prompt: Any, strict: bool = True, at_once: bool = False) -> list[EditRequest]:
    """
    A prompt → the passes of the pipeline that it asks for, one an edit; warns of what was ignored or corrected.

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


@torch.no_grad()
def probabilities(
    model: GPTFaceTaskModel, pixels: torch.Tensor, targets: Mapping[str, Target]
) -> dict[str, list[float]]:
    """
    How probable the model's own heads find that faces have what edits ask for.

    Args:
        pixels: aligned faces [B, 3, S, S] in [-1, 1].
        targets: by name; those of which no trained head knows are left out.

    Returns:
        name → probability in [0, 1] for each face.
    """
    found: dict[str, list[float]] = {}
    scores: dict[str, torch.Tensor] = {}
    for name, target in targets.items():
        head = model.config.heads.get(target.head)
        if not head or not head.get("trained") or target.label not in head["labels"]:
            continue
        if target.head not in scores:
            logits = model.classify(target.head, model.read_for(target.head, pixels)).float()
            logits = logits / head.get("temperature", 1.0)
            multi_label = head["problem_type"] == "multi_label_classification"
            scores[target.head] = logits.sigmoid() if multi_label else logits.softmax(-1)
        column = scores[target.head][:, head["labels"].index(target.label)]
        found[name] = (column if target.value else 1 - column).tolist()
    return found


def changes_in_words(verified: Mapping[str, Mapping[str, float]]) -> list[str]:
    """What the heads say of edits, such as `"smiling 3% → 91%"`: of `verified` in a result of the pipeline."""
    return [f"{name.replace('_', ' ')} {each['before']:.0%} → {each['after']:.0%}" for name, each in verified.items()]
