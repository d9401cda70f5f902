"""What a prompt leaves unsaid, and an edit turns out better for saying."""

import re

from .regions import plain_words

MOUTH_OPEN = "mouth slightly open"
_OPENS_THE_MOUTH = re.compile(
    r"\b(?:smil(?:es?|ing|ey)|grin(?:s|ning)?|laugh(?:s|ing|ter)?|happy|happily|happiness|cheerful|joy|joyful|"
    r"surprised?|astonished|amazed|shocked)\b(?! lines?\b)"
)
_TELLS_OF_THE_MOUTH = re.compile(r"\b(?:mouth(?:ed)?|lips?|\w*lipped|teeth|tooth\w*|tongue|closed|braces)\b")
# Anywhere beside it: an expansion that is missing costs less than one that says the opposite of what was meant.
_DENIES = re.compile(
    r"\b(?:no|non|not|never|without|neither|nor|cannot|can t|cant|\w+n t|dont|doesnt|isnt|arent|stop\w*|less|hardly|"
    r"barely|rarely|remove\w*|wipe\w*|los(?:e|es|ing)|lacking|instead|rather)\b"
)


def tells_of_the_mouth(text: str | None) -> bool:
    """Whether a text, where there is one, speaks of mouth, lips or teeth."""
    return bool(text) and _TELLS_OF_THE_MOUTH.search(plain_words(str(text))) is not None


def expand_prompt(prompt: str) -> str:
    """
    Adds "mouth slightly open" to a prompt that asks for a smile, a laugh or surprise and says nothing of the mouth.

    Captions call faces with closed lips "smiling" too, so that the bare word leaves open what is to become of the
    mouth; the model then draws a bit of each (figures: lab/NOTES.md). A clause that denies anything ("not smiling",
    "happy instead of sad") stays as it is.
    """
    clauses = [plain_words(clause) for clause in re.split("[,;.!?]", prompt)]
    if tells_of_the_mouth(prompt):
        return prompt
    wanted = any(_OPENS_THE_MOUTH.search(clause) and not _DENIES.search(clause) for clause in clauses)
    return f"{prompt.rstrip(' .,;!')}, {MOUTH_OPEN}" if wanted else prompt
