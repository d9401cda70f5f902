"""A photo as a phone takes it, end to end: read the file, find the face, align it, classify it."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from gptface import DEFAULT_CHECKPOINT, GPTFaceForImageClassification, GPTFaceImageProcessor, GPTFaceProcessor
from gptface.pipelines.face_classification import FaceClassificationPipeline
from gptface.processing.detection import default_detector
from gptface.processing.image_loading import load_image

from .classifier import LABELS
from .models import TINY, Size, gptface
from .timing import Claim, Comparison, Contender

PORTRAIT = Path(__file__).parents[2] / "examples" / "portrait.jpg"
#: Of a photo of 12 million pixels, and of one that tests take.
SIDES, TINY_SIDES = (4000, 3000), (640, 480)
HEAD = "attributes"


def comparisons(size: Size, mask_ratio: float = 0.15) -> Iterator[Comparison]:
    """With the pixel reader, with the image tokenizer in front, and as far as the face is found."""
    sides = TINY_SIDES if size == TINY else SIDES
    photo = jpeg_photo(sides)
    head = {"labels": [f"attribute {index}" for index in range(LABELS)], "problem_type": "multi_label_classification"}
    head |= {"trained": True}
    reader = classifier(size, heads={HEAD: {**head, "input": "pixels"}}, image_reader={})
    codes = classifier(size, heads={HEAD: head})
    model = reader.model
    yield Comparison(
        f"JPEG of {sides[0]}×{sides[1]}",
        [
            Contender(
                "GPTFace, pixel reader",
                _classify(reader, photo),
                [model.gptface.pixel_reader, model.gptface.layers, model.classifiers],
                flops=False,
            ),
            Contender("GPTFace, tokenization included", _classify(codes, photo)),
            Contender("reading and finding alone", lambda: default_detector().detect(load_image(photo))),
        ],
        [Claim("GPTFace, tokenization included", "photos", 1, 1)],
        ["the first is to take at most 120 ms on two cores"],
    )


def jpeg_photo(sides: tuple[int, int]) -> bytes:
    """The example portrait, as high as the photo, in the middle of a grey photo of this size; encoded."""
    with Image.open(PORTRAIT) as opened:
        portrait = opened.convert("RGB")
    portrait = portrait.resize((round(portrait.width * sides[1] / portrait.height), sides[1]))
    photo = Image.new("RGB", sides, (110, 115, 120))
    photo.paste(portrait, ((sides[0] - portrait.width) // 2, 0))
    data = io.BytesIO()
    photo.save(data, "JPEG", quality=92)
    return data.getvalue()


def classifier(size: Size, **overrides: Any) -> FaceClassificationPipeline:
    """The pipeline of a model with random weights."""
    model = gptface(size, GPTFaceForImageClassification, **overrides).eval()
    side = model.config.image_tokenizer_config.image_size
    tokenizer = GPTFaceProcessor.from_pretrained(DEFAULT_CHECKPOINT).tokenizer
    processor = GPTFaceProcessor(GPTFaceImageProcessor(size={"height": side, "width": side}), tokenizer)
    return FaceClassificationPipeline(model=model, processor=processor, head=HEAD)


def _classify(pipe: FaceClassificationPipeline, photo: bytes) -> Callable[[], Any]:
    return lambda: pipe(photo, top_k=1)
