"""`pipeline("face-parsing")`: a photo → masks of what its faces show."""

from typing import Any

import numpy as np
from PIL import Image

from gptface.processing.face_parsing import FaceParsing

from .face_pipeline import FacePipeline, PipelineInput, split_parameters


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
        faces = [(state["photo"], face.matrix) for state in states for face in state["faces"]]
        parsings = iter(self.parse_faces(faces))
        return [{"photo": state["photo"], "parsings": [next(parsings) for _ in state["faces"]]} for state in states]

    def postprocess(self, outputs: dict[str, Any], face: str | int = "largest") -> list[Any]:
        results = [_segments(parsing, outputs["photo"].size) for parsing in outputs["parsings"]]
        return results if face == "all" else results[0]


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
