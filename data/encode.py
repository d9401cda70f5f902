"""Data sets of aligned faces → image codes, once, so that pre-training reads codes instead of pixels.

The output is a folder of parquet parts that keep the order of the input. Each row holds the input's text, key and
columns with plain values, `source_row` (its number in its file), `codes` (uint16, raster order; `ABSENT` where a tight
picture has no pixels), unless turned off `codes_flipped` (those of the mirrored picture), of a tokenizer with a plan
also `plan_codes` and `plan_codes_flipped`, `grey` (whether the picture has no colour) and `lens_brightness` (which
tells dark glasses). The schema's metadata holds the fingerprints of the tokenizer and of its plan; readers refuse
codes of another, and pages that are not what was written. `manifest.json` says what the folder was made of: a run that
was stopped goes on behind the last whole part, one on other data or with other options does not.
"""

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from PIL import Image

from gptface.modeling_gptface.image_tokenizer_gptface import GPTFaceImageTokenizer
from gptface.processing.alignment import align, celeba_crop, crop_matrix
from gptface.processing.detection import default_detector
from gptface.processing.image_loading import load_image, to_rgb
from gptface.processing.whole_files import whole_file

from .claimed_folder import claimed_folder, read_json, write_json
from .detected_crops import crop_by_landmarks, find_landmarks
from .lenses import lens_brightness
from .refusals import refuse
from .sources import Sample, Source, content_hashes, name_of, read_samples

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

FINGERPRINT_KEY = b"gptface_tokenizer"
PLAN_FINGERPRINT_KEY = b"gptface_plan_fingerprint"
LEFT_OUT_KEY = b"gptface_left_out"
ROWS_PER_PART = 512
CODE_COLUMNS = ("codes", "codes_flipped")
PLAN_COLUMNS = ("plan_codes", "plan_codes_flipped")
#: What [`encode_columns`] measures of each crop.
MEASURED_COLUMNS = ("grey", "lens_brightness")
#: In the place of the code of a cell that has no pixels of the picture.
ABSENT = 65535
#: A picture has no colour whose channels differ by less than this on average, of 255.
LEAST_COLOUR = 3.0


# Median landmarks that the face detector finds in these sets, in their pixels: eyes, nose, mouth corners. Their
# pictures are aligned only roughly and too small to be searched one by one.
LAYOUT_LANDMARKS = {
    "fer48": [(15.2, 18.4), (32.9, 18.4), (23.9, 28.0), (16.8, 35.4), (31.5, 35.6)],
    "rafdb100": [(27.5, 30.5), (70.1, 30.3), (48.3, 57.0), (31.6, 74.4), (66.0, 74.3)],
    "utkface128": [(38.4, 37.5), (88.1, 38.0), (63.1, 65.7), (41.2, 86.4), (84.7, 86.4)],
}
LAYOUTS = ("celeba", "aligned", "detected", *LAYOUT_LANDMARKS)


def check_layout(layout: str) -> None:
    """Raises `ValueError` where a layout is unknown."""
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {LAYOUTS}, got {layout!r}")


def project_crop(image: Image.Image, layout: str, size: int = 128) -> Image.Image:
    """
    A row's picture → the aligned crop, RGB, `size` × `size`.

    Args:
        layout: `"celeba"` (178×218, or 89×109 at half size), `"aligned"` (a square crop already), `"fer48"`,
            `"rafdb100"` or `"utkface128"` (brought to the crop by the set's median landmarks), or `"detected"` (any
            photo; its largest face is found by the detector).

    Raises:
        ValueError: where the picture has not the layout's shape, or no face is found.
    """
    image = to_rgb(image)
    if layout == "detected":
        return crop_by_landmarks(image, find_landmarks(image, default_detector()), size)[0]
    if layout == "celeba":
        if image.size not in ((178, 218), (89, 109)):
            raise ValueError(f"expected a picture of 178×218 or 89×109 pixels, got {image.width}×{image.height}")
        return celeba_crop(image, size)
    if image.width != image.height:
        raise ValueError(f"expected a square picture, got {image.width}×{image.height}")
    if layout in LAYOUT_LANDMARKS:
        return align(image, crop_matrix(LAYOUT_LANDMARKS[layout], size), size)
    return image if image.width == size else image.resize((size, size), Image.Resampling.BICUBIC)


def read_crop(data: bytes, layout: str, size: int = 128) -> Image.Image:
    """
    Encoded picture of a row → aligned crop; see [`project_crop`]. Raises `ValueError` where it is damaged or too
    large.
    """
    if not isinstance(data, bytes):  # a string would be taken for a path or an address
        raise ValueError("the picture is missing: expected its encoded bytes")
    return project_crop(load_image(data), layout, size)


