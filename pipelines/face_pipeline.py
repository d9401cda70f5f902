"""What the pipelines share that look at photos: pictures in, aligned faces out."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from gptface.modeling_gptface.face_parser_gptface import GPTFaceParser
from gptface.processing.alignment import align, check_landmarks, compose, crop_matrix, face_width
from gptface.processing.detection import FaceNotFoundError, default_detector, select_faces
from gptface.processing.face_parsing import FaceParsing, parse_all
from gptface.processing.image_loading import ImageInputError, label_of, load_image, to_rgb

from .batched_pipeline import BatchedPipeline, PipelineInput

#: Pixels on a side below which a picture shows no face that could be edited or judged.
MIN_SIDE = 16
#: Pixels from cheek to cheek below which a face is so coarse that what the model says of it means little.
FEW_PIXELS = 32


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


class FacePipeline(BatchedPipeline):
    """
    Base of the pipelines that look at photos. Takes one picture or several (PIL, path, URL, bytes, array, rows of a
    data set), see [`BatchedPipeline`]; finds and aligns the faces.
    """

    per_input: tuple[str, ...] = ("landmarks",)

    def __call__(self, images: Any = None, *, image: Any = None, **kwargs: Any) -> Any:
        if (images is None) == (image is None):
            raise TypeError("give a picture, or several: pipe(photo), pipe(image=photo) or pipe([photo, …])")
        return super().__call__(image if images is None else images, **kwargs)

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
            landmarks: [5, 2] (or [faces, 5, 2]), points (x, y) in pixels instead of detection: the eye on the left
                side of the upright picture (the person's right one), the other eye, the nose, the left and the right
                mouth corner.

        Warns of faces that are narrower than `FEW_PIXELS`.

        Raises:
            FaceNotFoundError: where there is no such face.
            ValueError: landmarks that are not those of a face, for example in another order.
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
            for each, _ in located:
                check_landmarks(each)
        else:
            faces = select_faces(default_detector().detect(photo, thorough=face != "largest"), face)
            located = [(found.landmarks, found.box) for found in faces]
        aligned_faces = []
        for points, box in located:
            matrix = crop_matrix(points, size)
            aligned_faces.append(AlignedFace(align(photo, matrix, size), matrix, box))
        narrowest = min(face_width(points) for points, _ in located)
        if narrowest < FEW_PIXELS:
            warnings.warn(
                f"a face is only {narrowest:.0f} pixels wide: below {FEW_PIXELS} pixels scores and edits mean little",
                stacklevel=2,
            )
        return aligned_faces

    def parse_face(self, photo: Image.Image, matrix: np.ndarray | None) -> FaceParsing:
        """What a face of a photo and its surroundings show; see [`parse_faces`]."""
        return self.parse_faces([(photo, matrix)])[0]

    def parse_faces(self, faces: Sequence[tuple[Image.Image, np.ndarray | None]]) -> list[FaceParsing]:
        """
        What faces and their surroundings show, by the model's face parser.

        Args:
            faces: of each the photo and the matrix [2, 3] from photo to crop, see [`AlignedFace`]; None where the
                photo is the crop already.

        Raises:
            ValueError: a model without a trained face parser.
            FloatingPointError: damaged weights.
        """
        parser = self.require_face_parser()
        size = parser.config.image_size
        factor = size / self.face_size
        to_crops = [
            np.array([[size / photo.width, 0.0, 0.0], [0.0, size / photo.height, 0.0]])
            if matrix is None
            else compose(matrix, np.array([[factor, 0.0, 0.0], [0.0, factor, 0.0]]))
            for photo, matrix in faces
        ]

        @torch.no_grad()
        def predict(crops: Sequence[Image.Image]) -> np.ndarray:
            pixels = torch.from_numpy(np.stack([np.asarray(crop) for crop in crops])).to(parser.device, parser.dtype)
            return parser.probabilities(pixels.permute(0, 3, 1, 2) / 127.5 - 1).cpu().numpy()

        photos = [photo for photo, _ in faces]
        return parse_all(photos, to_crops, predict, parser.config.class_names, size)

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
                "this checkpoint has no face parser: train one (gptface train-parser) and put it in "
                "(gptface convert parser)"
            )
        return parser

    def load(self, source: PipelineInput) -> Image.Image:
        """
        Loads the picture of one input.

        Raises:
            ImageInputError: names the input; it is no picture, or too small to show a face.
        """
        image = load_image(source.value, name=source.name)
        if min(image.size) < MIN_SIDE:
            raise ImageInputError(
                f"{label_of(source.value, source.name)} has {image.width}×{image.height} pixels: a face needs at "
                f"least {MIN_SIDE} on a side"
            )
        return image


def as_list(value: Any) -> Sequence[Any]:
    """A list or tuple as it is, anything else as a list of one."""
    return value if isinstance(value, list | tuple) else [value]


__all__ = ["AlignedFace", "FaceNotFoundError", "FacePipeline", "as_list"]
