"""What an edit will do to a photo, and what came out: each made once, and passed on as it is."""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from PIL import Image

from gptface.modeling_gptface.generation_gptface import Captions
from gptface.processing.alignment import CROP_SIZE
from gptface.processing.blending import PhotoLayer, Transfer
from gptface.processing.edits import Edit
from gptface.processing.face_parsing import FaceParsing
from gptface.processing.masks import cells_to_mask, covered_cells, widen
from gptface.processing.prompt_reading import EditIntent, read_prompt
from gptface.processing.prompt_words import regions_from_prompt, speaks_of_expressions_alone
from gptface.processing.regions import REGIONS, find_region, kept_pixels, region_cells, shown_cells
from gptface.processing.warping import Warp

from .edit_verification import HeadScores, probability
from .face_pipeline import AlignedFace

#: Probability from which on a face has what is asked for, so that nothing is painted: what is in doubt is painted. Of
#: 240 CelebA validation faces it keeps 2 % of those without a smile from getting one, and finds 95 % of those without
#: glasses.
SETTLED = 0.97
#: Where the parser sees nothing of what is to go, this is enough: it may have missed what a head has seen.
LIKELY = 0.5
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
    def covering(self) -> str:
        """Class of the face parser of what is to be taken off and filled behind, see [`Edit`]; empty without."""
        return self.edits[0].covering if len(self.edits) == 1 else ""

    def is_settled(self, scores: HeadScores, signs: Sequence[Sequence[bool | None]]) -> bool:
        """
        Whether all faces have all that is asked for, and more of it was not asked for.

        Args:
            signs: of each face what [`FacePlan.signs`] tells of each edit.
        """
        return bool(self.intents) and all(
            intent.edit.kind in MAY_BE_SETTLED
            and not intent.comparative
            and intent.detail is None
            and _all_have(
                intent.edit, probability(scores, intent.edit.target), [each[index] if each else None for each in signs]
            )
            for index, intent in enumerate(self.intents)
        )


def _all_have(edit: Edit, probabilities: np.ndarray | None, signs: Sequence[bool | None]) -> bool:
    """Whether all faces have what an edit asks for, by the heads [faces] and by its sign."""
    found = [None] * len(signs) if probabilities is None else probabilities.tolist()
    removal = edit.kind == "remove"
    for probable, seen in zip(found, signs, strict=True):
        surely = probable is not None and probable >= SETTLED
        if removal and seen is not None:
            has = not seen and (probable is None or probable >= LIKELY)
        else:
            has = surely or (seen is True and not removal)
        if not has:
            return False
    return True


