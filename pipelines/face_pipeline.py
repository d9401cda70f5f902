"""What the face pipelines share: pictures in, aligned faces out, one bad input does not stop the others."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import Pipeline

from gptface.modeling_gptface.face_parser_gptface import GPTFaceParser
from gptface.modeling_gptface.guidance import GuidanceError
from gptface.modeling_gptface.task_model import GPTFaceTaskModel
from gptface.processing.alignment import align, compose, crop_matrix
from gptface.processing.detection import FaceNotFoundError, default_detector, select_faces
from gptface.processing.face_parsing import FaceParsing, parse
from gptface.processing.image_loading import ImageInputError, label_of, load_image, to_rgb
from gptface.processing.processing_gptface import GPTFaceProcessor

#: Pixels on a side below which a picture shows no face that could be edited or judged.
MIN_SIDE = 16


@dataclass
class AlignedFace:
    """
    One face of a photo.

    Args:
        crop: the aligned RGB crop of the model's size.
        matrix: [2, 3] from photo to crop; None where the photo was the crop already.
        box: (left, top, right, bottom) in pixels of the photo; None where the face was not detected.
    """

    crop: Image.Image
    matrix: np.ndarray | None
    box: tuple[float, float, float, float] | None


class FacePipeline(Pipeline):
    """
    Base of the pipelines. Takes one picture or a list (PIL, path, URL, bytes, array); finds and aligns the faces.

    A picture that fails raises an error that names it; with `on_error="return"` its place in the result holds
    `{"error": message}` and the others go on.
    """

    model: GPTFaceTaskModel
    processor: GPTFaceProcessor

    # The base class declares them as None where it means a bool.
    _load_processor = True  # type: ignore[assignment]
    _load_image_processor = _load_feature_extractor = _load_tokenizer = False  # type: ignore[assignment]

    # parameters that may be given once for each input of a list
    per_input: tuple[str, ...] = ("landmarks",)
    # parts of the model that give a result; the heads say in the configuration whether they are trained
    required_parts: tuple[str, ...] = ("gptface.",)

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if not isinstance(self.model, GPTFaceTaskModel):
            raise ValueError(f"this pipeline needs a GPTFace checkpoint, not one of a {type(self.model).__name__}")
        missing = sorted(name for name in self.model.missing_weights if name.startswith(self.required_parts))
        if missing:
            raise ValueError(
                f"the checkpoint lacks {len(missing)} weights that this pipeline needs, {missing[0]} the first: it was "
                "saved by a class without them, or is not complete"
            )

    def __call__(self, images: Any, on_error: str = "raise", **kwargs: Any) -> Any:
        if on_error not in ("raise", "return"):
            raise ValueError(f'on_error must be "raise" or "return", got {on_error!r}')
        if not isinstance(images, list | tuple):
            return self._call_one(images, None, on_error, kwargs)
        shared = {name: value for name, value in kwargs.items() if name not in self.per_input}
        spread = {name: self._spread(name, kwargs[name], len(images)) for name in self.per_input if name in kwargs}
        results = []
        for index, image in enumerate(images):
            own = {name: values[index] for name, values in spread.items()}
            results.append(self._call_one(image, index, on_error, {**shared, **own}))
        return results

    def _spread(self, name: str, value: Any, count: int) -> list[Any]:
        """One value for each input: a list must be as long as the inputs, anything else is repeated."""
        one_set = name == "landmarks" and np.ndim(value) == 2  # five points, not a list of them
        if one_set or not isinstance(value, list | tuple):
            return [value] * count
        if len(value) != count:
            raise ValueError(f"{name} has {len(value)} entries for {count} images: give one, or one for each image")
        return list(value)

    def _call_one(self, image: Any, index: int | None, on_error: str, kwargs: dict[str, Any]) -> Any:
        name = None if index is None else f"image {index}"
        try:
            return super().__call__({"image": image, "name": name}, **kwargs)
        except (ValueError, OSError, FloatingPointError, GuidanceError) as error:
            message = str(error) if name is None or name in str(error) else f"{name}: {error}"
            if on_error == "return":
                return {"error": message}
            if message != str(error):
                raise type(error)(message) from error
            raise

    @property
    def face_size(self) -> int:
        """Side of the model's crop in pixels."""
        return self.model.config.image_tokenizer_config.image_size

    def find_faces(
        self,
        photo: Image.Image,
        face: str | int = "largest",
        aligned: bool = False,
        landmarks: Any = None,
    ) -> list[AlignedFace]:
        """
        The faces of a photo, aligned.

        Args:
            face: `"largest"`, `"all"` or an index from 0, largest first.
            aligned: the photo is the crop already: it is only resized.
            landmarks: [5, 2] (or [faces, 5, 2]) in pixels instead of detection: the eyes, the nose, the mouth corners.

        Raises:
            FaceNotFoundError: where there is no such face.
        """
        size = self.face_size
        if aligned:
            crop = to_rgb(photo).resize((size, size), Image.Resampling.BICUBIC)
            return [AlignedFace(crop, None, None)]
        if landmarks is not None:
            points = np.asarray(landmarks, dtype=np.float64)
            located: list[tuple[np.ndarray, Any]] = [
                (each, None) for each in (points if points.ndim == 3 else points[None])
            ]
        else:
            faces = select_faces(default_detector().detect(photo), face)
            located = [(found.landmarks, found.box) for found in faces]
        aligned_faces = []
        for points, box in located:
            matrix = crop_matrix(points, size)
            aligned_faces.append(AlignedFace(align(photo, matrix, size), matrix, box))
        return aligned_faces

    def parse_face(self, photo: Image.Image, matrix: np.ndarray | None) -> FaceParsing:
        """
        What a face of a photo and its surroundings show, by the model's face parser.

        Args:
            matrix: [2, 3] from photo to crop, see [`AlignedFace`]; None where the photo is the crop already.

        Raises:
            ValueError: a model without a trained face parser.
            FloatingPointError: damaged weights.
        """
        parser = self.require_face_parser()
        size = parser.config.image_size
        if matrix is None:
            to_crop = np.array([[size / photo.width, 0.0, 0.0], [0.0, size / photo.height, 0.0]])
        else:
            factor = size / self.face_size
            to_crop = compose(matrix, np.array([[factor, 0.0, 0.0], [0.0, factor, 0.0]]))

        @torch.no_grad()
        def predict(crops: Sequence[Image.Image]) -> np.ndarray:
            pixels = torch.from_numpy(np.stack([np.asarray(crop) for crop in crops])).to(parser.device, parser.dtype)
            return parser.probabilities(pixels.permute(0, 3, 1, 2) / 127.5 - 1).cpu().numpy()

        return parse(photo, to_crop, predict, parser.config.class_names, size)

    @property
    def has_face_parser(self) -> bool:
        """Whether the model has a face parser that is trained."""
        missing = any(name.startswith("gptface.face_parser.") for name in self.model.missing_weights)
        return self.model.face_parser is not None and not missing

    def require_face_parser(self) -> GPTFaceParser:
        """The model's face parser; raises `ValueError` where it has none that is trained."""
        parser = self.model.face_parser
        if parser is None or not self.has_face_parser:
            raise ValueError(
                "this checkpoint has no face parser: train one (gptface train-parser) and put it in (gptface convert parser)"
            )
        return parser

    def load(self, inputs: dict[str, Any]) -> Image.Image:
        """
        Loads the picture of one input.

        Raises:
            ImageInputError: names the input; it is no picture, or too small to show a face.
        """
        image = load_image(inputs["image"], name=inputs["name"])
        if min(image.size) < MIN_SIDE:
            raise ImageInputError(
                f"{label_of(inputs['image'], inputs['name'])} has {image.width}×{image.height} pixels: a face needs at "
                f"least {MIN_SIDE} on a side"
            )
        return image

    def require_head(self, name: str) -> None:
        """Raises `ValueError` where the model's head `name` is not trained: no result comes from random weights."""
        head = self.model.config.heads.get(name)
        if not head or not head.get("trained"):
            trained = [key for key, value in self.model.config.heads.items() if value.get("trained")]
            raise ValueError(
                f"the head {name!r} of this checkpoint is not trained; trained heads: {trained}. Fine-tune it first."
            )


def as_list(value: Any) -> Sequence[Any]:
    """A list or tuple as it is, anything else as a list of one."""
    return value if isinstance(value, list | tuple) else [value]


__all__ = ["AlignedFace", "FaceNotFoundError", "FacePipeline", "as_list"]
