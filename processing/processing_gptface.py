"""The joint processor: captions and aligned faces in, model inputs out; codes and pixels back to PIL."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature, ProcessorMixin
from transformers.image_utils import ImageInput
from transformers.processing_utils import ProcessingKwargs

from gptface.modeling_gptface.saved_code import SavesCode


class GPTFaceProcessorKwargs(ProcessingKwargs, total=False):
    """What a call may say, and what holds where it says nothing."""

    _defaults = {  # type: ignore[misc]
        "text_kwargs": {"padding": True, "truncation": True},
        "common_kwargs": {"return_tensors": "pt"},
    }


class GPTFaceProcessor(SavesCode, ProcessorMixin):
    """
    Joins [`GPTFaceImageProcessor`] and [`GPTFaceTokenizer`].

    Args:
        image_processor (`GPTFaceImageProcessor`): pictures → `pixel_values`.
        tokenizer (`GPTFaceTokenizer`): captions → `input_ids`, `attention_mask`.

    Example:

    ```python
    >>> from PIL import Image
    >>> processor = GPTFaceProcessor.from_pretrained(DEFAULT_CHECKPOINT)
    >>> inputs = processor(images=Image.new("RGB", (128, 128)), text=["a smiling woman"])
    >>> sorted(inputs), inputs["pixel_values"].shape
    (['attention_mask', 'input_ids', 'pixel_values'], torch.Size([1, 3, 128, 128]))
    >>> processor.pixels_to_pil(inputs["pixel_values"])[0].size
    (128, 128)

    ```
    """

    valid_processor_kwargs = GPTFaceProcessorKwargs

    def __init__(self, image_processor=None, tokenizer=None, **kwargs):
        super().__init__(image_processor, tokenizer, **kwargs)

    def __call__(
        self, images: ImageInput | None = None, text: str | Sequence[str] | None = None, **kwargs
    ) -> BatchFeature:
        """
        Aligned faces and captions → `pixel_values` [B, 3, H, W], `input_ids` and `attention_mask` [B, T].

        Captions are padded to the longest and cut at the tokenizer's `model_max_length`, unless `padding` and
        `truncation` say otherwise.

        Raises:
            ValueError: where neither is given.
        """
        if images is None and text is None:
            raise ValueError("give images, text or both")
        return super().__call__(images=images, text=text, **kwargs)

    def pixels_to_pil(self, pixel_values: torch.Tensor) -> list[Image.Image]:
        """
        Pixels [B, 3, H, W] in [-1, 1] → RGB pictures.

        Raises:
            FloatingPointError: where there is a NaN or infinity, which would become a plausible grey or black.
        """
        if not torch.isfinite(pixel_values).all():
            raise FloatingPointError("pixel_values are not finite: no picture can be made of them")
        array = pixel_values.detach().float().clamp(-1, 1).add(1).mul(127.5).round().byte()
        return [Image.fromarray(np.asarray(picture)) for picture in array.permute(0, 2, 3, 1).cpu()]

    @torch.no_grad()
    def decode_codes(self, codes: torch.Tensor, image_tokenizer) -> list[Image.Image]:
        """Codes [B, N] → RGB pictures, through the `image_tokenizer` of a model (its `decode`)."""
        return self.pixels_to_pil(image_tokenizer.decode(codes))
