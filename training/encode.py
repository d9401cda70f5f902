"""Data sets of aligned faces → image codes, once, so that pre-training reads codes instead of pixels.

The output is a folder of parquet parts that keep the order of the input. Each row holds the input's columns but the picture,
`codes` (uint16, raster order) and, unless turned off, `codes_flipped` (those of the mirrored picture). The schema's metadata
holds the tokenizer's fingerprint; readers refuse codes of another tokenizer. A run that was stopped goes on behind the last
whole part.
"""

import io
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from gptface.modeling_gptface.image_tokenizer_gptface import GPTFaceImageTokenizer
from gptface.processing.alignment import align, celeba_crop, crop_matrix

logger = logging.getLogger(__name__)

FINGERPRINT_KEY = b"gptface_tokenizer"
ROWS_PER_PART = 512


# Median landmarks that the face detector finds in these sets, in their pixels: eyes, nose, mouth corners. Their pictures are
# aligned only roughly and too small to be searched one by one.
LAYOUT_LANDMARKS = {
    "fer48": [(15.2, 18.4), (32.9, 18.4), (23.9, 28.0), (16.8, 35.4), (31.5, 35.6)],
    "utkface128": [(38.4, 37.5), (88.1, 38.0), (63.1, 65.7), (41.2, 86.4), (84.7, 86.4)],
}
LAYOUTS = ("celeba", "aligned", *LAYOUT_LANDMARKS)


def project_crop(image: Image.Image, layout: str, size: int = 128) -> Image.Image:
    """
    A row's picture → the aligned crop, RGB, `size` × `size`.

    Args:
        layout: `"celeba"` (178×218, or 89×109 at half size), `"aligned"` (a square crop already), `"fer48"` or `"utkface128"`
            (brought to the crop by the set's median landmarks).

    Raises:
        ValueError: where the picture has not the layout's shape.
    """
    image = image.convert("RGB")
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
    """Encoded picture of a row → aligned crop; see [`project_crop`]."""
    return project_crop(Image.open(io.BytesIO(data)), layout, size)


def pixels_from_images(images: list[Image.Image]) -> torch.Tensor:
    """RGB pictures of one size → float tensor [B, 3, H, W] in [-1, 1], channels last in memory."""
    array = np.stack([np.asarray(image) for image in images])
    return torch.from_numpy(array).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


@torch.no_grad()
def encode_images(tokenizer: GPTFaceImageTokenizer, images: list[Image.Image], batch_size: int = 16) -> np.ndarray:
    """RGB pictures of the tokenizer's size → codes [B, N] as uint16."""
    codes = [
        tokenizer.encode(pixels_from_images(images[start : start + batch_size]).to(tokenizer.device)).cpu()
        for start in range(0, len(images), batch_size)
    ]
    return torch.cat(codes).numpy().astype(np.uint16)


def encode_parquet(
    source: Path,
    target: Path,
    tokenizer: GPTFaceImageTokenizer,
    layout: str = "celeba",
    flips: bool = True,
    every: int = 1,
) -> int:
    """
    Encodes a parquet file with an `image` column ({"bytes": …}) into the folder `target`; returns the rows written.

    Rows whose picture cannot be read are counted in the log and left out. `every` = n keeps each n-th row, an even part of
    a file that is sorted by label.

    Raises:
        ValueError: unknown layout, or a target that holds codes of another tokenizer.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {LAYOUTS}, got {layout!r}")
    import pyarrow as pa
    import pyarrow.parquet as pq

    tokenizer = tokenizer.eval().to(memory_format=torch.channels_last)  # 1.6 times faster on a CPU
    fingerprint = tokenizer.fingerprint().encode()
    target.mkdir(parents=True, exist_ok=True)
    written = skipped = 0
    for index, batch in enumerate(pq.ParquetFile(source).iter_batches(ROWS_PER_PART)):
        part = target / f"part-{index:05d}.parquet"
        if part.exists():
            if pq.read_schema(part).metadata.get(FINGERPRINT_KEY) != fingerprint:
                raise ValueError(f"{part} holds codes of another image tokenizer: choose another folder or remove it")
            written += pq.ParquetFile(part).metadata.num_rows
            continue
        images, kept = [], []
        for row, value in enumerate(batch["image"].to_pylist()):
            if (index * ROWS_PER_PART + row) % every:
                continue
            try:
                images.append(read_crop(value["bytes"], layout, tokenizer.config.image_size))
                kept.append(row)
            except (OSError, ValueError) as error:
                skipped += 1
                logger.warning("%s, row %d skipped: %s", source.name, index * ROWS_PER_PART + row, error)
        versions = {"codes": images}
        if flips:
            versions["codes_flipped"] = [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in images]
        table = pa.Table.from_batches([batch]).drop_columns(["image"]).take(pa.array(kept, pa.int64()))
        for name, pictures in versions.items():
            values = encode_images(tokenizer, pictures)
            column = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
            table = table.append_column(name, column)
        table = table.replace_schema_metadata({FINGERPRINT_KEY: fingerprint})
        unfinished = part.with_suffix(".tmp")
        pq.write_table(table, unfinished)
        os.replace(unfinished, part)
        written += len(kept)
        logger.info("%s: %d rows encoded", source.name, written)
    if skipped:
        logger.warning("%s: %d rows skipped", source.name, skipped)
    return written


def code_parts(folder: Path) -> Iterator[Path]:
    """The parts of an encoded data set in order. Raises `FileNotFoundError` where there are none."""
    parts = sorted(folder.glob("part-*.parquet"))
    if not parts:
        raise FileNotFoundError(f"{folder} holds no part-*.parquet: make them with `gptface encode DATA {folder}`")
    yield from parts