def covered_crop(data: bytes, layout: str, size: int, grid: int) -> tuple[Image.Image, np.ndarray]:
    """
    Encoded picture of a row → aligned crop, and which of its cells have pixels of the picture, boolean [grid, grid]:
    all, but of faces that were found in tight pictures. See [`read_crop`].
    """
    if layout != "detected":
        return read_crop(data, layout, size), np.ones((grid, grid), bool)
    if not isinstance(data, bytes):
        raise ValueError("the picture is missing: expected its encoded bytes")
    image = load_image(data)
    return crop_by_landmarks(image, find_landmarks(image, default_detector()), size, grid)


def face_crops(
    samples: Iterable[Sample], layout: str, size: int, refused: Counter[str], grid: int = 1
) -> Iterator[tuple[Sample, Image.Image, np.ndarray]]:
    """
    Samples with their crops as [`covered_crop`] makes them. Those that are no such pictures are counted and left out.
    """
    for sample in samples:
        try:
            yield sample, *covered_crop(sample.image, layout, size, grid)
        except (OSError, ValueError) as error:
            refuse(refused, "damaged picture", sample.key, error)


def is_grey(image: Image.Image) -> bool:
    """Whether an RGB picture has no colour."""
    return float(np.ptp(np.asarray(image).astype(np.float32), axis=2).mean()) < LEAST_COLOUR


def pixels_from_images(images: Sequence[Image.Image | np.ndarray]) -> torch.Tensor:
    """RGB pictures of one size → float tensor [B, 3, H, W] in [-1, 1], channels last in memory."""
    array = np.stack([np.asarray(image) for image in images])
    return torch.from_numpy(array).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


@torch.inference_mode()
def encode_images(
    tokenizer: GPTFaceImageTokenizer, images: list[Image.Image], batch_size: int | None = None
) -> np.ndarray:
    """RGB pictures of the tokenizer's size → codes [B, N] as uint16. `batch_size` as in [`encode_with_plan`]."""
    parts = [tokenizer.quantizer(latents)[1].flatten(1) for latents in _latents(tokenizer, images, batch_size)]
    return _stored(parts, tokenizer.config.grid_size**2)


