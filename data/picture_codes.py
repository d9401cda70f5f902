"""Collections of pictures that have no codes yet: encoded once into a cache, part by part, when pre-training begins."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from gptface.modeling_gptface.image_tokenizer_gptface import GPTFaceImageTokenizer

from .code_dataset import folder_weights
from .encode import FINGERPRINT_KEY, check_layout, covered_crop, encode_columns, write_part
from .labels import label_columns
from .sources import Sample, list_sources, read_source

logger = logging.getLogger(__name__)

PICTURES_AT_ONCE = 256


def encode_collections(
    collections: Mapping[str, float] | Sequence[str | Path],
    cache: Path,
    tokenizer: GPTFaceImageTokenizer,
    layout: str = "aligned",
    rank: int = 0,
    world_size: int = 1,
) -> dict[str, float]:
    """
    Folder of codes → how often its rows count, in the place of every collection (see [`list_sources`]) without codes.

    Folders that `gptface encode` wrote stay as they are. Each rank encodes its share of the files, and must wait for the others
    before it reads. Files that are in the cache are not encoded again.

    Args:
        cache: each collection gets a folder of its name in it, each of its files a part.
        layout: of the pictures, see [`gptface.data.encode.project_crop`].

    Raises:
        FileNotFoundError: where a collection does not exist.
        ValueError: unknown layout, or two collections of one name.
    """
    check_layout(layout)
    folders: dict[str, float] = {}
    for collection, weight in folder_weights(collections).items():
        if any(Path(collection).glob("part-*.parquet")):
            folders[collection] = weight
            continue
        target = cache / Path(collection).stem
        if str(target) in folders:
            raise ValueError(
                f"two collections are called {target.name}: rename one, or encode them by `gptface encode`"
            )
        folders[str(target)] = weight
        target.mkdir(parents=True, exist_ok=True)
        for number, source in enumerate(list_sources(collection)):
            part = target / f"part-{number:05d}.parquet"
            if number % world_size == rank and not part.exists():
                encode_source(source, part, tokenizer, layout)
    return folders


def encode_source(source: Path, part: Path, tokenizer: GPTFaceImageTokenizer, layout: str) -> int:
    """One file of a collection → a part of codes with texts and labels, whole or not at all; returns its rows."""
    import pyarrow as pa

    tokenizer = tokenizer.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    refused: Counter[str] = Counter()
    crops = _crops(read_source(source, refused), layout, tokenizer, refused)
    tables = []
    while chunk := list(islice(crops, PICTURES_AT_ONCE)):
        images, covered, samples = zip(*chunk, strict=True)
        names = label_columns({name for sample in samples for name in sample.columns})
        columns: dict[str, Any] = {name: [sample.columns.get(name) for sample in samples] for name in names}
        columns = {
            **encode_columns(tokenizer, images, covered),
            **columns,
            "text": [sample.text for sample in samples],
        }
        tables.append(pa.table(columns))
    if refused:
        logger.warning("%s: left out %s", source, dict(refused))
    if not tables:
        raise ValueError(f"{source} holds no picture that can be read")
    table = pa.concat_tables(tables, promote_options="permissive")
    table = table.replace_schema_metadata({FINGERPRINT_KEY: tokenizer.fingerprint().encode()})
    write_part(table, part)
    logger.info("%s: %d pictures encoded", source, table.num_rows)
    return table.num_rows


def _crops(
    samples: Iterator[Sample], layout: str, tokenizer: GPTFaceImageTokenizer, refused: Counter[str]
) -> Iterator[tuple[Image.Image, np.ndarray, Sample]]:
    for sample in samples:
        try:
            yield *covered_crop(sample.image, layout, tokenizer.config.image_size, tokenizer.config.grid_size), sample
        except (OSError, ValueError) as error:
            refused["damaged picture"] += 1
            logger.info("%r left out: %s", sample.key, error)
