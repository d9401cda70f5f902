"""What the pipelines share that make pictures: a result, and what is told of the work as it goes on."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature

from gptface.modeling_gptface.generation_gptface import Captions, GPTFaceForGuidedGeneration
from gptface.processing.processing_gptface import GPTFaceProcessor

from .face_pipeline import BatchedPipeline

OutputType = Literal["pil", "np", "pt"]
#: Parameters of a call about what is seen of it while it goes on.
WATCHING = ("callback_on_step_end", "callback_on_step_end_tensor_inputs", "progress_bar")
#: What a callback can be given: codes [B, N] and mask [B, N] of all candidates of the batch, and their pictures so
#: far.
CALLBACK_INPUTS = ("codes", "mask", "images")


class GeneratedPictures(list):
    """A list of results, each a dict, or of such lists; `images` are the pictures of all of them."""

    @property
    def images(self) -> list[Any]:
        found = []
        for each in self:
            if isinstance(each, GeneratedPictures):
                found += each.images
            elif "image" in each:  # not where there is an error
                found.append(each["image"])
        return found


def as_output_type(image: Image.Image, output_type: OutputType) -> Any:
    """
    A picture as it was asked for: `"pil"`, `"np"` (float32 [H, W, C] in [0, 1]) or `"pt"` (float32 [C, H, W] in [0,
    1]).

    Raises:
        ValueError: another type.
    """
    if output_type == "pil":
        return image
    pixels = np.asarray(image, np.float32) / 255
    if output_type == "np":
        return pixels
    if output_type == "pt":
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
    raise ValueError(f'output_type must be "pil", "np" or "pt", got {output_type!r}')


def encode_prompt(processor: GPTFaceProcessor, name: str, text: str) -> BatchFeature:
    """
    One text → its `input_ids` and `attention_mask` [1, T]; warns where it is cut.

    Args:
        name: how messages call the text, such as `"prompt"`.

    Raises:
        ValueError: what is no text, not valid Unicode, or holds no word that the checkpoint knows.
    """
    tokenizer = processor.tokenizer
    if not isinstance(text, str):
        raise ValueError(f"{name} must be a text, got {text!r}")
    shown = repr(text if len(text) <= 80 else text[:79] + "…")
    try:
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    except (TypeError, UnicodeError) as error:  # a lone surrogate
        raise ValueError(f"{name} {shown} is not valid Unicode") from error
    if text.strip() and not set(ids) - {tokenizer.unk_token_id}:
        raise ValueError(f"{name} {shown} has no word that this checkpoint knows: describe the face in plain English")
    room = tokenizer.model_max_length - tokenizer.num_special_tokens_to_add()
    if len(ids) > room:
        warnings.warn(
            f"{name} has {len(ids)} tokens and this checkpoint reads {room}: the rest is ignored", stacklevel=2
        )
    return processor(text=[text])


class PictureGeneration(BatchedPipeline):
    """
    Base of the pipelines that make pictures, with the habits of diffusers' pipelines.

    Args: Parameters of a call
        callback_on_step_end: called with (pipeline, step, timestep, tensors) after each decoding step, `timestep`
            counting down to 0; codes or masks in the dict that it gives back, if any, are those with which decoding
            goes on.
        callback_on_step_end_tensor_inputs: what it is given, names out of `CALLBACK_INPUTS`; `codes` and `mask` by
            default.
        progress_bar: whether there is a bar of the steps, see [`set_progress_bar_config`].
    """

    model: GPTFaceForGuidedGeneration
    candidates = "num_images_per_prompt"

    _progress_bar_config: Mapping[str, Any] = {"disable": True}

    def set_progress_bar_config(self, **options: Any) -> Self:
        """
        How the bar of the decoding steps looks, in parameters of `tqdm`; with any of them there is one, unless
        `disable=True`.

        ```python
        pipe.set_progress_bar_config(leave=False)
        ```
        """
        self._progress_bar_config = {"disable": False, **options}
        return self

    def collect(self, results: list[Any]) -> list[Any]:
        return GeneratedPictures(results)

    def watching(
        self,
        callback_on_step_end: Callable[..., Any] | None = None,
        callback_on_step_end_tensor_inputs: Any = ("codes", "mask"),
        progress_bar: bool | None = None,
    ) -> dict[str, Any]:
        """
        Parameters of a call → those of `generate`.

        Raises:
            ValueError: a callback that asks for what there is not.
        """
        shown = dict(self._progress_bar_config)
        if progress_bar is not None:
            shown["disable"] = not progress_bar
        unknown = sorted(set(callback_on_step_end_tensor_inputs) - set(CALLBACK_INPUTS))
        if unknown:
            raise ValueError(f"callback_on_step_end_tensor_inputs can be {list(CALLBACK_INPUTS)}, not {unknown}")
        if callback_on_step_end is None:
            return {"progress_bar": shown}

        def on_step_end(model: Any, step: int, timestep: int, state: dict[str, torch.Tensor]) -> Any:
            given: dict[str, Any] = dict(state)
            if "images" in callback_on_step_end_tensor_inputs:  # decoded for nobody else
                tokenizer, codes = model.image_tokenizer, state["codes"]
                decode = tokenizer.decode_plan if model.config.is_plan(codes.shape[1]) else tokenizer.decode
                given["images"] = self.processor.pixels_to_pil(decode(codes))
            asked = {name: given[name] for name in callback_on_step_end_tensor_inputs}
            return callback_on_step_end(self, step, timestep, asked)

        return {"progress_bar": shown, "callback_on_step_end": on_step_end}

    def caption_arguments(
        self, captions: Sequence[Mapping[str, Captions]], counts: Sequence[int]
    ) -> dict[str, torch.Tensor | None]:
        """
        Captions of several inputs as arguments of `generate`, each repeated for so many candidates.

        Args:
            captions: of each input, all by the same names: `""` for the prompt, `"negative"`, `"source"`.
        """
        arguments: dict[str, torch.Tensor | None] = {}
        repeats = torch.tensor(counts, device=self.device)
        for name in captions[0]:
            stacked = Captions.stack([each[name] for each in captions], self.model.config.pad_token_id or 0)
            for key, rows in stacked.arguments().items():
                repeated = None if rows is None else rows.to(self.device).repeat_interleave(repeats, 0)
                arguments[f"{name}_{key}" if name else key] = repeated
        return arguments
