"""The image processor: an aligned face picture → `pixel_values` in [-1, 1], with PIL and numpy alone."""

import warnings
from typing import Any

import numpy as np
from PIL import Image
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import ImageInput, PILImageResampling

from gptface.modeling_gptface.saved_code import SavesCode

#: Most pixels on a side: a few bytes of JSON from an unknown folder must not fill the memory.
LARGEST_SIDE = 2048


class GPTFaceImageProcessor(SavesCode, PilBackend):
    """
    Resizes to a square (bicubic), rescales and normalises to [-1, 1]; RGB. It neither finds nor aligns faces: the
    pipelines do.

    Warns of pictures that are not of the size of its crops.

    Raises:
        ValueError: a size of more than `LARGEST_SIDE` pixels on a side.

    Example:

    ```python
    >>> from PIL import Image
    >>> black = GPTFaceImageProcessor()(Image.new("RGB", (128, 128)), return_tensors="pt")["pixel_values"]
    >>> black.shape, black.min().item()
    (torch.Size([1, 3, 128, 128]), -1.0)

    ```
    """

    resample = PILImageResampling.BICUBIC
    image_mean = [0.5, 0.5, 0.5]
    image_std = [0.5, 0.5, 0.5]
    size = {"height": 128, "width": 128}
    default_to_square = True
    do_resize = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True
    model_input_names = ["pixel_values"]

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        for name in ("size", "crop_size", "pad_size"):
            sides = [side for side in dict(getattr(self, name) or {}).values() if side is not None]
            if any(side > LARGEST_SIDE for side in sides):
                raise ValueError(f"{name} asks for {max(sides)} pixels on a side: {LARGEST_SIDE} is the most")

    def process_image(self, image: ImageInput, *args: Any, **kwargs: Any) -> np.ndarray:
        if (
            isinstance(image, Image.Image)
            and self.do_resize
            and image.size != (self.size["width"], self.size["height"])
        ):
            warnings.warn(
                "a picture is resized as if it were an aligned face crop: for photos use GPTFace pipelines, such as "
                'pipeline("face-classification"), which find and align the faces',
                stacklevel=2,
            )
        return super().process_image(image, *args, **kwargs)
