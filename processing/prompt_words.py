"""What the words of any prompt or caption say: the regions that they speak of, and whether they do of the mouth."""

import re

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
    parts = [plain_words(part) for part in re.split("[,;.!?]", prompt)]
    if tells_of_the_mouth(prompt):
        return prompt
    wanted = any(_OPENS_THE_MOUTH.search(part) and not _DENIES.search(part) for part in parts)
    return f"{prompt.rstrip(' .,;!')}, {MOUTH_OPEN}" if wanted else prompt


# What a prompt may say, and the regions that this speaks of. An expression of the whole face names the parts that
# move, but for the eyes: redrawn with 8×8 pixels a cell they look damaged, and a gaze is much of who a person is.
_EXPRESSIONS: list[tuple[tuple[str, ...], str]] = [
    (("mouth", "chin"), "open mouth, mouth open, mouth slightly open, yawn, yawning, shouting, screaming"),
    (
        ("smile",),
        "smile, smiles, smiled, smiling, smiley, grin, grins, grinning, laugh, laughs, laughing, laughter, "
        "happy, happily, happiness, cheerful, joy, joyful, dimples",
    ),
    (
        ("mouth", "cheeks"),
        "not smiling, no smile, without a smile, unsmiling, frown, frowning, neutral, serious, calm, expressionless, bored",
    ),
    (
        ("mouth", "cheeks", "brows"),
        "sad, sadness, unhappy, crying, angry, anger, annoyed, furious, mad, upset, stern",
    ),
    (
        ("mouth", "chin", "brows"),
        "surprise, surprised, astonished, amazed, shocked, fear, fearful, afraid, scared, worried",
    ),
    (("mouth", "nose", "brows"), "disgust, disgusted, contempt"),
]
_PHRASES: list[tuple[tuple[str, ...], str]] = [
    *_EXPRESSIONS,
    (("mouth",), "mouth, lip, lips, tooth, teeth, tongue, lipstick, pout, pouting"),
    (
        ("eyes",),
        "eye, eyes, eyed, eyelid, eyelids, eyelashes, eye shadow, eyeshadow, eyeliner, mascara, gaze, blink, blinking, "
        "wink, winking",
    ),
    (("brows",), "brow, brows, eyebrow, eyebrows"),
    (("nose",), "nose, nostrils"),
    (("cheeks",), "cheek, cheeks, cheekbones, blush, blushing"),
    (("cheeks", "chin"), "chubby"),
    (("chin",), "chin, double chin, jaw, jawline"),
    (
        ("beard",),
        "beard, beards, bearded, beardless, goatee, moustache, moustached, mustache, mustached, stubble, stubbly, "
        "shaved, shaven, unshaven, clean shaven, whiskers, facial hair, 5 o clock shadow, five o clock shadow",
    ),
    (("beard", "ears"), "sideburn, sideburns"),
    (("clear_glasses",), "glasses, eyeglasses, eye glasses, spectacles, bespectacled, eyewear"),
    (("glasses",), "sunglasses, sun glasses, dark glasses, goggles"),
    (
        ("hair",),
        "hair, hairs, haired, hairstyle, haircut, blond, blonde, brunette, redhead, redheaded, ponytail, curls, curly, "
        "braids, dreadlocks, afro",
    ),
    (("hair", "forehead"), "bald, balding, baldness, hairline, shaved head"),
    (("bangs",), "bangs, fringe"),
    (("hat",), "hat, hats, cap, beanie, helmet, hood, turban, headscarf, beret, crown, tiara, headband"),
    (("forehead",), "forehead"),
    (("ears",), "ear, ears, earring, earrings"),
    (("lower_face",), "mask, masked, face mask, facemask"),
    (
        ("face",),
        "makeup, make up, freckles, freckled, tan, tanned, pale, skin, skinned, complexion, wrinkle, wrinkles, wrinkled, "
        "young, younger, youthful, old, older, elderly, age, aged, aging, ageing, middle aged, oval face, round face",
    ),
]
_REGIONS_OF = {phrase: regions for regions, phrases in _PHRASES for phrase in phrases.split(", ")}
_COLOURLESS = "mouth, tooth, teeth, tongue, pout, pouting, blink, blinking, wink, winking"
_EXPRESSION_PHRASES = {
    phrase for phrases in (_COLOURLESS, *(phrases for _, phrases in _EXPRESSIONS)) for phrase in phrases.split(", ")
}
_ANY_PHRASE = re.compile(rf"\b(?:{'|'.join(sorted(_REGIONS_OF, key=len, reverse=True))})\b")


# What is worn is found where it is, and what is to come where it belongs.
_WORN = {"clear_glasses": "worn_glasses", "glasses": "worn_glasses"}
_CLAUSES = re.compile(r"[,;.!?]|\b(?:and|with|but)\b|(?=\bwithout\b)")
_ABSENT = re.compile(r"\b(?:no|not|never|without|isn|aren|doesn|don|removed?|taken? off|takes? off)\b")


def clauses(prompt: str) -> list[str]:
    """The parts of a prompt that a "no" or "without" reaches over, as [`plain_words`]."""
    return [plain_words(clause) for clause in _CLAUSES.split(prompt.lower())]


def plain_words(text: str) -> str:
    """A text in lower case with single spaces between its words, as phrases are looked up in it."""
    return re.sub(r"[\W_]+", " ", text.lower())


def regions_from_prompt(prompt: str) -> list[str]:
    """The regions that an English prompt speaks of.

    Whole words are looked up in a table, the longest phrase first ("facial hair" is a beard, not hair); case,
    punctuation, hyphens and underscores do not matter. That something shall not be there speaks of
    the same region, but of glasses: they are taken off where they are worn ("without glasses").

    Returns:
        Keys of `REGIONS` in the order of their first mention; empty where nothing is recognised.
    """
    text = plain_words(prompt)
    found = []
    for clause in clauses(prompt):
        regions = [region for match in _ANY_PHRASE.findall(clause) for region in _REGIONS_OF[match]]
        found += [_WORN.get(region, region) for region in regions] if _ABSENT.search(clause) else regions
    if "smile" in found and not re.search(r"\b(?:chin|jaw)", text):
        found = [
            region for region in found if region not in ("mouth", "chin")
        ]  # a smile has them, as far as they are shown
    return list(dict.fromkeys(found))


def speaks_of_expressions_alone(prompt: str) -> bool:
    """
    Whether all phrases of the table that a prompt has are of what a face does, and not of what it is or wears
    ("smiling", but not "a beard" or "red lips"). Words beside them that the table has not do not count: "a smiling
    zombie" is an expression, too.
    """
    found = set(_ANY_PHRASE.findall(plain_words(prompt)))
    return bool(found) and found <= _EXPRESSION_PHRASES
