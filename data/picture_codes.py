"""Collections of pictures that have no codes yet: encoded once into a cache, part by part, before pre-training."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from gptface.modeling_gptface.image_tokenizer_gptface import GPTFaceImageTokenizer

from .code_dataset import folder_weights
from .encode import check_layout, encode_dataset

logger = logging.getLogger(__name__)


def encode_collections(
    collections: Mapping[str, float] | Sequence[str | Path],
    cache: Path,
    tokenizer: GPTFaceImageTokenizer,
    layout: str = "aligned",
    rank: int = 0,
    world_size: int = 1,
) -> dict[str, float]:
    """
    Folder of codes → how often its rows count, in the place of every collection (see [`read_samples`]) without codes.

    Folders that `gptface encode` wrote stay as they are. Each rank encodes its share of the parts, and must wait for
    the others before it reads. What is in the cache is not encoded again.

    Args:
        cache: each collection gets a folder of its name in it.
        layout: of the pictures, see [`gptface.data.encode.project_crop`].

    Raises:
        FileNotFoundError: where a collection does not exist.
        ValueError: unknown layout, two collections of one name, a collection without pictures, or a cache of other
            data.
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
        refused: Counter[str] = Counter()
        fast = tokenizer.to(memory_format=torch.channels_last)  # type: ignore[call-arg, call-overload]
        encode_dataset(collection, target, fast, layout, refused=refused, rank=rank, world_size=world_size)
        if refused:
            logger.warning("%s: left out %s", collection, dict(refused))
    return folders
