"""What a prompt leaves unsaid, and an edit turns out better for saying."""

import re

MOUTH_OPEN = "mouth slightly open"
_OPENS_THE_MOUTH = re.compile(
    r"\b(?:smil(?:es?|ing|ey)|grin(?:s|ning)?|laugh(?:s|ing|ter)?|happy|happily|happiness|cheerful|joy|joyful|"
    r"surprised?|astonished|amazed|shocked)\b"
)
_TELLS_OF_THE_MOUTH = re.compile(r"\b(?:mouth(?:ed)?|lips?|teeth|tooth|toothy)\b")
_DENIED = re.compile(
    r"(?:\b(?:no|not|never|without|nor|stop|less|hardly|barely)|n['’]t)(?: (?!but\b|and\b)[\w-]+){0,2} $"
)


def expand_prompt(prompt: str) -> str:
    """
    Adds "mouth slightly open" to a prompt that asks for a smile, a laugh or surprise and says nothing of the mouth.

    Captions call faces with closed lips "smiling" too, so that the bare word leaves open what is to become of the mouth; the model
    then draws a bit of each (figures: benchmarks/NOTES.md). A smile that is denied ("not smiling", "without a smile") stays as it is.
    """
    text = prompt.lower()
    if _TELLS_OF_THE_MOUTH.search(text):
        return prompt
    wanted = any(not _DENIED.search(text[: match.start()]) for match in _OPENS_THE_MOUTH.finditer(text))
    return f"{prompt.rstrip(' .,;!')}, {MOUTH_OPEN}" if wanted else prompt
