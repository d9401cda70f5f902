"""An edit carried through a film: decided on the frame that shows the face best, and drawn into all others."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gptface.metrics.flicker import Flicker
from gptface.processing.alignment import CROP_SIZE, apply, compose, corners, crop_matrix, inverse
from gptface.processing.blending import Layer, PhotoLayer, keep_toning, paste
from gptface.processing.detection import FaceNotFoundError, default_detector
from gptface.processing.face_points import Lips
from gptface.processing.film_files import Film, FilmFrame, check_film_output, open_film
from gptface.processing.part_colour import Colour, ColourLayer
from gptface.processing.provenance import EDITED, describe
from gptface.processing.warping import MovedLayer

from .edit_blending import layers_of
from .edit_plan import EditedPhoto, EditRequest, read_requests
from .face_pipeline import SEEDING, PipelineInput, candidate_seeds, checked_count
from .face_track import FaceFollower, Place, locate
from .guided_face_editing import GuidedFaceEditingPipeline

#: What is said of one picture, and of no film.
OF_ONE_PICTURE = ("mask_image", "hole", "aligned", "landmarks", "output_type", "callback_on_step_end")
#: Share of the last frame's layer in that of a frame, and of the last frame's colours of a part: half of a change is
#: there after one frame, and after seven.
KEPT, KEPT_COLOURS = 0.5, 0.9
#: By how much the gap between lips differs where a parser trembles, in pixels of the 128-pixel crop: lips that open
#: are followed at once, for a line that lags behind them cuts through teeth.
TREMBLE = 1.0
#: How much of a pixel must be the edit's to count in what flickers.
MOSTLY = 0.5

#: What is told of an edit that was decided, of the pipeline's result.
REPORTED = ("prompt", "seed", "edits", "verified", "kept", "match_score", "note")

#: What is being done, frames done, and frames in all.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class _Decided:
    """
    One edit as it was decided on a key frame.

    Args:
        drawn: what the model drew.
        candidate: the best of it.
        image: the key frame with it.
        report: what is told of it.
    """

    drawn: EditedPhoto
    candidate: int
    image: Image.Image
    report: dict[str, Any]


def edit_film(
    pipe: GuidedFaceEditingPipeline,
    source: str | Path,
    prompt: str,
    output: str | Path,
    *,
    face: str | int = "largest",
    progress: Progress | None = None,
    provenance: bool = True,
    keep_location: bool = False,
    **parameters: Any,
) -> dict[str, Any]:
    """
    Edits a face in a film.

    The face is followed, the edit decided once on the frame of a scene that shows it best (again where the face turns
    far), and its codes are drawn into every frame with that frame in view; a new colour of hair or lips follows what
    these are like in each frame. Layers, colours and landmarks are smoothed in time. Frames without the face stay, and
    so do sound, times and loops.

    Args:
        pipe: `pipeline("guided-face-editing")`.
        source: a video (extra `video`), or an animated GIF or WebP.
        prompt: what the face should be, as for a photo.
        output: file of the same kind: `.mp4`, `.mov`, `.m4v`, `.mkv`, `.webm`; `.gif`, `.webp`.
        face: `"largest"` or an index from 0, largest first, among the faces of the first frame of a scene.
        progress: called with what is being done (`"looking"` or `"editing"`), frames done, and frames in all.
        provenance: write into the file that it is edited, by which model, prompt and seed.
        keep_location: write also where the film was taken.
        parameters: of the pipeline's call, such as `seed`, `region` or `num_images_per_prompt`, but for what is about
            one picture: `mask_image`, `hole`, `aligned`, `landmarks`.

    Returns:
        `output`, `frames`, `edited_frames`, `scenes`, `flicker` (see [`Flicker`]: mean difference of frames inside of
        the edit over that of the source there, None where nothing was edited; a hair colour that is lighter than it
        was shows more of what moves) and `decided`: for each frame on which the edit was, its `frame`, `time` in
        seconds, `box` (around the crop), and `seed`, `edits`, `verified`, `kept`, `match_score` and `note` of the
        pipeline's result, several where the prompt asks for several edits.

    Raises:
        FilmInputError: no film that can be edited.
        FaceNotFoundError: no frame shows the face.
        ValueError: parameters that make no sense, or not for films.
        ImportError: a video without PyAV.

    Example:

    ```python
    import gptface
    from transformers import pipeline
    from gptface.pipelines.film_editing import edit_film

    report = edit_film(pipeline("guided-face-editing"), "film.mp4", "smiling", "smiling.mp4", seed=0)
    ```
    """
    for name in OF_ONE_PICTURE:
        if parameters.pop(name, None):
            raise ValueError(f"{name} is about one picture: leave it out for a film")
    if face == "all":
        raise ValueError('of a film one face is edited: face must be "largest" or an index; run it once for each')
    check_film_output(source, output)
    deciding = _Deciding(pipe, prompt, parameters)
    film = open_film(source)
    follower = FaceFollower(default_detector(), face)
    sights = []
    for frame in film.frames():
        sights.append(follower.see(frame.image))
        if progress is not None:
            progress("looking", len(sights), max(film.expected_frames, len(sights)))
    places = locate(sights)
    if not any(places):
        raise FaceNotFoundError(f"{source}: no frame shows {'a face' if face == 'largest' else f'a face {face}'}")
    decided = _decide(film, places, deciding)
    painter = _Painter(pipe, decided, deciding.blending)

    def edit(frame: FilmFrame) -> Image.Image | None:
        if progress is not None:
            progress("editing", frame.index + 1, len(sights))
        if frame.index < len(sights) and sights[frame.index].cut:
            painter.cut()
        return painter.paint(frame.image, places[frame.index] if frame.index < len(places) else None)

    about = {**describe(pipe.model, prompt, EDITED), "seed": deciding.seeds[0]} if provenance else None
    film.rewrite(output, edit, about, keep_location)
    return {
        "output": str(output),
        "frames": len(sights),
        "edited_frames": painter.edited,
        "scenes": 1 + sum(sight.cut for sight in sights),
        "flicker": painter.flicker.ratio,
        "decided": [each.report for edits in decided.values() for each in edits],
    }


class _Deciding:
    """The parameters of a call, and what they decide on one frame."""

    def __init__(self, pipe: GuidedFaceEditingPipeline, prompt: str, parameters: dict[str, Any]):
        self.pipe = pipe
        self.options, drawing, blending = pipe._sanitize_parameters(**parameters)
        at_once = self.options.get("region") is not None
        drawn = bool(self.options.get("draw"))
        self.requests = read_requests(prompt, self.options.pop("strict", True), at_once, drawn)
        if not at_once and (covering := [each.edits[0].phrase for each in self.requests if each.covering]):
            raise ValueError(f'"{covering[0]}" fills a hole of one picture: leave it out for a film')
        self.force = self.options.pop("force", False)
        seeding = {name: drawing.pop(name, None) for name in SEEDING}
        count = checked_count("num_images_per_prompt", drawing.pop("num_images_per_prompt", 1))
        self.seeds = candidate_seeds(**seeding, count=count)
        self.drawing, self.blending = drawing, blending

    def decide(self, photo: Image.Image, landmarks: np.ndarray) -> list[_Decided]:
        """The edits of a photo, one after the other, each the best of its candidates."""
        decided = []
        for request in self.requests:
            decided.append(self._decide_one(photo, landmarks, request))
            photo = decided[-1].image
        return decided

    def _decide_one(self, photo: Image.Image, landmarks: np.ndarray, request: EditRequest) -> _Decided:
        photo = self.pipe.load(PipelineInput(photo))
        state = {
            "plan": self.pipe.plan(photo, request, landmarks=landmarks, **self.options),
            "requests": [request],
            "force": self.force,
            "seeds": self.seeds,
        }
        output = self.pipe.forward([state], **self.drawing)[0]
        best = self.pipe.postprocess(output, **self.blending)[0]
        drawn = output["edited"][0]
        report = {name: best[name] for name in REPORTED}
        return _Decided(drawn, drawn.seeds.index(best["seed"]), best["image"], report)


def _decide(film: Film, places: Sequence[Place | None], deciding: _Deciding) -> dict[int, list[_Decided]]:
    """What is decided on each key frame."""
    keys = {place.key for place in places if place is not None}
    decided: dict[int, list[_Decided]] = {}
    for frame in film.frames():
        place = places[frame.index] if frame.index < len(places) else None
        if frame.index in keys and place is not None:
            decided[frame.index] = deciding.decide(frame.image, place.landmarks)
            quad = apply(inverse(crop_matrix(place.landmarks)), corners(CROP_SIZE, CROP_SIZE))
            box = [*quad.min(0).round(1).tolist(), *quad.max(0).round(1).tolist()]
            for each in decided[frame.index]:
                each.report.update(frame=frame.index, time=frame.time, box=box)
        if len(decided) == len(keys):
            break
    return decided


class _Painter:
    """
    Draws what was decided into frame after frame, and measures how that flickers.

    Args:
        decided: the edits by the frame that they were decided on.
        blending: `composite` and `feather` of the pipeline's call.
    """

    def __init__(
        self, pipe: GuidedFaceEditingPipeline, decided: Mapping[int, Sequence[_Decided]], blending: Mapping[str, Any]
    ):
        self.pipe, self.decided = pipe, decided
        self.mode, self.feather = blending.get("composite", "blend"), blending.get("feather")
        self.flicker, self.edited = Flicker(), 0
        self._layers: dict[int, list[PhotoLayer]] = {}
        self._matrix: np.ndarray | None = None

    def cut(self) -> None:
        """The next frame has nothing to do with the last one."""
        self._layers.clear()
        self.flicker.cut()

    def paint(self, photo: Image.Image, place: Place | None) -> Image.Image | None:
        """
        The next frame with the edit; None where there is none.

        Args:
            photo: mode RGB or RGBA.
            place: where the face is; None where it is not.
        """
        edits = [] if place is None else self.decided[place.key]
        if place is None or all(each.drawn.note for each in edits):
            self.cut()
            return None
        matrix = crop_matrix(place.landmarks, self.pipe.face_size)
        edited, area = photo, np.zeros((photo.height, photo.width), np.float32)
        for number, each in enumerate(edits):
            if each.drawn.note:
                self._layers.pop(number, None)
                continue
            layers = self._smoothed(number, self._drawn(each, edited, matrix), matrix)
            faded = [replace(layer, alpha=layer.alpha * place.weight) for layer in layers]
            painted, weight = paste(edited, faded)
            toning = each.drawn.plan.toning
            edited = painted if toning is None else keep_toning(edited, painted, toning)
            area = np.maximum(area, weight)
        self._matrix = matrix
        self.edited += 1
        self.flicker.add(np.asarray(photo.convert("RGB")), np.asarray(edited.convert("RGB")), area > MOSTLY)
        return edited

    def _drawn(self, decided: _Decided, photo: Image.Image, matrix: np.ndarray) -> list[PhotoLayer]:
        """The layers of an edit for this frame alone."""
        plan = self.pipe.replan(decided.drawn.plan, photo, matrix)
        if not decided.drawn.faces:
            transfers, seed = plan.faces[0].transfers, decided.drawn.seeds[decided.candidate]
            return [] if transfers is None else transfers.layers(photo, seed)
        drawn = self.pipe.redraw(decided.drawn, decided.candidate, plan)
        return layers_of(drawn, 0, self.mode, self.feather, self.pipe.model.image_tokenizer.refiner)

    def _smoothed(self, number: int, layers: list[PhotoLayer], matrix: np.ndarray) -> list[PhotoLayer]:
        """Layers with those of the last frame in them; the last ones where a part is not seen for a moment."""
        before = self._layers.get(number, [])
        if not layers and self._matrix is not None:
            layers = [replace(each, matrix=_carried(each.matrix, self._matrix, matrix)) for each in before]
        elif len(before) == len(layers):
            layers = [_mixed(last, now) for last, now in zip(before, layers, strict=True)]
        self._layers[number] = layers
        return layers


def _carried(to_frame: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """
    The matrix from a photo to the frame of a layer, where the face has moved on.

    Args:
        to_frame: [2, 3] from the last photo to the layer's frame.
        before, after: [2, 3] from the last photo and from this one to the crop of the face.
    """
    return compose(after, compose(inverse(before), to_frame))


def _mixed(last: PhotoLayer, now: PhotoLayer) -> PhotoLayer:
    """A layer with a share of the last frame's in it; as it is where that was of another kind."""
    if last.alpha.shape != now.alpha.shape:
        return now
    alpha = _between(last.alpha, now.alpha, KEPT)
    if isinstance(last, Layer) and isinstance(now, Layer) and last.delta.shape == now.delta.shape:
        delta, detail = _between(last.delta, now.delta, KEPT), _between(last.detail, now.detail, KEPT)
        return replace(now, delta=delta, detail=detail, alpha=alpha)
    if isinstance(last, ColourLayer) and isinstance(now, ColourLayer):
        was, becomes = _mixed_colour(last.now, now.now), _mixed_colour(last.becomes, now.becomes)
        return replace(now, now=was, becomes=becomes, alpha=alpha)
    if isinstance(last, MovedLayer) and isinstance(now, MovedLayer):
        cut = now.cut
        if cut is not None and last.cut is not None:
            cut = cut.mixed(last.cut, KEPT * _alike(last.cut.lips, cut.lips))
        return replace(now, movement=_between(last.movement, now.movement, KEPT), alpha=alpha, cut=cut)
    return now


def _alike(last: Lips, now: Lips) -> float:
    """How far lips are as far apart as in the last frame, in [0, 1]."""
    gaps = [float(np.subtract(*each.edges(np.array(sum(each.ends) / 2))[1::-1])) for each in (last, now)]
    return math.exp(-(((gaps[1] - gaps[0]) / TREMBLE) ** 2))


def _mixed_colour(last: Colour, now: Colour) -> Colour:
    mean, deviation = (
        tuple(_between(np.array(before), np.array(after), KEPT_COLOURS).tolist())
        for before, after in ((last.mean, now.mean), (last.deviation, now.deviation))
    )
    return Colour(mean, deviation)


def _between(last: np.ndarray, now: np.ndarray, kept: float) -> np.ndarray:
    return now + kept * (last - now)
