"""What captions say: the phrases of every face attribute and expression, without any grammar.

Attributes are named as in CelebA (Liu et al., 2015). "Attractive" and "Blurry" have no phrases, for the first is a
judgement and the second a property of the file; words of race or skin origin do not occur. A phrase belongs to exactly
one attribute and value, so that a caption can be parsed back into what it states.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class PhraseSet:
    """The ways to say one value of one attribute, sorted by their place in a sentence.

    Attributes:
        canonical: the one committed phrase that stands alone, used by evaluation protocols.
        weight: how readily a caption mentions this value when it is true; only ratios matter.
        nouns: subject nouns ("man").
        before: adjectives; fit "a {} person" and "she is {}".
        with_: complements; fit "with {}" and "she has {}".
        wear: things worn; fit "with {}", "wearing {}" and "she wears {}".
        doing: participles; fit "a person {}" and "she is {}".
        without: things that are absent; fit "without {}".
        own: clauses about a part of the face; fit "her {}".
        alone: phrases used only by themselves or in a list.
    """

    canonical: str
    weight: float = 1.0
    nouns: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    with_: tuple[str, ...] = ()
    wear: tuple[str, ...] = ()
    doing: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()

    @cached_property
    def listed(self) -> tuple[str, ...]:
        """Phrases for a caption that is a mere list; the canonical one is the most frequent."""
        things = self.with_ + self.wear
        phrases = (
            *self.nouns,
            *self.before,
            *(_without_article(thing) for thing in things),
            *(thing for thing in things if not thing.startswith("the ")),
            *(f"wearing {thing}" for thing in self.wear),
            *self.doing,
            *(f"without {thing}" for thing in self.without),
            *self.alone,
        )
        unique = tuple(dict.fromkeys(phrases))
        return (self.canonical,) * max(2, len(unique) // 4) + unique

    @cached_property
    def after_noun(self) -> tuple[tuple[str, str], ...]:
        """(slot, phrase) pairs that can follow a noun."""
        return self._slots("with_", "wear", "doing", "without")

    @cached_property
    def around_noun(self) -> tuple[tuple[str, str], ...]:
        """(slot, phrase) pairs that can stand before or after a noun."""
        return self._slots("before", "with_", "wear", "doing", "without")

    @cached_property
    def predicates(self) -> tuple[tuple[str, str], ...]:
        """(slot, phrase) pairs that can form a clause with a verb."""
        return self._slots("before", "with_", "wear", "doing", "own")

    def _slots(self, *slots: str) -> tuple[tuple[str, str], ...]:
        return tuple((slot, phrase) for slot in slots for phrase in getattr(self, slot))


def _without_article(phrase: str) -> str:
    return phrase.removeprefix("the ").removeprefix("an ").removeprefix("a ")


def _split(phrases: str) -> tuple[str, ...]:
    return tuple(phrases.split(", ")) if phrases else ()


def _say(canonical: str, weight: float = 1.0, **slots: str) -> PhraseSet:
    """A `PhraseSet` from comma-separated phrases."""
    return PhraseSet(canonical, weight, **{slot: _split(phrases) for slot, phrases in slots.items()})


HAIR_COLOURS = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair")

# Weights: what shows clearly and what people edit comes first; a rare positive is worth saying whenever it is there;
# the absence of something is said less often than its presence, for few people would remark on it.
PHRASES: dict[str, dict[int, PhraseSet]] = {
    "5_o_Clock_Shadow": {
        1: _say(
            "stubble",
            3,
            before="unshaven, stubbly",
            with_="stubble, a stubbly chin, a five o'clock shadow, light stubble, designer stubble",
        ),
        0: _say("no stubble", 0.2, with_="no stubble", without="stubble"),
    },
    "Arched_Eyebrows": {
        1: _say("arched eyebrows", with_="arched eyebrows, arched brows, curved eyebrows", own="eyebrows are arched"),
    },
    "Bags_Under_Eyes": {
        1: _say("bags under the eyes", with_="bags under the eyes, eye bags, puffy eyes, tired eyes"),
        0: _say("no bags under the eyes", 0.1, with_="no bags under the eyes, no eye bags", without="eye bags"),
    },
    "Bald": {
        1: _say("bald", 6, before="bald, bald-headed, hairless", with_="a bald head, no hair", own="head is bald"),
        0: _say("not bald", 0.3, doing="not bald", with_="hair on the head"),
    },
    "Bangs": {
        1: _say("bangs", 4, with_="bangs, a fringe, hair over the forehead", own="hair falls over the forehead"),
        0: _say("no bangs", 0.6, with_="no bangs, no fringe, a bare forehead", without="bangs, a fringe"),
    },
    "Big_Lips": {1: _say("full lips", with_="full lips, big lips, thick lips, plump lips", own="lips are full")},
    "Big_Nose": {1: _say("a big nose", with_="a big nose, a large nose, a broad nose", own="nose is big")},
    "Black_Hair": {
        1: _say(
            "black hair", 3, before="black-haired, dark-haired", with_="black hair, dark hair", own="hair is black"
        ),
    },
    "Blond_Hair": {
        1: _say(
            "blond hair",
            4,
            before="blond, blonde, blond-haired, fair-haired",
            with_="blond hair, blonde hair, golden hair, fair hair, light blond hair",
            own="hair is blond, hair is blonde",
        ),
    },
    "Brown_Hair": {
        1: _say(
            "brown hair",
            3,
            before="brown-haired, brunette",
            with_="brown hair, chestnut hair, brunette hair",
            own="hair is brown",
        ),
    },
    "Bushy_Eyebrows": {
        1: _say(
            "bushy eyebrows",
            with_="bushy eyebrows, thick eyebrows, heavy brows, bushy brows",
            own="eyebrows are bushy",
        ),
    },
    "Chubby": {
        1: _say(
            "chubby", 1.5, before="chubby, plump, round-faced", with_="a chubby face, a round face, chubby cheeks"
        ),
        0: _say("not chubby", 0.1, doing="not chubby"),
    },
    "Double_Chin": {
        1: _say("a double chin", 1.5, with_="a double chin"),
        0: _say("no double chin", 0.1, with_="no double chin", without="a double chin"),
    },
    "Eyeglasses": {
        1: _say(
            "eyeglasses",
            12,
            before="bespectacled",
            wear="eyeglasses, glasses, spectacles, a pair of glasses",
        ),
        0: _say(
            "no eyeglasses",
            1.2,
            wear="no glasses, no eyeglasses, no spectacles",
            doing="not wearing glasses",
            without="glasses, eyeglasses, spectacles",
        ),
    },
    "Goatee": {
        1: _say("a goatee", 4, before="goateed", with_="a goatee, a goatee beard, a chin beard"),
        0: _say("no goatee", 0.3, with_="no goatee", without="a goatee"),
    },
    "Gray_Hair": {
        1: _say(
            "gray hair",
            6,
            before="gray-haired, grey-haired, white-haired",
            with_="gray hair, grey hair, white hair, silver hair, graying hair",
            own="hair is gray, hair is grey",
        ),
    },
    "Heavy_Makeup": {
        1: _say(
            "heavy makeup",
            2.5,
            wear="makeup, make-up, heavy makeup, heavy make-up, a lot of makeup",
        ),
        0: _say(
            "no makeup",
            0.7,
            wear="no makeup, no make-up",
            doing="not wearing makeup",
            without="makeup, make-up",
        ),
    },
    "High_Cheekbones": {
        1: _say("high cheekbones", with_="high cheekbones, prominent cheekbones", own="cheekbones are high")
    },
    "Male": {
        1: _say("man", 4, nouns="man, man, guy, gentleman, male", before="male"),
        0: _say("woman", 4, nouns="woman, woman, lady, female", before="female"),
    },
    "Mouth_Slightly_Open": {
        1: _say(
            "mouth slightly open",
            2.5,
            before="open-mouthed",
            with_="the mouth slightly open, an open mouth, parted lips, visible teeth",
            own="mouth is slightly open, mouth is open, lips are parted",
            alone="mouth slightly open, mouth open, lips parted",
        ),
        0: _say(
            "mouth closed",
            1.5,
            with_="the mouth closed, a closed mouth, closed lips",
            own="mouth is closed, lips are closed",
            alone="mouth closed, lips closed, mouth shut",
        ),
    },
    "Mustache": {
        1: _say("a mustache", 5, before="mustached, moustached", with_="a mustache, a moustache"),
        0: _say("no mustache", 0.4, with_="no mustache, no moustache", without="a mustache, a moustache"),
    },
    "Narrow_Eyes": {1: _say("narrow eyes", with_="narrow eyes, squinting eyes", own="eyes are narrow")},
    "No_Beard": {
        1: _say(
            "no beard",
            2,
            before="clean-shaven, beardless",
            with_="no beard, a shaven face, no facial hair",
            without="a beard, facial hair",
            own="face is clean-shaven",
        ),
        0: _say("a beard", 5, before="bearded", with_="a beard, facial hair, a full beard", alone="has a beard"),
    },
    "Oval_Face": {1: _say("an oval face", 0.8, with_="an oval face", own="face is oval")},
    "Pale_Skin": {1: _say("pale skin", 1.5, before="pale", with_="pale skin, a pale face", own="skin is pale")},
    "Pointy_Nose": {1: _say("a pointy nose", 0.8, with_="a pointy nose, a pointed nose", own="nose is pointy")},
    "Receding_Hairline": {
        1: _say("a receding hairline", 1.5, before="balding", with_="a receding hairline, thinning hair"),
    },
    "Rosy_Cheeks": {
        1: _say(
            "rosy cheeks",
            1.5,
            before="rosy-cheeked",
            with_="rosy cheeks, pink cheeks, red cheeks",
            own="cheeks are rosy",
        )
    },
    "Sideburns": {
        1: _say("sideburns", 2, with_="sideburns, long sideburns"),
        0: _say("no sideburns", 0.1, with_="no sideburns", without="sideburns"),
    },
    "Smiling": {
        1: _say(
            "smiling",
            5,
            before="smiling, happy, laughing, grinning, cheerful",
            with_="a smile, a big smile, a happy face, a broad smile, a grin, a happy smile",
            doing="smiling, laughing, grinning, smiling happily",
            alone="smile, big smile",
        ),
        0: _say(
            "not smiling",
            3.5,
            before="serious, unsmiling, serious-looking",
            with_="a serious face, a neutral expression, a serious expression, a straight face, no smile",
            doing="not smiling, looking serious",
            without="a smile",
        ),
    },
    "Straight_Hair": {1: _say("straight hair", 1.5, before="straight-haired", with_="straight hair, smooth hair")},
    "Wavy_Hair": {
        1: _say("wavy hair", 1.8, before="wavy-haired", with_="wavy hair, curly hair, waves in the hair"),
    },
    "Wearing_Earrings": {
        1: _say("earrings", 2, wear="earrings, an earring"),
        0: _say("no earrings", 0.3, wear="no earrings", without="earrings"),
    },
    "Wearing_Hat": {
        1: _say("a hat", 7, wear="a hat, a cap, headwear"),
        0: _say(
            "no hat",
            0.25,
            before="bare-headed",
            wear="no hat, no cap",
            doing="not wearing a hat",
            without="a hat, a cap",
        ),
    },
    "Wearing_Lipstick": {
        1: _say(
            "lipstick", 2.5, with_="red lips, painted lips", wear="lipstick, red lipstick", own="lips are painted"
        ),
        0: _say("no lipstick", 0.7, wear="no lipstick", doing="not wearing lipstick", without="lipstick"),
    },
    "Wearing_Necklace": {
        1: _say("a necklace", 1.5, wear="a necklace"),
        0: _say("no necklace", 0.1, wear="no necklace", without="a necklace"),
    },
    "Wearing_Necktie": {
        1: _say("a necktie", 2, wear="a necktie, a tie"),
        0: _say("no necktie", 0.2, wear="no tie, no necktie", without="a tie, a necktie"),
    },
    "Young": {
        1: _say("young", 2, before="young, youthful, young-looking", with_="a young face, a youthful face"),
        0: _say(
            "old",
            4,
            before="old, elderly, aged, older",
            with_="an old face, an aged face, an aging face",
            alone="senior, a senior",
        ),
    },
}

# Annotators looked at the expression first, and little else is known of most such faces.
_EMOTION_WEIGHT = 6

# The seven classes of FER2013.
EMOTION_PHRASES: dict[str, PhraseSet] = {
    "angry": _say(
        "angry",
        _EMOTION_WEIGHT,
        before="angry, furious, mad",
        with_="an angry expression, an angry look, an angry face, a look of anger",
        doing="looking angry, frowning in anger",
        alone="anger",
    ),
    "disgust": _say(
        "disgusted",
        _EMOTION_WEIGHT,
        before="disgusted, revolted",
        with_="a disgusted expression, a look of disgust, a disgusted face",
        doing="looking disgusted, grimacing in disgust",
        alone="disgust",
    ),
    "fear": _say(
        "afraid",
        _EMOTION_WEIGHT,
        before="scared, frightened, fearful, terrified",
        with_="a fearful expression, a scared look, a look of fear, a frightened face",
        doing="looking afraid, looking scared",
        alone="fear, afraid",
    ),
    "happy": _say(
        "happy",
        _EMOTION_WEIGHT,
        before="happy, smiling, joyful, laughing, cheerful",
        with_="a happy expression, a smile, a happy face, a big smile",
        doing="smiling, looking happy, laughing, grinning",
        alone="joy, happiness",
    ),
    "sad": _say(
        "sad",
        _EMOTION_WEIGHT,
        before="sad, unhappy, sorrowful, gloomy",
        with_="a sad expression, a sad look, a sad face",
        doing="looking sad, looking unhappy",
        alone="sadness",
    ),
    "surprise": _say(
        "surprised",
        _EMOTION_WEIGHT,
        before="surprised, astonished, amazed, shocked",
        with_="a surprised expression, a look of surprise, a surprised face",
        doing="looking surprised, looking astonished",
        alone="surprise",
    ),
    "neutral": _say(
        "neutral expression",
        _EMOTION_WEIGHT,
        before="calm, expressionless",
        with_="a neutral expression, a neutral face, a blank look, a calm face",
        doing="looking neutral, looking calm",
        alone="neutral",
    ),
}

# Mentions that are no attributes: "emotion:NAME", one of seven; "sunglasses", which hide the eyes that eyeglasses
# leave to be seen; and "grayscale", which says that the photo has no colour and is put into words by the frame ("a
# black and white photo of …").
EMOTION_PREFIX = "emotion:"
SUNGLASSES = "sunglasses"
GRAYSCALE = "grayscale"

_SUNGLASSES_PHRASES = {
    1: _say("sunglasses", 12, wear="sunglasses, dark glasses, shades, a pair of sunglasses, dark sunglasses"),
    0: _say("no sunglasses", 0.1, wear="no sunglasses", without="sunglasses"),
}

# All mentions that are put into words by phrases.
SAYABLE: dict[str, dict[int, PhraseSet]] = {
    **PHRASES,
    SUNGLASSES: _SUNGLASSES_PHRASES,
    **{EMOTION_PREFIX + emotion: {1: phrases} for emotion, phrases in EMOTION_PHRASES.items()},
}
