"""What the pipelines share: inputs of any kind stream through in batches, and one that fails stops no other; of photos
the faces are found and aligned.
"""

import operator
import os
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, Literal, Self

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from transformers import Pipeline
from transformers.pipelines.pt_utils import PipelineDataset, PipelineIterator

from gptface.modeling_gptface.face_parser_gptface import GPTFaceParser
from gptface.modeling_gptface.heads_gptface import GPTFaceTaskModel
from gptface.processing.alignment import align, check_landmarks, compose, crop_matrix, face_width, scaling
from gptface.processing.detection import default_detector, select_faces
from gptface.processing.face_parsing import FaceParsing, parse_all
from gptface.processing.image_loading import ImageInputError, label_of, load_image, to_rgb
from gptface.processing.processing_gptface import GPTFaceProcessor

OnError = Literal["raise", "return"]
NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})
#: Parameters of a call that go on to `generate` or `generate_text` as they are.
DECODING = ("num_inference_steps", "temperature", "decoding", "top_k", "guidance_scale", "itm_guidance")
#: Parameters that say which of all results is drawn.
SEEDING = ("seed", "generator")
#: Candidates are one batch of the model: the memory for more than these is not to be had.
MAX_CANDIDATES = 256
#: Pixels on a side below which a picture shows no face that could be edited or judged.
MIN_SIDE = 16
#: Pixels from cheek to cheek below which a face is so coarse that what the model says of it means little.
FEW_PIXELS = 32
#: Faces that one network sees at once: a photo of a crowd must not take all of the memory.
FACES_AT_ONCE = 32


def split_parameters(given: Mapping[str, Any], *stages: Collection[str]) -> tuple[dict[str, Any], ...]:
    """
    The parameters of a call → those of each stage, whose names are given; one that is None is left to its default.

    Raises:
        TypeError: a name that is none of them.
    """
    unknown = set(given) - {name for stage in stages for name in stage}
    if unknown:
        raise TypeError(f"unknown parameters {sorted(unknown)}")
    return tuple({name: given[name] for name in stage if given.get(name) is not None} for stage in stages)


def candidate_seeds(seed: int | None, generator: Any, count: int) -> list[int]:
    """
    Seeds of the candidates: candidate j uses seed + j; without a seed it is drawn from the generator, or fresh. A list
    of generators gives each candidate a seed of its own.

    Raises:
        ValueError: both a seed and a generator, a seed that is no whole number or has more than 63 bits, or as many
            generators as there are no candidates.
    """
    if seed is not None and generator is not None:
        raise ValueError("give seed or generator, not both")
    if isinstance(generator, list | tuple):
        if len(generator) != count:
            raise ValueError(
                f"{len(generator)} generators for {count} candidates: give one, or one for each candidate"
            )
        return [_drawn_seed(each) for each in generator]
    if seed is None:
        seed = _drawn_seed(generator)
    try:
        first = operator.index(seed)
    except TypeError:
        raise ValueError(f"seed must be a whole number, got {seed!r}") from None
    if not -(2**63) <= first <= 2**63 - count:
        raise ValueError(f"seed must lie within 63 bits, -2**63…2**63 - {count} for {count} candidates, got {seed}")
    return [first + index for index in range(count)]


def _drawn_seed(generator: Any) -> int:
    if generator is not None and not isinstance(generator, torch.Generator):
        raise ValueError(f"generator must be a torch.Generator or a list of them, got {generator!r}")
    device = "cpu" if generator is None else generator.device
    return int(torch.randint(2**31, (1,), generator=generator, device=device))


def checked_count(name: str, count: Any) -> int:
    """
    How many candidates are drawn at once.

    Raises:
        ValueError: no whole number from 1 to `MAX_CANDIDATES`.
    """
    try:
        number = operator.index(count)
    except TypeError:
        number = 0
    if not 1 <= number <= MAX_CANDIDATES:
        raise ValueError(
            f"{name} must be at least 1 and at most {MAX_CANDIDATES}, a whole number, got {count!r}: "
            "all are drawn at once; for more call again with another seed"
        )
    return number


