"""The edits that `gptface evaluate editing` knows by name: what is asked for, and what comes along with it."""

from dataclasses import dataclass

from gptface.processing.edits import EDITS as TABLE


@dataclass(frozen=True)
class Edit:
    """
    Args:
        prompt: what the pipeline is told.
        label: the attribute that the judge looks at.
        wanted: its value after the edit; faces that have the other one are edited.
        entailed: attributes that change along with it by their meaning: no side effects.
    """

    prompt: str
    label: str
    wanted: int
    entailed: tuple[str, ...] = ()


# Of several rows that one label tells of ("no eyeglasses", "no sunglasses") the first.
_ROWS = {
    row.target: row
    for row in reversed(list(TABLE.values()))
    if row.entailed and row.target is not None and row.target.head == "attributes"
}
EDITS: dict[str, Edit] = {
    row.name: Edit(row.phrase, target.label, target.value, row.entailed) for target, row in _ROWS.items()
}
