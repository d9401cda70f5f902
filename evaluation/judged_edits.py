"""The edits that `gptface evaluate editing` knows by name: what is asked for, and what comes along with it."""

from dataclasses import dataclass

from gptface.processing.edits import EDITS as TABLE

_SMILE = ("Mouth_Slightly_Open", "High_Cheekbones", "Narrow_Eyes")
_HAIR_COLOURS = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair")
_FACIAL_HAIR = ("5_o_Clock_Shadow", "Goatee", "Mustache", "Sideburns")
_UNDER_A_HAT = (*_HAIR_COLOURS, "Bald", "Bangs", "Receding_Hairline", "Straight_Hair", "Wavy_Hair")
_AGE = ("Attractive", "Bags_Under_Eyes", "Double_Chin", "Gray_Hair", "Receding_Hairline")
_MAKEUP = ("Attractive", "Rosy_Cheeks", "Wearing_Lipstick")


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


# Name in the table of edits → what comes along with it by its meaning.
_ENTAILED: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("smiling", "not_smiling"), _SMILE),
    **dict.fromkeys(("mouth_open", "mouth_closed"), ("Smiling",)),
    **dict.fromkeys(("eyeglasses", "no_eyeglasses"), ("Bags_Under_Eyes", "Narrow_Eyes")),
    **{name.lower(): tuple(other for other in _HAIR_COLOURS if other != name) for name in _HAIR_COLOURS},
    **dict.fromkeys(("bangs", "no_bangs"), ("Receding_Hairline",)),
    **dict.fromkeys(("beard", "no_beard"), _FACIAL_HAIR),
    **dict.fromkeys(("makeup", "no_makeup"), _MAKEUP),
    **dict.fromkeys(("hat", "no_hat"), _UNDER_A_HAT),
    **dict.fromkeys(("young", "old"), _AGE),
}


def _judged(name: str, entailed: tuple[str, ...]) -> Edit:
    row = TABLE[name]
    assert row.target is not None
    return Edit(row.phrase, row.target.label, row.target.value, entailed)


#: Parameters of an arm; where it says nothing the pipeline's defaults hold.
ARMS: dict[str, dict[str, float]] = {
    "none": {"guidance_scale": 1.0, "itm_guidance": 0.0},
    "cfg": {"itm_guidance": 0.0},
    "itm": {"guidance_scale": 1.0},
    "both": {},
}
EDITS: dict[str, Edit] = {name: _judged(name, entailed) for name, entailed in _ENTAILED.items()}
