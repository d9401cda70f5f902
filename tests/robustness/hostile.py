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

#: Changes of a config.json that are of no network at all. Those of a nested part are put into it.
IMPOSSIBLE: dict[str, dict[str, Any]] = {
    "no width": {"hidden_size": 0},
    "no heads of attention": {"num_attention_heads": 0},
    "negative width": {"hidden_size": -32},
    "negative layers": {"num_hidden_layers": -1},
    "no words": {"vocab_size": 0},
    "text for a number": {"vocab_size": "x"},
    "a fraction": {"hidden_size": 32.5},
    "NaN": {"layer_norm_eps": float("nan")},
    "infinite": {"text_attention_bias": float("inf")},
    "a word beyond the vocabulary": {"mask_token_id": 10**9},
    "a negative word": {"pad_token_id": -1},
    "activation": {"hidden_act": "x"},
    "heads": {"heads": [1]},
    "a head": {"heads": {"attributes": [1]}},
    "labels": {"heads": {"attributes": {"labels": 7, "problem_type": "regression"}}},
    "labels that are letters": {"heads": {"attributes": {"labels": "abcde", "problem_type": "regression"}}},
    "labels that are numbers": {"heads": {"attributes": {"labels": [1, 2], "problem_type": "regression"}}},
    "a head's temperature": {"heads": {"a": {"labels": ["x"], "problem_type": "regression", "temperature": 0}}},
    "a head's thresholds": {"heads": {"a": {"labels": ["x"], "problem_type": "regression", "thresholds": [1, 2]}}},
    "a head's name": {"heads": {"a.b": {"labels": ["x"], "problem_type": "regression"}}},
    "a head's name of a method": {"heads": {"keys": {"labels": ["x"], "problem_type": "regression"}}},
    "no head's name": {"heads": {"": {"labels": ["x"], "problem_type": "regression"}}},
    "labels of transformers": {"id2label": [1]},
    "number of labels": {"num_labels": "x"},
    "dtype": {"dtype": "load"},
    "dtype of whole numbers": {"dtype": "int64"},
    "dtype of 8 bits": {"torch_dtype": "float8_e4m3fn"},
    "tying": {"tie_word_embeddings": "x"},
    "a plan that is none": {"plan_trained": True},
    "pixel reader": {"image_reader": [1]},
    "its channels": {"image_reader": {"channels": "abc"}},
    "its channel": {"image_reader": {"channels": 8}},
    "its negative channels": {"image_reader": {"channels": [-8, 8, 8]}},
    "its fractions": {"image_reader": {"channels": [8.0, 8.0, 8.0]}},
    "its rank": {"image_reader": {"adapter_rank": -1}},
    "its rank in words": {"image_reader": {"adapter_rank": "x"}},
    "fewer blocks than none": {"image_reader": {"blocks": [-1, 0, 0]}},
    "parser": {"face_parser_config": "x"},
    "its widths": {"face_parser_config": {"block_out_channels": [-8] * 4}},
    "its size": {"face_parser_config": {"image_size": -16}},
    "its dilations": {"face_parser_config": {"dilations": [0]}},
    "its expansion": {"face_parser_config": {"expansion": 0}},
    "its labels": {"face_parser_config": {"id2label": {"x": "a"}}},
    "image tokenizer": {"image_tokenizer_config": "x"},
    "no levels": {"image_tokenizer_config": {"fsq_levels": []}},
    "negative levels": {"image_tokenizer_config": {"fsq_levels": [-3, -4]}},
    "levels in words": {"image_tokenizer_config": {"fsq_levels": "345"}},
    "no pixels": {"image_tokenizer_config": {"image_size": 0}},
    "no latents": {"image_tokenizer_config": {"latent_channels": 0}},
    "no codebook": {"image_tokenizer_config": {"quantizer": "codebook", "codebook_size": -5}},
    "no blocks": {"image_tokenizer_config": {"backbone": "vqgan", "block_out_channels": []}},
    "no groups": {"image_tokenizer_config": {"backbone": "vqgan", "norm_num_groups": 0}},
    "plan": {"image_tokenizer_config": {"plan_levels": 8}},
    "its levels": {"image_tokenizer_config": {"plan_levels": [-8, 8]}},
    "its channels in words": {"image_tokenizer_config": {"plan_levels": [8, 8], "plan_channels": "x"}},
    "refiner": {"image_tokenizer_config": {"refiner_config": [1]}},
    "its hidden channels": {"image_tokenizer_config": {"refiner_config": {"hidden_channels": [-8, 8]}}},
    "its resolutions": {"image_tokenizer_config": {"refiner_config": {"hidden_channels": [8] * 20}}},
    "its side": {"image_tokenizer_config": {"refiner_config": {"image_size": -128}}},
}


def merged(content: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Nested dictionaries with some values changed; labels are changed as a whole."""
    new = dict(content)
    for name, value in changes.items():
        nested = isinstance(value, dict) and isinstance(content.get(name), dict) and name != "id2label"
        new[name] = merged(content[name], value) if nested else value
    return new


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