@dataclass(frozen=True)
class PipelineInput:
    """
    One input of a call.

    Args:
        value: the picture or prompt.
        name: how messages call it, such as `"image 3"`; None where it is the only one.
        options: parameters of the call that are its own.
        on_error: what becomes of an error.
        error: why it could not be read, in the place of its value.
    """

    value: Any
    name: str | None = None
    options: Mapping[str, Any] = field(default_factory=lambda: NO_OPTIONS)
    on_error: OnError = "raise"
    error: Exception | None = None


class _InputDataset(Dataset):
    """A collection of pictures or rows as one of inputs, each read when its turn comes."""

    def __init__(self, values: Any, make: Callable[[int, Any], PipelineInput], on_error: OnError):
        self.values, self.make, self.on_error = values, make, on_error

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> PipelineInput:
        try:
            return self.make(index, self.values[index])
        except Exception as error:  # whatever a broken row of somebody's data set raises
            return PipelineInput(None, f"input {index}", on_error=self.on_error, error=error)


class _OnItsWay:
    """An input between two stages of a pipeline: what the last one made of it, or what went wrong."""

    def __init__(self, source: PipelineInput):
        self.source = source
        self.state: Any = source
        self.forward_options: dict[str, Any] = {}
        self.error: str | None = None

    def go(self, stage: Callable[[Any], Any]) -> None:
        """On to the next stage, unless something has gone wrong before."""
        if self.error is None:
            try:
                self.state = stage(self.state)
            except Exception as error:  # any error of one input is that input's alone
                self.fail(error)

    def fail(self, error: Exception) -> None:
        """Notes an error; raises it, with the name of the input, where the user did not ask for it as a result."""
        name, message = self.source.name, str(error)
        named = message if name is None or name in message else f"{name}: {message}"
        if self.source.on_error == "return":
            self.state, self.error = None, named or type(error).__name__
            return
        if named != message:
            if error.args == (message,):
                error.args = (named,)
            else:
                error.add_note(f"of {name}")
        raise error

    @property
    def result(self) -> Any:
        return self.state if self.error is None else {"error": self.error}


class ResultStream:
    """The results of a stream of inputs, one after the other, computed in batches when they are asked for."""

    def __init__(self, batches: DataLoader, run: Callable[[list[_OnItsWay]], Iterator[Any]], length: int | None):
        self._batches, self._run, self._length = batches, run, length

    def __iter__(self) -> Iterator[Any]:
        for batch in self._batches:
            yield from self._run(batch)

    def __len__(self) -> int:
        if self._length is None:
            raise TypeError("the results of a generator have no length: it is not known how many inputs it gives")
        return self._length


