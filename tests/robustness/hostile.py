"""
Writes what nobody should have to open: files and folders that are small and ask for hours, for all memory, or for
files of others.

The tests call these functions; `python tests/robustness/hostile.py FOLDER` writes one of each, to try a program on.
"""

import io
import json
import random
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from PIL import Image

#: Changes of a config.json, each a few bytes (or a list that compresses well) that ask for a network nobody can build.
CONFIGS: dict[str, dict[str, Any]] = {
    "layers": {"num_hidden_layers": 10**5},
    "width": {"hidden_size": 10**6, "num_attention_heads": 1},
    "heads of attention": {"hidden_size": 10**6, "num_attention_heads": 10**6},
    "words": {"vocab_size": 10**9},
    "caption": {"max_text_length": 10**9},
    "labels": {"id2label": {str(index): "x" for index in range(10**6)}},
    "number of labels": {"num_labels": 10**9},
    "labels of a head": {"heads": {"attributes": {"labels": ["x"] * 10**6, "problem_type": "regression"}}},
    "heads": {
        "heads": {str(index): {"labels": ["x"], "problem_type": "regression"} for index in range(10**5)},
    },
    "picture": {"image_tokenizer_config": {"image_size": 10**6}},
    "cells": {"image_tokenizer_config": {"backbone": "vqgan", "block_out_channels": [32], "image_size": 2048}},
    "levels": {"image_tokenizer_config": {"fsq_levels": [8] * 10**6}},
    "codes": {"image_tokenizer_config": {"fsq_levels": [1000] * 30}},
    "plan": {"image_tokenizer_config": {"image_size": 64, "plan_levels": [10**6]}},
    "channels": {"image_tokenizer_config": {"hidden_channels": 10**7}},
    "refiner": {"image_tokenizer_config": {"refiner_config": {"dilations": [1] * 10**6}}},
    "parser": {"face_parser_config": {"expansion": 10**6}},
    "pixel reader": {"image_reader": {"blocks": [1, 1, 10**6]}},
}


def change_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def name_in_index(folder: Path, name: str, index: str = "model.safetensors.index.json") -> None:
    """Replaces the weights of a checkpoint by an index that names another file."""
    (folder / "model.safetensors").unlink(missing_ok=True)
    content = {"metadata": {}, "weight_map": {"gptface.embeddings.word_embeddings.weight": name}}
    (folder / index).parent.mkdir(exist_ok=True)
    (folder / index).write_text(json.dumps(content))


def nest_replacements(tokenizer_file: Path, depth: int = 40) -> None:
    """A normaliser that doubles a text `depth` times."""
    twice = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
    change_json(tokenizer_file, normalizer={"type": "Sequence", "normalizers": [twice] * depth})


def backtrack(tokenizer_file: Path) -> None:
    """A pre-tokenizer whose regular expression takes exponential time."""
    split = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
    change_json(tokenizer_file, pre_tokenizer=split)


def jpeg_of_many_scans(scans: int, size: tuple[int, int] = (64, 64)) -> bytes:
    """A progressive JPEG whose last scan stands in it again and again; each costs the time of a whole picture."""
    buffer = io.BytesIO()
    Image.new("RGB", size, "teal").save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    starts = [found.start() for found in re.finditer(b"\xff\xda", data)]
    last = data[starts[-1] : -2]
    return data[:-2] + last * (scans - len(starts)) + data[-2:]


def repeated_parquet(path: Path, data: bytes, rows: int, text: str = "smiling", struct: bool = False) -> None:
    """A parquet file in which one picture and one text stand once, for many rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def repeated(value: bytes | str) -> pa.Array:
        return pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([value]))

    picture = repeated(data)
    if struct:
        picture = pa.StructArray.from_arrays([picture, repeated("a.png")], ["bytes", "path"])
    table = pa.table({"image": picture, "text": repeated(text)})
    pq.write_table(table, path, compression="zstd", write_statistics=False, store_schema=False)


def swollen_parquet(path: Path, mebibytes: int = 200) -> None:
    """A parquet file of a few kilobytes, whose only picture is many zeros."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"image": [bytes(mebibytes * 2**20)]}), path, compression="zstd", write_statistics=False)


def nested_parquet(path: Path, values: int = 10**6) -> None:
    """A parquet file of a few kilobytes with a row of a million numbers."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"image": [b"x"], "numbers": [[7] * values]}), path, compression="zstd")


def main(folder: Path) -> None:
    from gptface import DEFAULT_CHECKPOINT

    folder.mkdir(parents=True)
    (folder / "scans.jpg").write_bytes(jpeg_of_many_scans(300, (8000, 8000)))
    swollen_parquet(folder / "swollen.parquet", 4000)
    repeated_parquet(folder / "repeated.parquet", bytes(60 * 2**20), 64, "a" * 60 * 2**20)
    nested_parquet(folder / "nested.parquet", 10**8)
    for name, changes in CONFIGS.items():
        copy = Path(shutil.copytree(DEFAULT_CHECKPOINT, folder / f"config-{name}"))
        change_json(copy / "config.json", **changes)
    for name, change in (("nested", nest_replacements), ("backtracking", backtrack)):
        change(Path(shutil.copytree(DEFAULT_CHECKPOINT, folder / f"tokenizer-{name}")) / "tokenizer.json")
    for name in ("weights.bin", "../weights.safetensors"):
        copy = Path(shutil.copytree(DEFAULT_CHECKPOINT, folder / f"index-{random.Random(name).randrange(10**6)}"))
        name_in_index(copy, name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