@torch.inference_mode()
def encode_with_plan(
    tokenizer: GPTFaceImageTokenizer, images: list[Image.Image], batch_size: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """
    RGB pictures of the tokenizer's size → codes [B, N] and plan codes [B, M] as uint16, by one run of the encoder.

    The encoder is all of the time, decoding a picture a hundredth of it. On a CPU few pictures at once are fastest,
    which is the default: their feature maps stay in the cache.
    """
    codes, plans = [], []
    for latents in _latents(tokenizer, images, batch_size):
        codes.append(tokenizer.quantizer(latents)[1].flatten(1))
        plans.append(tokenizer.encode_plan(latents=latents))
    return _stored(codes, tokenizer.config.grid_size**2), _stored(plans, tokenizer.config.num_plan_tokens)


def _latents(
    tokenizer: GPTFaceImageTokenizer, images: list[Image.Image], batch_size: int | None
) -> Iterator[torch.Tensor]:
    if batch_size is None:
        batch_size = 2 if tokenizer.device.type == "cpu" else 64
    for start in range(0, len(images), batch_size):
        yield tokenizer.checked_latents(pixels_from_images(images[start : start + batch_size]).to(tokenizer.device))


def _stored(parts: list[torch.Tensor], cells: int) -> np.ndarray:
    return torch.cat(parts).cpu().numpy().astype(np.uint16) if parts else np.zeros((0, cells), np.uint16)


class Labeller(Protocol):
    """Tells what it is sure of, such as [`~gptface.data.confident_labels.ConfidentLabeller`]."""

    names: list[str]
    fingerprint: str

    def __call__(self, codes: np.ndarray, covered: Sequence[np.ndarray]) -> list[dict[str, int]]: ...


def encode_columns(
    tokenizer: GPTFaceImageTokenizer,
    images: Sequence[Image.Image],
    covered: Sequence[np.ndarray],
    flips: bool = True,
    labeller: Labeller | None = None,
) -> "dict[str, pa.Array]":
    """
    The columns `codes`, `codes_flipped` (with `flips`), those of the plan, `grey` and `lens_brightness` (see
    [`lens_brightness`]) of crops of the tokenizer's size, and those of a labeller.

    Args:
        covered: which cells of each have pixels, boolean [grid, grid]; the codes of the others are `ABSENT`.
    """
    import pyarrow as pa

    present = np.array(covered, bool).reshape(-1, tokenizer.config.grid_size, tokenizer.config.grid_size)
    versions = {"codes": (list(images), present)}
    if flips:
        mirrored = [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in images]
        versions["codes_flipped"] = (mirrored, present[:, :, ::-1])
    columns: dict[str, pa.Array] = {}
    for name, (pictures, cover) in versions.items():
        plans = None
        if tokenizer.plan is None:
            codes = encode_images(tokenizer, pictures)
        else:
            codes, plans = encode_with_plan(tokenizer, pictures)
        if name == "codes" and labeller is not None:
            sure = labeller(codes, covered)
            columns |= {label: pa.array([row.get(label) for row in sure], pa.int8()) for label in labeller.names}
        columns[name] = _stored_column(codes, cover)
        if plans is not None:
            side = tokenizer.config.plan_grid_size
            whole = np.asarray(cover.reshape(len(cover), side, 2, side, 2).all((2, 4)))
            columns[f"plan_{name}"] = _stored_column(plans, whole)
    brightness = [float(lens_brightness(pixels_from_images([image]))[0]) for image in images]
    columns["lens_brightness"] = pa.array(brightness, pa.float32())
    columns["grey"] = pa.array([is_grey(image) for image in images], pa.bool_())
    return columns


def _stored_column(codes: np.ndarray, covered: np.ndarray) -> "pa.Array":
    """Codes [B, N] as a column, `ABSENT` where the cells [B, √N, √N] have no pixels."""
    import pyarrow as pa

    codes[~covered.reshape(codes.shape)] = ABSENT
    return pa.FixedSizeListArray.from_arrays(pa.array(codes.reshape(-1)), codes.shape[1])


def _eroded(covered: np.ndarray) -> np.ndarray:
    """Without the cells at the edge of what is covered: a slightly changed copy moves by less than a cell."""
    padded = np.pad(covered, 1, constant_values=True)
    side = len(covered)
    return np.logical_and.reduce(
        [padded[row : row + side, column : column + side] for row in range(3) for column in range(3)]
    )


def encode_dataset(
    source: Source,
    target: Path,
    tokenizer: GPTFaceImageTokenizer,
    layout: str = "celeba",
    flips: bool = True,
    every: int = 1,
    refused: Counter[str] | None = None,
    labeller: Labeller | None = None,
    change: Callable[[Image.Image, int], Image.Image] | None = None,
    change_name: str | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> int:
    """
    Encodes what [`read_samples`] reads into the folder `target`; returns the rows of this rank's parts.

    Args:
        layout: how the faces lie in their pictures, see [`project_crop`].
        flips: whether mirror images are encoded too.
        every: n keeps each n-th row of a file, an even part of one that is sorted by label.
        refused: gains a count for every reason for which a picture, a value or a file was left out.
        labeller: tells what the data do not say of a face.
        change: makes of a crop and the number of its row what is encoded in its place, such as an augmented copy; it
            moves nothing by a whole cell. `change_name` says which change it is.
        rank, world_size: several processes share the parts; each reads all.

    Raises:
        FileNotFoundError: where there is nothing to read.
        ValueError: unknown layout, no sample at all, or a target that was made of other data, by another tokenizer or
            with other options.
        OSError: another run is writing into the target.
    """
    check_layout(layout)
    if every < 1:
        raise ValueError(f"every must be at least 1, got {every}")
    refused = Counter() if refused is None else refused
    tokenizer = tokenizer.eval()
    made_of = {
        "image tokenizer": tokenizer.fingerprint(),
        "plan": None if tokenizer.plan is None else tokenizer.plan_fingerprint(),
        "layout": layout,
        "flips": flips,
        "every": every,
        "labels": None if labeller is None else labeller.fingerprint,
        "change": change_name,
        "rows of a part": ROWS_PER_PART,
        "input": content_hashes(source),
    }
    metadata = {FINGERPRINT_KEY: tokenizer.fingerprint().encode()}
    if tokenizer.plan is not None:
        metadata[PLAN_FINGERPRINT_KEY] = tokenizer.plan_fingerprint().encode()
    with claimed_folder(target, made_of, rank):
        summary = target / f"finished-{rank}-of-{world_size}.json"
        if summary.exists():
            finished = read_json(summary, ["parts", "left_out"], "remove it and run it again")
            parts = [target / name for name in finished["parts"]]
            if all(part.exists() for part in parts):
                refused.update(finished["left_out"])
                return sum(part_metadata(part).num_rows for part in parts)
        rows, parts, left_out = 0, [], Counter[str]()
        samples = (sample for sample in read_samples(source, left_out) if sample.row % every == 0)
        for index, numbered in groupby(enumerate(samples), lambda pair: pair[0] // ROWS_PER_PART):
            if index % world_size != rank:
                continue
            part = target / f"part-{index:05d}.parquet"
            if not part.exists():
                own = Counter[str]()
                table = _encode_samples(
                    (sample for _, sample in numbered), tokenizer, layout, flips, own, labeller, change
                )
                left_out_here = {LEFT_OUT_KEY: json.dumps(own).encode()}
                write_part(table.replace_schema_metadata(metadata | left_out_here), part)
            written = part_metadata(part)
            left_out.update(json.loads(written.metadata.get(LEFT_OUT_KEY, b"{}")))
            rows += written.num_rows
            parts.append(part)
            logger.info("%s: %d rows encoded", name_of(source), rows)
        write_json(summary, {"parts": [part.name for part in parts], "left_out": left_out})
        refused.update(left_out)
    return rows


def _encode_samples(
    samples: Iterable[Sample],
    tokenizer: GPTFaceImageTokenizer,
    layout: str,
    flips: bool,
    refused: Counter[str],
    labeller: Labeller | None,
    change: Callable[[Image.Image, int], Image.Image] | None,
) -> "pa.Table":
    """Some samples as the table that a part holds."""
    import pyarrow as pa
    import pyarrow.compute as pc

    images, covered, known = [], [], []
    for sample, crop, cover in face_crops(
        samples, layout, tokenizer.config.image_size, refused, tokenizer.config.grid_size
    ):
        images.append(crop if change is None else change(crop, sample.row))
        covered.append(cover if change is None else _eroded(cover))
        known.append({**_plain(sample.columns), "key": sample.key, "text": sample.text, "source_row": sample.row})
    names = sorted({"key", "text", "source_row"}.union(*known))
    columns = {name: _column([row.get(name) for row in known]) for name in names}
    for name, values in encode_columns(tokenizer, images, covered, flips, labeller).items():
        # what the data say themselves is kept
        said = columns.get(name)
        columns[name] = (
            values if said is None or pa.types.is_null(said.type) else pc.coalesce(said, values.cast(said.type))
        )
    return pa.table(columns)


def _plain(columns: dict[str, Any]) -> dict[str, Any]:
    """The columns that a table can hold beside the codes."""
    own = ("image", *CODE_COLUMNS, *PLAN_COLUMNS)
    return {name: value for name, value in columns.items() if name not in own and isinstance(value, str | int | float)}


def _column(values: list[Any]) -> "pa.Array":
    """An arrow column; values of several types, or numbers that are too large, become strings."""
    import pyarrow as pa

    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.array([None if value is None else str(value) for value in values])


def write_part(table: "pa.Table", part: Path) -> None:
    """Writes a part of an encoded data set, which appears whole."""
    import pyarrow.parquet as pq

    with whole_file(part) as unfinished:
        pq.write_table(table, unfinished, write_page_checksum=True)


def code_parts(folder: Path) -> Iterator[Path]:
    """The parts of an encoded data set in order. Raises `FileNotFoundError` where there are none."""
    parts = sorted(folder.glob("part-*.parquet"))
    if not parts:
        raise FileNotFoundError(f"{folder} holds no part-*.parquet: make them with `gptface encode DATA {folder}`")
    yield from parts


def part_metadata(part: Path) -> Any:
    """The footer of a part (`pyarrow.parquet.FileMetaData`). Raises `ValueError` where it is damaged."""
    import pyarrow.parquet as pq

    with _naming(part):
        return pq.read_metadata(part)


def read_part_table(part: Path, fingerprint: str) -> "pa.Table":
    """
    The columns of a part, whose checksums are verified.

    Raises:
        ValueError: a damaged part, one without codes, or one of another image tokenizer than that with this
            fingerprint.
    """
    import pyarrow.parquet as pq

    with _naming(part):
        table = pq.read_table(part, page_checksum_verification=True)
    check_fingerprint(table.schema.metadata, part, fingerprint)
    if CODE_COLUMNS[0] not in table.column_names:
        raise ValueError(f"{part} has no column {CODE_COLUMNS[0]!r}")
    return table


def check_fingerprint(metadata: Mapping[bytes, bytes] | None, part: Path, fingerprint: str) -> None:
    """Raises `ValueError` where the metadata of a part name another image tokenizer."""
    made_by = (metadata or {}).get(FINGERPRINT_KEY, b"").decode()
    if made_by != fingerprint:
        raise ValueError(
            f"{part} holds codes of the image tokenizer {made_by or 'unknown'}, this model's is {fingerprint}: "
            "encode the data again"
        )


@contextmanager
def _naming(part: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        reason = " ".join(str(error).split())
        raise ValueError(f"{part} is damaged ({reason}): remove it and run `gptface encode` again") from error