class BatchedPipeline(Pipeline):
    """
    Base of the pipelines. Takes one input, a list, a generator, a `KeyDataset` or `datasets.Dataset`, one of its
    columns, or rows (`{"image": …, "prompt": …}`); `batch_size` of them go through the model at once. A list gives a
    list; a generator or data set is read as its results are asked for.

    An input that fails raises an error that names it; with `on_error="return"` its place in the result holds
    `{"error": message}` and the others go on.

    `preprocess(input, …)` takes one [`PipelineInput`], `_forward(states, …)` a list of what that gave, and
    `postprocess(state, …)` one of what that gave.
    """

    model: GPTFaceTaskModel
    processor: GPTFaceProcessor

    # The base class declares them as None where it means a bool.
    _load_processor = True  # type: ignore[assignment]
    _load_image_processor = _load_feature_extractor = _load_tokenizer = False  # type: ignore[assignment]

    #: What an input is called, in messages and in rows.
    input_name = "image"
    #: Parameters that may be given once for each input, in a list or in rows.
    per_input: tuple[str, ...] = ()
    #: The parameter that says how many candidates are drawn of an input; None where nothing is drawn. Then states have
    #: `seeds`.
    candidates: str | None = None
    #: Parts of the model that give a result; the heads say in the configuration whether they are trained.
    required_parts: tuple[str, ...] = ("gptface.",)

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if not isinstance(self.model, GPTFaceTaskModel):
            raise ValueError(f"this pipeline needs a GPTFace checkpoint, not one of a {type(self.model).__name__}")
        missing = sorted(name for name in self.model.missing_weights if name.startswith(self.required_parts))
        if missing:
            raise ValueError(
                f"the checkpoint lacks {len(missing)} weights that this pipeline needs, {missing[0]} the first: "
                "it was saved by a class without them, or is not complete"
            )
        self.model.eval()  # one that was being trained would drop out at random

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """
        Saves model and processor, so that `pipeline(task, model=save_directory)` opens the folder again.

        Args:
            kwargs: of `save_pretrained` of both.
        """
        self.processor.save_pretrained(save_directory, **kwargs)
        self.model.save_pretrained(save_directory, **kwargs)

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Moves the model to a device or a dtype, as `torch.nn.Module.to` does, and gives the pipeline back."""
        self.model.to(*args, **kwargs)
        self.device = self.model.device
        return self

    def __call__(self, inputs: Any, on_error: OnError = "raise", **kwargs: Any) -> Any:
        if on_error not in ("raise", "return"):
            raise ValueError(f'on_error must be "raise" or "return", got {on_error!r}')
        if not _is_collection(inputs):
            return super().__call__(self._input(None, inputs, NO_OPTIONS, on_error), **kwargs)
        length = len(inputs) if isinstance(inputs, Sized) else None
        spread = {name: kwargs.pop(name) for name in self.per_input if _is_for_each(name, kwargs.get(name))}
        if isinstance(spread.get("generator"), list | tuple) and length:
            spread["generator"] = self._share(spread["generator"], length, kwargs)
        for name, values in spread.items():
            if length is None:
                raise ValueError(f'how many inputs there are is not known: give {name} in rows, {{"{name}": …}}')
            if len(values) != length:
                raise ValueError(
                    f"{name} has {len(values)} entries for {length} {self.input_name}s: give one, or one for each "
                    f"{self.input_name}"
                )

        def make(index: int, value: Any) -> PipelineInput:
            return self._input(index, value, {name: values[index] for name, values in spread.items()}, on_error)

        if isinstance(inputs, list | tuple):
            made = [make(index, value) for index, value in enumerate(inputs)]
            return self.collect(super().__call__(made, **kwargs)) if made else self.collect([])
        if length is not None and hasattr(inputs, "__getitem__"):
            return super().__call__(_InputDataset(inputs, make, on_error), **kwargs)
        return super().__call__((make(index, value) for index, value in enumerate(inputs)), **kwargs)

    def collect(self, results: list[Any]) -> list[Any]:
        """The results of a list of inputs as they are given to the user."""
        return results

    def _input(self, index: int | None, value: Any, options: Mapping[str, Any], on_error: OnError) -> PipelineInput:
        """
        One input, or a row of a data set: its other columns count where they are parameters that each input may have.
        """
        name = None if index is None else f"{self.input_name} {index}"
        if isinstance(value, Mapping) and self.input_name in value:
            own = {name: value[name] for name in self.per_input if value.get(name) is not None}
            options, value = {**options, **own}, value[self.input_name]
        return PipelineInput(value, name, options, on_error)

    def _share(self, generators: Any, length: int, kwargs: dict[str, Any]) -> list[Any]:
        """A list of generators, one for each candidate of each input → the list of each input."""
        count = kwargs.get(self.candidates or "") or self._forward_params.get(self.candidates, 1)
        if len(generators) != length * count:
            raise ValueError(
                f"{len(generators)} generators for {length} {self.input_name}s with {count} candidates each: "
                "give one, or one for each candidate"
            )
        return [generators[start : start + count] for start in range(0, length * count, count)]

    def run_single(
        self,
        inputs: PipelineInput,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> Any:
        prepared = self._prepare(inputs, preprocess_params)
        return next(self._run(forward_params, postprocess_params, [prepared]))

    def get_iterator(
        self,
        inputs: Iterable[PipelineInput],
        num_workers: int,
        batch_size: int,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> ResultStream:
        prepare, options = self._prepare, {"preprocess_params": preprocess_params}
        length = len(inputs) if isinstance(inputs, Sized) else None
        if length is None:
            prepared: Any = PipelineIterator(inputs, prepare, options)
            num_workers = min(num_workers, 1)  # several would each read all of the stream
        else:
            prepared = PipelineDataset(inputs, prepare, options)
        if num_workers:
            os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads do not survive the fork of a worker
        batches = DataLoader(
            prepared,
            batch_size=batch_size,
            num_workers=num_workers,
            collate_fn=list,
            generator=torch.Generator(),  # not the global one: who seeded that gets what a single input would give
        )
        return ResultStream(batches, partial(self._run, forward_params, postprocess_params), length)

    def _prepare(self, source: PipelineInput, preprocess_params: dict[str, Any]) -> _OnItsWay:
        """The first stage, with the parameters that are the input's own."""
        item = _OnItsWay(source)

        def prepared(_: Any) -> Any:
            if source.error is not None:
                raise source.error
            own, item.forward_options, _ = self._sanitize_parameters(**source.options)
            return self.preprocess(source, **{**preprocess_params, **own})

        item.go(prepared)
        return item

    def _run(
        self, forward_params: dict[str, Any], postprocess_params: dict[str, Any], batch: list[_OnItsWay]
    ) -> Iterator[Any]:
        """The other stages → the results of a batch."""
        forward_params = dict(forward_params)
        if self.candidates is not None:
            drawing = {name: forward_params.pop(name, None) for name in ("seed", "generator")}
            count = forward_params.pop(self.candidates, 1)
            for item in batch:  # in their order and once, whatever fails later
                item.go(partial(self._seeded, count=count, **{**drawing, **item.forward_options}))
        going = [item for item in batch if item.error is None]
        try:
            states = self.forward([item.state for item in going], **forward_params) if going else []
            for item, state in zip(going, states, strict=True):
                item.state = state
        except Exception as error:
            if len(going) == 1:
                going[0].fail(error)
            else:  # one by one: it need not be the fault of all
                for item in going:
                    item.go(lambda state: self.forward([state], **forward_params)[0])
        for item in batch:
            item.go(lambda state: self.postprocess(state, **postprocess_params))
            yield item.result

    def _seeded(self, state: dict[str, Any], count: int, seed: Any, generator: Any) -> dict[str, Any]:
        """A state with the seeds of its candidates."""
        count = checked_count(str(self.candidates), count)
        return {**state, "seeds": candidate_seeds(seed, generator, count)}

    def require_head(self, name: str) -> None:
        """Raises `ValueError` where the model's head `name` is not trained: no result comes from random weights."""
        head = self.model.config.heads.get(name)
        if not head or not head.get("trained"):
            trained = [key for key, value in self.model.config.heads.items() if value.get("trained")]
            raise ValueError(
                f"the head {name!r} of this checkpoint is not trained; trained heads: {trained}. Fine-tune it first."
            )


