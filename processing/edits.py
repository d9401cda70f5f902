"""The table of edits: what may be asked of a face, in which words, where it changes, and how well it works.

A row is an [`Edit`]. Prompts are read by it, the model is told its phrase, the pipeline takes its defaults, and the
lists of edits in docs/edits.md and on the command line are printed from it. To add an edit, add a row.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Literal

from .ageing import OLDER, YOUNGER
from .blending import Transfer
from .expressions import (
    AFRAID,
    ANGRY,
    ARCHED_BROWS,
    BUSHY_BROWS,
    DISGUSTED,
    MOUTH_CLOSED,
    MOUTH_OPEN,
    NEUTRAL,
    SAD,
    SERIOUS,
    SMILING,
    SURPRISED,
)
from .eyewear import CLEAR_GLASSES, SUNGLASSES
from .eyewear_removal import NO_GLASSES
from .face_parsing import FaceParsing
from .headwear import KNITTED_HAT, KNITTED_HATS
from .jewellery import EARRINGS
from .part_colour import Colour, PartColour
from .signs import BEARD, CHIN_HAIR, EARRING, FACE_MASK, GLASSES, HAT, MUSTACHE_HAIR, Sign
from .strands import FRINGE, FULL_BEARD, GOATEE, MUSTACHE, STUBBLE
from .warping import whole_mouth

Kind = Literal["add", "remove", "colour", "shape", "expression", "age", "make-up", "fill"]
Quality = Literal["good", "fair", "experimental"]
#: Where the repository shows edits, `lab/edit_pictures.py` makes them.
PICTURES = "examples/edits"


@dataclass(frozen=True)
class Target:
    """What of a face an edit changes, as a classification head names it.

    Args:
        head: `"attributes"` (independent labels) or `"expression"` (one of its labels holds).
        label: of the head's labels.
        value: 1 where the label shall hold after the edit, 0 where it shall not.
    """

    head: Literal["attributes", "expression"]
    label: str
    value: int = 1


@dataclass(frozen=True)
class Need:
    """What a face must show for an edit; where it does not, nothing else is of use, and nothing is done.

    Args:
        words: what that is, as a note tells it.
        met: whether a face shows it.
    """

    words: str
    met: Callable[[FaceParsing], bool]


@dataclass(frozen=True)
class Edit:
    """One edit.

    Args:
        name: its key in [`EDITS`].
        phrase: what the model is told, as training captions say it.
        kind: `"add"` and `"remove"` of things, `"colour"` of hair, `"shape"` of hair, brows and skin, `"expression"`,
            `"age"`, `"make-up"`, or `"fill"`: nothing new, only whole again.
        regions: keys of `regions.REGIONS` that are redrawn.
        sentence: what a user may expect of it.
        target: what a head can verify of it; None where no head knows it.
        opposite: name of the edit that "no …" or "remove …" of this one means; None where nothing is said by that.
        group: edits of one group exclude each other; empty where there is none but the opposite.
        transfer: how the face changes where nothing is drawn; colours are measured by `lab/measure_part_colours.py`
            on CelebA's training faces. None where the model draws the edit.
        colours: name of a colour that a prompt may ask for → the transfer that takes it; empty where a colour has no
            say.
        needs: what a face must show; None where the model draws faces that the transfer does not fit.
        covering: class of the face parser that hides what the edit is about: where it is seen and the user says
            nothing else, it is the hole that is filled. Empty where nothing is to be taken off.
        told: what the model is told, where that is not the phrase.
        sign: what tells whether the thing that it puts on or takes off is there, beside the heads; None where nothing
            does.
        entailed: attributes that may change along with it by its meaning: no side effects.
        quality: the mean mark of portraits by eye, from 0 (broken) to 4 (cannot be told): `"good"` from 2.5 on,
            `"fair"` from 1.8 on, else `"experimental"`, which those are, too, that nobody has marked yet.
        defaults: parameters of the pipeline's call that suit it, where nothing else is asked for: `guidance_scale`,
            `itm_guidance`, `plan_first`, `composite`, `num_inference_steps`, `decoding`, `corrections`; of its own
            regions `strength`.
        synonyms: English ways to say it, beside the phrase.
        translations: language code (de, fr, es, zh) → ways to say it.

    Example:

    ```python
    >>> edit = EDITS["blond_hair"]
    >>> edit.example, edit.kind, edit.regions
    ('make the hair blond', 'colour', ('hair',))

    ```
    """

    name: str
    phrase: str
    kind: Kind
    regions: tuple[str, ...]
    sentence: str
    target: Target | None = None
    opposite: str | None = None
    group: str = ""
    transfer: Transfer | None = None
    colours: Mapping[str, Transfer] = field(default_factory=dict)
    needs: Need | None = None
    sign: Sign | None = None
    covering: str = ""
    told: str = ""
    entailed: tuple[str, ...] = ()
    quality: Quality = "experimental"
    defaults: Mapping[str, Any] = field(default_factory=dict)
    synonyms: tuple[str, ...] = ()
    translations: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def example(self) -> str:
        """A prompt as people type it."""
        if self.kind == "remove":
            return f"remove the {self.phrase.removeprefix('no ')}"
        if self.kind == "colour":
            return f"make the hair {self.phrase.removesuffix(' hair')}"
        if self.phrase.startswith("not "):
            return f"stop {self.phrase.removeprefix('not ')}"
        if self.group == "mouth" or self.kind in ("make-up", "shape"):
            return self.phrase
        starts = {"add": "add", "expression": "make her look", "age": "make him look", "fill": "restore"}
        return f"{starts[self.kind]} {self.phrase.removesuffix(' expression')}"

    def suits(self, parsing: FaceParsing) -> bool:
        """Whether a face shows what it needs."""
        return self.needs is None or self.needs.met(parsing)

    @property
    def picture(self) -> str | None:
        """File of the repository that shows a face before and after it; None of an edit that is not good."""
        return f"{PICTURES}/{self.name}.webp" if self.quality == "good" else None

    @property
    def wordings(self) -> tuple[str, ...]:
        """All ways to say it, the phrase first."""
        return (self.phrase, *self.synonyms, *(each for said in self.translations.values() for each in said))


# The plan of the whole face under little classifier-free guidance: more of it makes faces coarse, and matching does
# the rest.
_BY_PLAN = MappingProxyType({"plan_first": True, "guidance_scale": 1.5, "itm_guidance": 4.0})
# Frames hang together more often where the critic chooses what is drawn again (lab/NOTES.md); mouths gain nothing.
_BY_PLAN_AND_CRITIC = MappingProxyType({**_BY_PLAN, "decoding": "critic", "corrections": 2})
# Of the mouth less is drawn by it: with 1.5 every tenth breaks.
_EXPRESSION = MappingProxyType({"plan_first": True, "guidance_scale": 1.0, "itm_guidance": 4.0})
# A beard drawn by the plan smears over the neck.
_BY_CODES = MappingProxyType({"plan_first": False, "guidance_scale": 2.0, "itm_guidance": 4.0})
# Matching takes a white bar for a hat.
_BY_CODES_FREELY = MappingProxyType({"plan_first": False, "guidance_scale": 1.5, "itm_guidance": 0.0})
# All of a face, redrawn, is another person's.
_IN_PART = MappingProxyType({"strength": 0.3})

# A mouth that is not seen is drawn; one that is cut off or seen from the side looks bad either way.
_WHOLE_MOUTH = Need("whole mouth", whole_mouth)
# Background is drawn over the jaw of a head that looks aside.
_FROM_THE_FRONT = Need("face that faces the camera", attrgetter("frontal"))
# Lips and hair that were drawn there were a print on the mask.
_UNCOVERED = Need("lower face without a mask", lambda parsing: not FACE_MASK.worn(parsing))
# What comes along with an edit by its meaning.
_SMILE = ("Smiling", "Mouth_Slightly_Open", "High_Cheekbones", "Narrow_Eyes")
_EYES = ("Eyeglasses", "Bags_Under_Eyes", "Narrow_Eyes")
_FACIAL_HAIR = ("No_Beard", "5_o_Clock_Shadow", "Goatee", "Mustache", "Sideburns")
_HAIR_COLOURS = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair")
_FRINGE = ("Bangs", "Receding_Hairline")
_UNDER_A_HAT = (*_HAIR_COLOURS, *_FRINGE, "Bald", "Straight_Hair", "Wavy_Hair")
_AGE = ("Attractive", "Bags_Under_Eyes", "Double_Chin", "Gray_Hair", "Receding_Hairline")
_MAKEUP = ("Heavy_Makeup", "Wearing_Lipstick", "Attractive", "Rosy_Cheeks")


def _split(phrases: str) -> tuple[str, ...]:
    return tuple(phrases.split(", ")) if phrases else ()


def _edit(
    name: str,
    phrase: str,
    kind: Kind,
    regions: str,
    target: Target | None,
    opposite: str | None,
    sentence: str,
    *,
    entailed: tuple[str, ...] = (),
    en: str = "",
    de: str = "",
    fr: str = "",
    es: str = "",
    zh: str = "",
    **fields: Any,
) -> Edit:
    """A row from comma-separated words; `fields` are others of [`Edit`]."""
    said = {"de": de, "fr": fr, "es": es, "zh": zh}
    return Edit(
        name,
        phrase,
        kind,
        _split(regions),
        sentence,
        target,
        opposite,
        entailed=tuple(label for label in entailed if target is None or label != target.label),
        synonyms=_split(en),
        translations=MappingProxyType({language: _split(words) for language, words in said.items() if words}),
        **fields,
    )


def _has(label: str, value: int = 1) -> Target:
    return Target("attributes", label, value)


def _shows(label: str) -> Target:
    return Target("expression", label)


def _hair(colours: str, more: str) -> str:
    """The English ways to say a colour of hair: "black hair", "hair black", "black haired", and more."""
    names = _split(colours)
    ways = [way for name in names for way in (f"{name} hair", f"hair {name}", f"{name} haired", f"{name} hairs")]
    return ", ".join([*ways, *_split(more)])


_ROWS = (
    # expressions
    _edit(
        "smiling", "smiling", "expression", "smile", _has("Smiling"), "not_smiling", "A smile that shows the upper teeth: corners of the mouth, cheeks and lower lids rise.",
        group="expression", quality="good", transfer=SMILING, needs=_WHOLE_MOUTH, entailed=_SMILE, defaults=_EXPRESSION,
        en="smile, smiles, smiled, smiley, big smile, broad smile, happy smile, smiling happily, grin, grins, grinning, laugh, laughs, "
        "laughing, laughter, cheerful",
        de="lächeln, lächelnd, lächelt, lächle, lächelnde, lächelnder, lachen, lachend, lacht, grinsen, grinsend",
        fr="sourire, souriant, souriante, sourit, souris, rire, riant, rit",
        es="sonrisa, sonriendo, sonríe, sonreír, sonriente, riendo, reír, ríe",
        zh="微笑, 笑容, 笑, 大笑, 微笑着",
    ),
    _edit(
        "not_smiling", "not smiling", "expression", "resting_mouth", _has("Smiling", 0), "smiling",
        "A serious face with the mouth at rest.",
        group="expression", quality="good", transfer=SERIOUS, needs=_WHOLE_MOUTH, entailed=_SMILE, defaults=_EXPRESSION,
        en="serious, unsmiling, serious looking, serious face, serious expression, straight face, stern",
        de="ernst, ernste, ernster, ernsthaft", fr="sérieux, sérieuse", es="serio, seria", zh="严肃, 严肃的",
    ),
    _edit(
        "neutral", "neutral expression", "expression", "resting_mouth", _shows("neutral"), None, "A calm face without any expression.",
        group="expression", entailed=_SMILE, defaults=_EXPRESSION, quality="good", transfer=NEUTRAL, needs=_WHOLE_MOUTH,
        en="neutral, expressionless, calm, calm face, neutral face, blank look, blank expression, looking neutral, bored",
        de="neutral, neutraler, neutrale, ausdruckslos, ruhig", fr="neutre, inexpressif, inexpressive, calme",
        es="inexpresivo, inexpresiva, tranquilo, tranquila", zh="面无表情, 平静, 中性表情",
    ),
    _edit(
        "happy", "happy", "expression", "smile", _shows("happy"), "not_smiling", "A happy face: a smile that shows the upper teeth.",
        group="expression", quality="good", transfer=SMILING, needs=_WHOLE_MOUTH, entailed=_SMILE, defaults=_EXPRESSION,
        en="happier, happily, happiness, joy, joyful, joyous, glad, delighted, in a good mood",
        de="glücklich, fröhlich, froh, glücklicher, fröhlicher", fr="heureux, heureuse, joyeux, joyeuse, content, contente",
        es="feliz, alegre, contento, contenta", zh="开心, 高兴, 快乐",
    ),
    _edit(
        "sad", "sad", "expression", "mouth, cheeks, brows", _shows("sad"), "neutral", "A sad face: brows that rise in the middle, corners of the mouth that sink.",
        group="expression", entailed=_SMILE, defaults=_EXPRESSION, quality="good", transfer=SAD, needs=_WHOLE_MOUTH,
        en="sadness, sadder, unhappy, sorrowful, gloomy, crying, cries, cry, upset, depressed",
        de="traurig, trauriger, unglücklich, weinen, weinend", fr="triste, malheureux, malheureuse, pleurer",
        es="infeliz, llorando", zh="悲伤, 难过, 伤心",
    ),
    _edit(
        "angry", "angry", "expression", "mouth, cheeks, brows", _shows("angry"), "neutral", "An angry face: brows that sink and meet, lips that are pressed together.",
        group="expression", entailed=_SMILE, defaults=_EXPRESSION, quality="good", transfer=ANGRY, needs=_WHOLE_MOUTH,
        en="anger, angrier, furious, mad, annoyed, frown, frowning, frowns, frowning in anger, rage",
        de="wütend, zornig, böse, verärgert", fr="en colère, fâché, fâchée, furieux, furieuse",
        es="enfadado, enfadada, enojado, enojada, furioso, furiosa", zh="生气, 愤怒",
    ),
    _edit(
        "surprised", "surprised", "expression", "mouth, chin, brows", _shows("surprise"), "neutral", "A surprised face with raised brows and an open mouth.",
        group="expression", quality="good", transfer=SURPRISED, needs=_WHOLE_MOUTH, entailed=_SMILE, defaults=_EXPRESSION,
        en="surprise, astonished, amazed, shocked, looking surprised, startled, stunned",
        de="überrascht, erstaunt, schockiert", fr="surpris, surprise, étonné, étonnée",
        es="sorprendido, sorprendida, asombrado, asombrada", zh="惊讶, 吃惊",
    ),
    _edit(
        "afraid", "afraid", "expression", "mouth, chin, brows", _shows("fear"), "neutral", "A frightened face.",
        group="expression", entailed=_SMILE, defaults=_EXPRESSION, quality="fair", transfer=AFRAID, needs=_WHOLE_MOUTH,
        en="fear, scared, frightened, fearful, terrified, looking afraid, worried, anxious",
        de="ängstlich, verängstigt, erschrocken", fr="effrayé, effrayée, apeuré, apeurée, peur",
        es="asustado, asustada, miedo", zh="害怕, 恐惧",
    ),
    _edit(
        "disgusted", "disgusted", "expression", "mouth, nose, brows", _shows("disgust"), "neutral", "A face that shows disgust.",
        group="expression", entailed=_SMILE, defaults=_EXPRESSION, quality="fair", transfer=DISGUSTED, needs=_WHOLE_MOUTH,
        en="disgust, revolted, grimacing in disgust, looking disgusted, grossed out",
        de="angeekelt, angewidert, ekel", fr="dégoûté, dégoûtée, dégoût", es="asqueado, asqueada, asco", zh="厌恶, 恶心",
    ),
    _edit(
        "mouth_open", "mouth slightly open", "expression", "mouth, chin", _has("Mouth_Slightly_Open"), "mouth_closed",
        "The lips part.",
        group="mouth", entailed=("Smiling",), defaults=_EXPRESSION, quality="good", transfer=MOUTH_OPEN, needs=_WHOLE_MOUTH,
        en="mouth open, open mouth, opens mouth, opening mouth, mouth wide open, wide open mouth, open mouthed, lips parted, parted lips, "
        "visible teeth, show teeth, showing teeth, mouth opened, yawn, yawning",
        de="mund offen, offener mund, offenem mund, mund öffnen, öffne mund, mund auf",
        fr="bouche ouverte, ouvre bouche, ouvrir bouche", es="boca abierta, abre boca, abrir boca", zh="张嘴, 张开嘴, 嘴巴张开",
    ),
    _edit(
        "mouth_closed", "mouth closed", "expression", "mouth", _has("Mouth_Slightly_Open", 0), "mouth_open", "The lips meet.",
        group="mouth", entailed=("Smiling",), defaults=_EXPRESSION, quality="good", transfer=MOUTH_CLOSED, needs=_WHOLE_MOUTH,
        en="closed mouth, close mouth, closes mouth, closing mouth, mouth shut, shut mouth, lips closed, closed lips, close lips",
        de="mund geschlossen, geschlossener mund, geschlossenem mund, mund schließen, schließe mund, mund zu",
        fr="bouche fermée, ferme bouche, fermer bouche", es="boca cerrada, cierra boca, cerrar boca", zh="闭嘴, 闭上嘴, 嘴巴闭合",
    ),
    # things that are worn, and beards
    _edit(
        "eyeglasses", "eyeglasses", "add", "clear_glasses", _has("Eyeglasses"), "no_eyeglasses", "Glasses through which the eyes are seen.",
        sign=GLASSES, group="glasses", quality="good", entailed=_EYES, transfer=CLEAR_GLASSES, needs=Need("eye that faces the camera", CLEAR_GLASSES.fits), defaults=_BY_PLAN_AND_CRITIC,
        en="glasses, eye glasses, clear glasses, clear eyeglasses, spectacles, specs, bespectacled, eyewear, reading glasses",
        de="brille, brillen", fr="lunettes", es="gafas, anteojos, lentes", zh="眼镜",
    ),
    _edit(
        "no_eyeglasses", "no eyeglasses", "remove", "worn_glasses", _has("Eyeglasses", 0), "eyeglasses",
        "Glasses are taken off; the eyes behind clear ones stay, behind dark ones they are made up.",
        sign=GLASSES, group="glasses", quality="good", entailed=_EYES, transfer=NO_GLASSES, defaults=_BY_PLAN,
    ),
    _edit(
        "sunglasses", "sunglasses", "add", "glasses", None, "no_sunglasses", "Dark glasses that hide the eyes; lenses of clear ones that are worn are tinted.",
        sign=GLASSES, group="glasses", entailed=_EYES, quality="good", transfer=SUNGLASSES, needs=Need("eye that faces the camera", SUNGLASSES.fits), defaults=_BY_PLAN,
        en="sun glasses, dark glasses, dark sunglasses, shades, black glasses, goggles",
        de="sonnenbrille", fr="lunettes de soleil", es="gafas de sol, lentes de sol", zh="墨镜, 太阳镜, 太阳眼镜",
    ),
    _edit(
        "no_sunglasses", "no sunglasses", "remove", "worn_glasses", _has("Eyeglasses", 0), "sunglasses",
        "Dark glasses are taken off; the eyes are made up.",
        sign=GLASSES, group="glasses", entailed=_EYES, transfer=NO_GLASSES, defaults=_BY_PLAN,
    ),
    _edit(
        "beard", "a beard", "add", "beard", _has("No_Beard", 0), "no_beard", "A full beard in the colour of the hair.",
        entailed=_FACIAL_HAIR, quality="good", transfer=FULL_BEARD, needs=_UNCOVERED, defaults=_BY_CODES, group="beard",
        en="beard, beards, bearded, facial hair, full beard, has a beard, whiskers",
        de="bart, vollbart, bärtig", fr="barbe, barbu", es="barba, barbudo", zh="胡子, 胡须, 大胡子",
    ),
    _edit(
        "no_beard", "no beard", "remove", "beard", _has("No_Beard"), "beard", "A shaved face; one without a beard stays as it is.",
        sign=BEARD, needs=_FROM_THE_FRONT, quality="good", entailed=_FACIAL_HAIR, defaults=_BY_PLAN, group="beard",
        en="clean shaven, cleanshaven, beardless, shaved, shaven, shaved face, shaven face, smooth shaven",
        de="rasiert, glatt rasiert, glattrasiert, bartlos", fr="rasé, rasé de près, imberbe", es="afeitado, bien afeitado", zh="刮胡子, 刮掉胡子, 剃须",
    ),
    _edit(
        "stubble", "stubble", "add", "beard", _has("5_o_Clock_Shadow"), "no_beard", "The shadow of a beard of some days.",
        entailed=_FACIAL_HAIR, quality="good", transfer=STUBBLE, needs=_UNCOVERED, defaults=_BY_CODES, group="beard",
        en="stubbly, unshaven, stubbly chin, light stubble, designer stubble, 5 o clock shadow, five o clock shadow, three day beard, "
        "3 day beard",
        de="dreitagebart, bartstoppeln, stoppeln, unrasiert", fr="barbe de trois jours, mal rasé", es="barba de tres días", zh="胡茬",
    ),
    _edit(
        "mustache", "a mustache", "add", "beard", _has("Mustache"), "no_mustache", "Hair on the upper lip.", entailed=_FACIAL_HAIR, quality="good", transfer=MUSTACHE, needs=_UNCOVERED, defaults=_BY_CODES,
        en="mustache, moustache, mustached, moustached, mustaches, moustaches",
        de="schnurrbart, schnauzer, oberlippenbart", fr="moustache, moustachu", es="bigote, bigotes", zh="小胡子, 八字胡",
    ),
    _edit(
        "no_mustache", "no mustache", "remove", "beard", _has("Mustache", 0), "mustache", "The upper lip is shaved.", sign=MUSTACHE_HAIR, needs=_FROM_THE_FRONT, quality="fair", entailed=_FACIAL_HAIR, defaults=_BY_PLAN,
    ),
    _edit(
        "goatee", "a goatee", "add", "beard", _has("Goatee"), "no_goatee", "A beard on the chin alone.", entailed=_FACIAL_HAIR, quality="good", transfer=GOATEE, needs=_UNCOVERED, defaults=_BY_CODES, group="beard",
        en="goatee, goateed, goatee beard, chin beard", de="ziegenbart, spitzbart, kinnbart", fr="bouc, barbichette",
        es="perilla, barba de chivo", zh="山羊胡",
    ),
    _edit(
        "no_goatee", "no goatee", "remove", "beard", _has("Goatee", 0), "goatee", "The chin is shaved.", sign=CHIN_HAIR, needs=_FROM_THE_FRONT, quality="fair", entailed=_FACIAL_HAIR, defaults=_BY_PLAN, group="beard",
    ),
    _edit(
        "hat", "a hat", "add", "hat", _has("Wearing_Hat"), "no_hat", "A knitted hat with a cuff, in the colour that the prompt names (\"a red hat\"); hair comes out from below it.", sign=HAT, group="hat",
        entailed=_UNDER_A_HAT, quality="good", transfer=KNITTED_HAT, colours=KNITTED_HATS, needs=Need("bare head that faces the camera", KNITTED_HAT.fits), defaults=_BY_CODES_FREELY,
        en="hat, hats, cap, headwear, beanie, wool hat, woolly hat, knitted hat, knit hat, winter hat", de="hut, mütze, kappe, wollmütze", fr="chapeau, casquette, bonnet", es="sombrero, gorra, gorro", zh="帽子",
    ),
    _edit(
        "no_hat", "no hat", "remove", "hat", _has("Wearing_Hat", 0), "hat", "A hat is taken off; the hair is made up.", group="hat", entailed=_UNDER_A_HAT,
        needs=Need("hat", HAT.worn),
        en="bare headed, bareheaded", de="barhäuptig", fr="tête nue",
    ),
    _edit(
        "earrings", "earrings", "add", "ears", _has("Wearing_Earrings"), "no_earrings", "Hoops or studs, where the ears are seen.",
        sign=EARRING, quality="good", transfer=EARRINGS, needs=Need("ear without an earring", EARRINGS.fits),
        en="earring, ear rings, ear ring", de="ohrringe, ohrring", fr="boucles d oreilles, boucles oreilles", es="pendientes, aretes", zh="耳环",
    ),
    _edit("no_earrings", "no earrings", "remove", "ears", _has("Wearing_Earrings", 0), "earrings", "Earrings are taken off.", sign=EARRING),
    # hair
    _edit(
        "blond_hair", "blond hair", "colour", "hair", _has("Blond_Hair"), None, "Hair in blond, in its old cut.",
        group="hair colour", entailed=_HAIR_COLOURS, quality="good",
        transfer=PartColour("hair", Colour((0.575, 0.023, 0.048), (0.159, 0.015, 0.019))),
        en=_hair("blond, blonde, golden, fair, light, lighter, light blond, blonder", "blond, blonde, blonds, blondes, blonder"),
        de="blonde haare, blondes haar, blonden haaren, haare blond, haar blond, helle haare, hellere haare",
        fr="cheveux blonds, blonde aux cheveux, cheveux clairs, cheveux en blond", es="pelo rubio, cabello rubio, rubio, rubia, pelo claro",
        zh="金发, 金色头发, 金色的头发, 金头发",
    ),
    _edit(
        "black_hair", "black hair", "colour", "hair", _has("Black_Hair"), None, "Hair in black, in its old cut.",
        group="hair colour", entailed=_HAIR_COLOURS, quality="good",
        transfer=PartColour("hair", Colour((0.260, 0.007, 0.009), (0.125, 0.012, 0.012))),
        en=_hair("black, dark, darker, raven", ""),
        de="schwarze haare, schwarzes haar, schwarzen haaren, haare schwarz, dunkle haare, dunkles haar, dunklere haare",
        fr="cheveux noirs, cheveux foncés, cheveux en noir", es="pelo negro, cabello negro, pelo oscuro, cabello oscuro", zh="黑发, 黑色头发, 黑头发, 黑色的头发",
    ),
    _edit(
        "brown_hair", "brown hair", "colour", "hair", _has("Brown_Hair"), None, "Hair in brown, in its old cut.",
        group="hair colour", entailed=_HAIR_COLOURS, quality="good",
        transfer=PartColour("hair", Colour((0.367, 0.023, 0.030), (0.151, 0.015, 0.017))),
        en=_hair("brown, chestnut, brunette", "brunette, brunet"),
        de="braune haare, braunes haar, braunen haaren, haare braun", fr="cheveux bruns, cheveux châtains, brune", es="pelo castaño, pelo marrón, cabello castaño, castaño, castaña",
        zh="棕发, 棕色头发, 褐色头发, 棕色的头发",
    ),
    _edit(
        "gray_hair", "gray hair", "colour", "hair", _has("Gray_Hair"), None, "Hair in gray, in its old cut.",
        group="hair colour", entailed=_HAIR_COLOURS, quality="good",
        transfer=PartColour("hair", Colour((0.461, 0.008, 0.012), (0.162, 0.011, 0.012))),
        en=_hair("gray, grey, white, silver, graying, greying, grayer, greyer", ""),
        de="graue haare, graues haar, grauen haaren, haare grau, weiße haare, weißes haar, grauhaarig",
        fr="cheveux gris, cheveux blancs", es="pelo gris, cabello gris, pelo blanco, canas, pelo canoso", zh="灰发, 白发, 灰色头发, 白头发, 花白头发",
    ),
    _edit(
        "bangs", "bangs", "add", "bangs", _has("Bangs"), "no_bangs", "Hair over the forehead, where there is hair above it.",
        entailed=_FRINGE, quality="fair", transfer=FRINGE, needs=Need("hair above a forehead that faces the camera", FRINGE.fits), defaults=_BY_PLAN, group="bangs",
        en="fringe, hair over the forehead, hair falls over the forehead, bang", de="pony, ponyfrisur, stirnfransen", fr="frange", es="flequillo", zh="刘海",
    ),
    _edit(
        "no_bangs", "no bangs", "remove", "bangs", _has("Bangs", 0), "bangs", "The forehead is bare.", entailed=_FRINGE, defaults=_BY_PLAN, group="bangs",
        en="bare forehead", de="freie stirn", fr="front dégagé", es="frente despejada",
    ),
    _edit(
        "bald", "bald", "shape", "hair, forehead", _has("Bald"), None, "A head without hair, as far as the crop shows it.", entailed=_UNDER_A_HAT,
        en="bald headed, hairless, no hair, bald head, shaved head, shave head, lose hair, loses hair, losing hair, remove hair, baldness",
        de="glatze, kahl, kahlköpfig", fr="chauve, crâne rasé", es="calvo, calva", zh="秃头, 光头",
    ),
    _edit(
        "wavy_hair", "wavy hair", "shape", "hair", _has("Wavy_Hair"), "straight_hair", "Hair in waves.", group="hair shape", entailed=("Straight_Hair",),
        en="wavy haired, curly hair, waves in the hair, hair wavy, hair curly, curls, curly, wavy, curly haired, wavier hair, curlier hair",
        de="wellige haare, welliges haar, locken, lockige haare", fr="cheveux ondulés, cheveux bouclés, boucles", es="pelo ondulado, pelo rizado, rizos", zh="卷发, 波浪发",
    ),
    _edit(
        "straight_hair", "straight hair", "shape", "hair", _has("Straight_Hair"), "wavy_hair", "Hair without waves.", group="hair shape", entailed=("Wavy_Hair",),
        en="straight haired, smooth hair, hair straight, straighten hair, straightened hair, straighter hair",
        de="glatte haare, glattes haar", fr="cheveux lisses, cheveux raides", es="pelo liso, pelo lacio", zh="直发",
    ),
    # make-up, skin, age
    _edit(
        "lipstick", "lipstick", "make-up", "mouth", _has("Wearing_Lipstick"), "no_lipstick", "Red lips, in their old shape.",
        entailed=_MAKEUP, quality="good", needs=_UNCOVERED, transfer=PartColour("lips", Colour((-0.134, 0.054, -0.001), (0.089, 0.018, 0.008)), beside="facial_skin"),
        en="lip stick, red lips, painted lips, red lipstick, lips painted, redder lips, lips red",
        de="lippenstift, rote lippen", fr="rouge à lèvres, lèvres rouges", es="pintalabios, lápiz labial, labios rojos, labial", zh="口红, 红唇",
    ),
    _edit(
        "no_lipstick", "no lipstick", "make-up", "mouth", _has("Wearing_Lipstick", 0), "lipstick", "Lips in their own colour.",
        entailed=_MAKEUP, quality="fair", needs=_UNCOVERED, transfer=PartColour("lips", Colour((-0.098, 0.022, -0.005), (0.109, 0.012, 0.008)), beside="facial_skin"),
    ),
    _edit(
        "makeup", "heavy makeup", "make-up", "face", _has("Heavy_Makeup"), "no_makeup", "Make-up on eyes, cheeks and lips.", entailed=_MAKEUP,
        en="makeup, make up, heavy make up, lot of makeup, lot of make up", de="schminke, geschminkt, stark geschminkt",
        fr="maquillage, maquillée, maquillé", es="maquillaje, maquillada, maquillado", zh="化妆, 浓妆",
    ),
    _edit(
        "no_makeup", "no makeup", "make-up", "face", _has("Heavy_Makeup", 0), "makeup", "A face without make-up.", entailed=_MAKEUP,
        de="ungeschminkt, abgeschminkt", fr="démaquillée, démaquillé", es="desmaquillada", zh="素颜",
    ),
    _edit(
        "rosy_cheeks", "rosy cheeks", "make-up", "cheeks", _has("Rosy_Cheeks"), None, "Cheeks in pink.",
        en="rosy cheeked, pink cheeks, red cheeks, cheeks rosy, blush, blushing, rosier cheeks",
        de="rote wangen, rosige wangen", fr="joues roses, joues rouges", es="mejillas sonrosadas, mejillas rojas", zh="红脸颊, 脸红",
    ),
    _edit(
        "pale_skin", "pale skin", "shape", "face", _has("Pale_Skin"), None, "Skin that is paler.",
        en="pale, paler, skin pale, paler skin, pale face", de="blass, blasse haut, blasser", fr="pâle, peau pâle", es="pálido, pálida, piel pálida", zh="苍白, 皮肤苍白",
    ),
    _edit(
        "bushy_eyebrows", "bushy eyebrows", "shape", "brows", _has("Bushy_Eyebrows"), None, "Thick eyebrows.",
        quality="good", transfer=BUSHY_BROWS, needs=Need("pair of eyebrows", BUSHY_BROWS.fits),
        en="thick eyebrows, heavy brows, bushy brows, eyebrows bushy, thick brows, thicker eyebrows, thicker brows, bushier eyebrows, heavy eyebrows",
        de="buschige augenbrauen, dicke augenbrauen", fr="sourcils épais, sourcils broussailleux", es="cejas pobladas, cejas gruesas", zh="浓眉",
    ),
    _edit(
        "arched_eyebrows", "arched eyebrows", "shape", "brows", _has("Arched_Eyebrows"), None, "Eyebrows in a high arch.",
        quality="good", transfer=ARCHED_BROWS, needs=Need("pair of eyebrows", ARCHED_BROWS.fits),
        en="arched brows, curved eyebrows, eyebrows arched, curved brows, raised eyebrows", de="geschwungene augenbrauen", fr="sourcils arqués", es="cejas arqueadas", zh="弯眉",
    ),
    _edit(
        "young", "young", "age", "face", _has("Young"), "old", "Smoother skin, and hair that is not grey; the shape of the face stays.", group="age", entailed=_AGE, quality="good", transfer=YOUNGER, defaults=_IN_PART,
        en="younger, youthful, young looking, more youthful, younger looking", de="jung, jünger, junge, junger, verjüngen, verjünge",
        fr="jeune, plus jeune, rajeunir, rajeunis", es="joven, más joven, rejuvenecer", zh="年轻, 年轻一些, 变年轻",
    ),
    _edit(
        "old", "old", "age", "face", _has("Young", 0), "young", "Lines, folds and grey hair; the shape of the face stays.", group="age", entailed=_AGE, quality="good", transfer=OLDER, defaults=_IN_PART,
        en="older, elderly, aged, aging, ageing, senior, age, older looking, old looking",
        de="alt, älter, alte, alter, altern", fr="vieux, vieille, plus vieux, plus vieille, âgé, âgée, vieillir",
        es="viejo, vieja, anciano, anciana, mayor, envejecer", zh="老, 变老, 年老, 苍老",
    ),
    _edit(
        "no_face_mask", "no face mask", "remove", "face", None, None, "A mask over mouth and nose is taken off; what it covered is made up.",
        covering="face_mask", told="a face", needs=Need("mask over mouth and nose", FACE_MASK.worn), quality="experimental",
        en="no mask, without mask, without face mask, remove mask, remove face mask, take off mask, take off face mask, take mask off, take face mask off, unmask, unmasked, "
        "no surgical mask, remove surgical mask, take off surgical mask, remove medical mask, no facemask, remove facemask, take off facemask",
        de="ohne maske, maske weg, maske abnehmen, ohne mundschutz, nimm maske ab", fr="sans masque, enleve masque, enlever masque, retire masque, retirer masque",
        es="sin mascarilla, quita mascarilla, quitar mascarilla, sin barbijo, sin cubrebocas", zh="没有口罩, 不戴口罩, 摘掉口罩, 去掉口罩, 取下口罩",
    ),
    _edit(
        "face", "a face", "fill", "face", None, None, "A face as it may have been: what a mask or hole covers is filled, nothing new is asked for.",
        quality="fair",
        en="face, human face, whole face, fill, fill the hole, fill the face, restore, restore the face, repair, repair the face, complete the face, redraw the face",
        de="ein gesicht, gesicht", fr="un visage, visage", es="una cara, cara, un rostro, rostro", zh="脸, 人脸",
    ),
)  # fmt: skip

#: name → edit.
EDITS: Mapping[str, Edit] = MappingProxyType({edit.name: edit for edit in _ROWS})


def list_edits(quality: Quality | None = None) -> list[Edit]:
    """The edits that prompts may ask for, those that work best first.

    Args:
        quality: only those of this quality.

    Raises:
        ValueError: a quality that there is not.

    Example:

    ```python
    >>> [edit.phrase for edit in list_edits("good")][:2]
    ['smiling', 'not smiling']

    ```
    """
    order: tuple[Quality, ...] = ("good", "fair", "experimental")
    if quality is not None and quality not in order:
        raise ValueError(f"quality must be one of {', '.join(order)}, got {quality!r}")
    return [edit for each in order if quality in (None, each) for edit in _ROWS if edit.quality == each]


def edits_table(edits: Iterable[Edit]) -> str:
    """The table of docs/edits.md in Markdown, a row an edit."""
    rows = ["| prompt | or, for example | changes | quality | | |", "|---|---|---|---|---|---|"]
    for edit in edits:
        shown = "" if edit.picture is None else f"![{edit.phrase}: before and after, edited](../{edit.picture})"
        cells = (edit.phrase, edit.example, ", ".join(edit.regions), edit.quality, edit.sentence, shown)
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)
