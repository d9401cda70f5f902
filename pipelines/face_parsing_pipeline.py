"""`pipeline("face-parsing")`: a photo → masks of what its faces show."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from gptface.processing.face_parsing import FaceParsing

from .face_pipeline import FACES_AT_ONCE, FacePipeline, PipelineInput, split_parameters

#: Of one photo, with `face="all"`: each class of each face has a mask of the photo's size.
MAX_MASK_BYTES = 4 * 2**30


class FaceParsingPipeline(FacePipeline):
    """
    Tells skin, hair, eyeglasses and the rest of a face apart.

    ```python
    parse = pipeline("face-parsing")
    parse("portrait.jpg")  # [{"label": "skin", "mask": <PIL picture of the photo's size>, "score": 0.97}, …]
    ```

    Args: Parameters of a call
        face: `"largest"`, `"all"` or an index; aligned, landmarks: see [`FacePipeline.find_faces`].

    Returns for one image the classes that it shows, largest first, in the format of transformers' image segmentation:
    `label`, `mask` (mode `"L"`, 255 where the class is the likeliest; nothing further from the face than half a crop
    is looked at) and `score`, the mean probability there. With `face="all"` a list of such lists, one for each face.
    For a list of images a list of these.
    """

    required_parts = ("gptface.face_parser.",)

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.require_face_parser()

    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        return split_parameters(kwargs, ("face", "aligned", "landmarks"), (), ("face",))  # type: ignore[return-value]

    def preprocess(self, source: PipelineInput, **find: Any) -> dict[str, Any]:
        photo = self.load(source)
        return {"photo": photo, "faces": self.find_faces(photo, **find)}

    def _forward(self, states: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for state in states:
            self._check_masks(state["photo"], len(state["faces"]))
        faces = [(state["photo"], face.matrix) for state in states for face in state["faces"]]
        segments = self._segments_of(faces)
        return [{"segments": [next(segments) for _ in state["faces"]]} for state in states]

    def postprocess(self, outputs: dict[str, Any], face: str | int = "largest") -> list[Any]:
        return outputs["segments"] if face == "all" else outputs["segments"][0]

    def _check_masks(self, photo: Image.Image, faces: int) -> None:
        """Raises `ValueError` where there are so many faces in so large a photo that their masks would not fit."""
        needed = faces * photo.width * photo.height * len(self.require_face_parser().config.class_names)
        if faces > 1 and needed > MAX_MASK_BYTES:
            raise ValueError(
                f"{faces} faces in {photo.width}×{photo.height} pixels have masks of up to {needed / 2**30:.0f} GiB: "
                "take one after the other by its index, face=0 and so on, or a smaller photo"
            )

    def _segments_of(self, faces: Sequence[tuple[Image.Image, Any]]) -> Iterator[list[dict[str, Any]]]:
        # what the network says of a face takes as much room as a photo: of few at a time
        for start in range(0, len(faces), FACES_AT_ONCE):
            part = faces[start : start + FACES_AT_ONCE]
            for (photo, _), parsing in zip(part, self.parse_faces(part), strict=True):
                yield _segments(parsing, photo.size)


def _segments(parsing: FaceParsing, size: tuple[int, int]) -> list[dict[str, Any]]:
    """The classes of a photo of `size`, largest first."""
    classes, frame = parsing.photo_classes(size), parsing.classes()
    counts = np.bincount(classes[classes >= 0], minlength=len(parsing.labels))
    segments = []
    for index in sorted(np.flatnonzero(counts), key=lambda each: -counts[each]):
        mask = Image.fromarray(np.where(classes == index, 255, 0).astype(np.uint8))
        score = float(parsing.probabilities[index][frame == index].mean())
        segments.append({"label": parsing.labels[index], "mask": mask, "score": score})
    return segments