def _is_collection(value: Any) -> bool:
    """Whether a value holds several inputs; an array or tensor is one picture, a string one path or prompt."""
    if isinstance(value, str | bytes | bytearray | memoryview | os.PathLike | Mapping | Image.Image):
        return False
    if isinstance(value, np.ndarray | torch.Tensor) or hasattr(value, "read"):
        return False
    return isinstance(value, Iterable) or (isinstance(value, Sized) and hasattr(value, "__getitem__"))


def _is_for_each(name: str, value: Any) -> bool:
    """Whether a parameter was given once for each input."""
    if not isinstance(value, list | tuple):
        return False
    return name != "landmarks" or not all(np.ndim(each) == 1 for each in value)  # five points are one set for all


@dataclass
class AlignedFace:
    """
    One face of a photo.

    Args:
        crop: the aligned RGB crop of the model's size.
        matrix: [2, 3] from photo to crop; None where the photo was the crop already.
        box: (left, top, right, bottom) in pixels of the photo; None where the face was not detected.
        landmarks: [5, 2] in pixels of the photo; None where they are not known.
    """

    crop: Image.Image
    matrix: np.ndarray | None
    box: tuple[float, float, float, float] | None
    landmarks: np.ndarray | None = None


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
            aligned_faces.append(AlignedFace(align(photo, matrix, size), matrix, box, points))
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
            scaling(size / photo.width, size / photo.height) if matrix is None else compose(matrix, scaling(factor))
            for photo, matrix in faces
        ]

        @torch.no_grad()
        def predict(crops: Sequence[Image.Image]) -> np.ndarray:
            pixels = torch.from_numpy(np.stack([np.asarray(crop) for crop in crops])).to(parser.device, parser.dtype)
            parts = (pixels.permute(0, 3, 1, 2) / 127.5 - 1).split(FACES_AT_ONCE)
            return np.concatenate([parser.probabilities(part).cpu().numpy() for part in parts])

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
