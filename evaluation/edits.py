"""The edits that `gptface evaluate editing` knows by name: what is asked for, and what comes along with it."""

from dataclasses import dataclass

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


EDITS: dict[str, Edit] = {
    "smiling": Edit("smiling", "Smiling", 1, _SMILE),
    "not_smiling": Edit("not smiling", "Smiling", 0, _SMILE),
    "mouth_open": Edit("mouth slightly open", "Mouth_Slightly_Open", 1, ("Smiling",)),
    "mouth_closed": Edit("mouth closed", "Mouth_Slightly_Open", 0, ("Smiling",)),
    "eyeglasses": Edit("eyeglasses", "Eyeglasses", 1, ("Bags_Under_Eyes", "Narrow_Eyes")),
    "no_eyeglasses": Edit("no eyeglasses", "Eyeglasses", 0, ("Bags_Under_Eyes", "Narrow_Eyes")),
    **{
        name.lower(): Edit(name.replace("_", " ").lower(), name, 1, tuple(c for c in _HAIR_COLOURS if c != name))
        for name in _HAIR_COLOURS
    },
    "bangs": Edit("bangs", "Bangs", 1, ("Receding_Hairline",)),
    "no_bangs": Edit("no bangs", "Bangs", 0, ("Receding_Hairline",)),
    "beard": Edit("a beard", "No_Beard", 0, _FACIAL_HAIR),
    "no_beard": Edit("no beard", "No_Beard", 1, _FACIAL_HAIR),
    "makeup": Edit("heavy makeup", "Heavy_Makeup", 1, _MAKEUP),
    "no_makeup": Edit("no makeup", "Heavy_Makeup", 0, _MAKEUP),
    "hat": Edit("a hat", "Wearing_Hat", 1, _UNDER_A_HAT),
    "no_hat": Edit("no hat", "Wearing_Hat", 0, _UNDER_A_HAT),
    "young": Edit("young", "Young", 1, _AGE),
    "old": Edit("old", "Young", 0, _AGE),
}