def read_requests(prompt: Any, strict: bool = True, at_once: bool = False, drawn: bool = False) -> list[EditRequest]:
    """
    A prompt → the passes of the pipeline that it asks for, one an edit, but one for all that move the photo's own
    pixels, so that none undoes what another does; warns of what was ignored or corrected, and of edits that seldom
    work.

    Args:
        strict: whether words must be those of an edit of the table; else they are passed on to the model as they are,
            with a warning where the table has not all of them, and change the regions that they name, or the face.
        at_once: one pass for all edits, for an area that the user chose.
        drawn: whether the model draws what else would be moved, an edit a pass.

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
    if at_once:
        return [_request(prompt, reading.intents)]
    moving = [each for each in reading.intents if not drawn and isinstance(each.edit.transfer, Warp)]
    groups = [moving if each in moving else [each] for each in reading.intents if each not in moving[1:]]
    # what is behind a mask is made up before it is changed
    groups.sort(key=lambda group: not group[0].edit.covering)
    return [_request(prompt, tuple(group)) for group in groups]


def _request(text: str, intents: tuple[EditIntent, ...]) -> EditRequest:
    return EditRequest(
        text,
        told=", ".join(intent.told for intent in intents),
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


# In sides of the crop: what is redrawn beside an area, since an edit fades in from the edge of its cells; and the way
# on which an edit fades in from the edge of its bound, or more.
MARGIN, FADE = 5 / 128, 8 / 128
# Share of a cell that must be in an area, and of a region that its classes must fill to be believed.
LEAST_SHARE, LEAST_SEEN = 0.08, 0.03
# How much of a pixel what is to go must be, and how wide its edge is, in sides of the crop.
SOME, EDGE = 0.3, 4 / 128
# A weight that changes no pixel.
NOTHING = 1 / 600
#: What may change where a region's own classes are not seen.
INSTEAD = ("face", "hair", "hat", "neck")


@dataclass(frozen=True)
class EditArea:
    """
    Args:
        cells: bool [G, G], to be redrawn.
        bound: float32 [S, S], what of the crop may change; None where all of the cells may.
        gone: bool [S, S], what is there and is to go, with its edges: none of its detail may shine through the edit.
    """

    cells: np.ndarray
    bound: np.ndarray | None = None
    gone: np.ndarray | None = None


def named_area(names: list[str], grid: int, size: int, parsing: FaceParsing | None = None) -> EditArea:
    """
    The area of named regions: their shapes, and of these, where a parser has seen the face, only what shows what they
    are about.

    Args:
        names: of regions, as users may write them.
        grid: cells along a side of the crop.
        size: pixels along a side of the crop.
        parsing: what the face and its surroundings show.

    Raises:
        ValueError: an unknown region, none, or a parser without the classes that it needs.
    """
    if not names:
        raise ValueError(f"name at least one region: {', '.join(REGIONS)}")
    if parsing is None:
        cells, shown = region_cells(names, grid), shown_cells(names, grid)
        kept = np.max([kept_pixels(name, size) for name in names], axis=0)
        if (shown >= cells).all() and not kept.any():
            return EditArea(cells)
        return EditArea(cells, cells_to_mask(shown, size) * (1 - kept))
    cells, bound = np.zeros((grid, grid), bool), np.zeros((size, size), np.float32)
    for name in names:
        seen = _seen(name, parsing, grid, size)
        redrawn, shown = region_cells(name, grid) & _touched(seen, grid), shown_cells(name, grid)
        cells |= redrawn
        # An edit fades in from the edge of its bound; where that is the edge of what is seen, a rim of the old colour
        # would stay.
        seen = np.maximum(seen, NOTHING * widen(seen > 0.5, FADE))
        bound = np.maximum(bound, seen * cells_to_mask(redrawn & shown, size) * (1 - kept_pixels(name, size)))
    gone = [parsing.crop_mask(find_region(name).classes, size) for name in names if find_region(name).removed]
    return EditArea(cells, bound, widen(np.max(gone, axis=0) > SOME, EDGE) if gone else None)


def _touched(area: np.ndarray, grid: int) -> np.ndarray:
    """The cells bool [grid, grid] that have a share in an area [S, S] in [0, 1] or lie right beside it."""
    return covered_cells(widen(area > 0.5, MARGIN), grid, LEAST_SHARE)


def _seen(name: str, parsing: FaceParsing, grid: int, size: int) -> np.ndarray:
    """How much of each pixel [size, size] of a crop a region may change."""
    region = find_region(name)
    shape = cells_to_mask(region_cells(name, grid), size)
    for classes in (region.classes, INSTEAD):
        seen = parsing.crop_mask(classes, size) if classes else np.ones_like(shape)
        if ((seen > 0.5) * shape).sum() >= LEAST_SEEN * shape.sum():
            break
    else:
        return shape
    if region.beside:
        near = widen(seen > 0.5, region.margin / CROP_SIZE)
        seen = np.maximum(seen, near * parsing.crop_mask(region.beside, size))
    if region.spared:
        seen = seen * ~widen(parsing.crop_mask(region.spared, size) > 0.5, region.margin / CROP_SIZE)
    return seen


@dataclass(frozen=True)
class FaceTransfers:
    """
    Changes of one face that are not drawn.

    Args:
        transfers: all fit the face; none where it does not show what they need, or has all that is asked for.
        parsing: what it and its surroundings show.
        share: of the way, in (0, 1].
        left_out: the edits that are not done, by their phrases → why.
    """

    transfers: tuple[Transfer, ...]
    parsing: FaceParsing
    share: float
    left_out: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def layers(self, photo: Image.Image, seed: int) -> list[PhotoLayer]:
        """What is laid over the photo; the same seed gives the same."""
        generator = np.random.default_rng(seed % 2**64)
        return [layer for each in self.transfers for layer in each.layers(photo, self.parsing, self.share, generator)]


def transfers_of(intents: Sequence[EditIntent]) -> tuple[Transfer, ...]:
    """
    How a face changes where nothing is to be drawn: all edits, and what is said of the mouth beside them, are of that
    kind, else empty; movements add up to one.
    """
    found = [intent.transfer for intent in intents]
    found += [intent.detail.transfer for intent in intents if intent.detail is not None]
    if None in found:
        return ()
    moving = [each for each in found if isinstance(each, Warp)]
    others = tuple(each for each in found if each is not None and not isinstance(each, Warp))
    return (*others, reduce(add, moving)) if moving else others


def lay_over(
    request: EditRequest, photo: Image.Image, parsing: FaceParsing, share: float, drawn: bool
) -> tuple[FaceTransfers | None, tuple[bool | None, ...]]:
    """
    What of a request is laid over a face: no edit that is there already, or that needs what the face does not show. An
    edit that lacks what it needs keeps the model from drawing the others, for it is told all of them at once.

    Args:
        share: of the way, in (0, 1].
        drawn: whether what is drawn needs nothing, for the user says where it is to be.

    Returns:
        What is laid over, None where the model is to draw it; and of each edit whether its sign is seen, see [`Sign`],
            None where nothing tells or it can be laid over.
    """
    signs = tuple(
        None
        if intent.edit.sign is None
        or (intent.edit.kind == "add" and intent.transfer is not None and intent.transfer.fits(parsing))
        else intent.edit.sign.seen(photo, parsing)
        for intent in request.intents
    )
    present = [
        intent for intent, seen in zip(request.intents, signs, strict=True) if seen and intent.edit.kind == "add"
    ]
    left_out = {intent.edit.phrase: "it is there already" for intent in present}
    going = [intent for intent in request.intents if intent not in present]
    lacking = [
        intent for intent in going if (intent.transfer is not None or not drawn) and not intent.edit.suits(parsing)
    ]
    left_out |= {each.edit.phrase: f"no {each.edit.needs.words} is seen" for each in lacking if each.edit.needs}
    going = [intent for intent in going if intent not in lacking]
    transfers = transfers_of(going)
    if not all(each.fits(parsing) for each in transfers):
        transfers = ()
    if not transfers:
        if not lacking and (going or not present):
            return None, signs
        left_out |= {intent.edit.phrase: "it would be drawn along with that" for intent in going}
    return FaceTransfers(transfers, parsing, share, MappingProxyType(left_out)), signs


@dataclass(frozen=True)
class FacePlan:
    """
    What is to be done to one face.

    Args:
        face: where it is.
        pixel_values: [1, 3, S, S] in [-1, 1], its crop.
        area: what of it changes; None where the match with the prompt decides.
        transfers: what is done to it where nothing is drawn; None where it is drawn.
        signs: of each edit that is asked for, whether its sign is seen, see [`Sign`], and nothing can be done to it;
            None where nothing tells.
    """

    face: AlignedFace
    pixel_values: torch.Tensor
    area: EditArea | None
    transfers: FaceTransfers | None = None
    signs: tuple[bool | None, ...] = ()


@dataclass(frozen=True)
class EditPlan:
    """
    What one pass of the editing pipeline is to do to one photo.

    Args:
        photo: RGB or RGBA; a hole in it is filled from its edge.
        photo_mask: float32 [height, width] in [0, 1], what of it may change; None where the areas of the faces say it.
        faces: what is to be done to each.
        hole: whether what the mask covers is damaged or covered.
        request: what is asked for.
        told: what the model is told.
        captions: by the names that `generate` gives them, `"source"` and `"negative"` for the second and third: what
            the model is told (`""`), what the face is now and what to move away from, each [1, T].
        strength: share of the cells of the areas that is redrawn.
        toning: of a black-and-white or toned photo that is to stay one, see [`find_toning`].
        names: of the regions that may change; None where a mask or the match with the prompt says it.
        laid_over: whether what is known how to is laid over faces that it fits, and not drawn.
        share: of the way that transfers go, in (0, 1].
    """

    photo: Image.Image
    photo_mask: np.ndarray | None
    faces: tuple[FacePlan, ...]
    hole: bool
    request: EditRequest
    told: str
    captions: Mapping[str, Captions]
    strength: float
    toning: np.ndarray | None = None
    names: tuple[str, ...] | None = None
    laid_over: bool = False
    share: float = 1.0

    @property
    def paints(self) -> bool:
        """Whether anything is drawn or laid over: not where all faces stay as they are."""
        return any(face.transfers is None or face.transfers.transfers for face in self.faces)

    @property
    def note(self) -> str | None:
        """Which edits are not done to which faces, and why, and which had to make up what is hidden; else None."""
        found: dict[str, Counter[str]] = {}
        for face in self.faces:
            for phrase, reason in face.transfers.left_out.items() if face.transfers is not None else ():
                found.setdefault(reason, Counter())[phrase] += 1
        told = []
        for reason, phrases in found.items():
            most = max(phrases.values())
            where = f" in {most} of {len(self.faces)} faces" if most < len(self.faces) else ""
            named = " and ".join(f'"{phrase}"' for phrase in phrases)
            told.append(f"{reason}{where}: {named} {'was' if len(phrases) == 1 else 'were'} left out")
        notes = [", ".join(told) + ("" if self.hole else "; draw=True draws it all the same")] if told else []
        hidden = " and ".join(f'"{phrase}"' for phrase in self.made_up)
        if hidden:
            notes.append(f"{hidden}: what is hidden was made up, which is experimental")
        return "; ".join(notes) or None

    @property
    def made_up(self) -> tuple[str, ...]:
        """The edits that take off what hides a part of a face, so that the model makes that up."""
        return tuple(
            dict.fromkeys(
                intent.edit.phrase
                for face in self.faces
                if face.transfers is None
                for intent, seen in zip(self.request.intents, face.signs, strict=False)
                if seen and intent.edit.kind == "remove" and intent.transfer is not None
            )
        )


@dataclass(frozen=True)
class EditedFace:
    """
    What the model drew of one face, C candidates.

    Args:
        plan: what was to be done.
        redrawn: bool [C, G, G], the cells that were drawn anew.
        reconstruction: float32 [S, S, 3] in [0, 1], the face's own codes, decoded.
        codes: [C, N], those of the candidates.
        edited: float32 [C, S, S, 3] in [0, 1], these, decoded.
        match_scores: [C], log-odds that prompt and candidate match.
        guidance_kl: [C], nats a cell by which matching moved the distributions.
        realness: [C], how real they look to the critic, see [`GPTFaceGenerationOutput`]; None without its word.
    """

    plan: FacePlan
    redrawn: np.ndarray
    reconstruction: np.ndarray
    codes: torch.Tensor
    edited: np.ndarray
    match_scores: tuple[float, ...]
    guidance_kl: tuple[float, ...]
    realness: tuple[float, ...] | None = None


@dataclass(frozen=True)
class EditedPhoto:
    """
    What the model drew under a plan.

    Args:
        plan: what was to be done.
        seeds: of the candidates.
        faces: what was drawn, of each face that was.
        before: what the model's own heads see in the faces, before the edit.
        note: why nothing was painted; None where it was.
    """

    plan: EditPlan
    seeds: tuple[int, ...]
    faces: tuple[EditedFace, ...]
    before: HeadScores
    note: str | None = None
