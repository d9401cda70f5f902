"""Weak pairs hold what the experiment is about and nothing else: a label that slipped in would decide it."""

import io
import runpy
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from gptface.data.encode import FINGERPRINT_KEY
from gptface.training.pretraining import PreTrainingConfig

FOLDER = Path(__file__).parents[1] / "benchmarks" / "weak_pairs"
prepare = runpy.run_path(str(FOLDER / "prepare.py"))


def test_unlabelled_codes_carry_no_label(tmp_path):
    codes = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(8, dtype=np.uint16)), 4)
    table = pa.table({"identity": [1, 2], "Smiling": [0, 1], "codes": codes, "text": ["a", "b"]})
    (tmp_path / "codes").mkdir()
    pq.write_table(table.replace_schema_metadata({FINGERPRINT_KEY: b"abc"}), tmp_path / "codes" / "part-00000.parquet")
    assert prepare["unlabelled_codes"](tmp_path / "codes", tmp_path / "weak") == 2
    copied = pq.read_table(tmp_path / "weak" / "part-00000.parquet")
    assert copied.column_names == ["codes"] and copied["codes"].to_pylist() == table["codes"].to_pylist()
    assert copied.schema.metadata[FINGERPRINT_KEY] == b"abc"


def test_names_become_captions_of_aligned_crops(tmp_path):
    picture = np.zeros((112, 112), np.uint8)
    picture[40:46, 73:79] = 255  # where LFW has the eye on the right
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "PNG")
    source, target = tmp_path / "named.parquet", tmp_path / "weak" / "named.parquet"
    pq.write_table(pa.table({"image": [{"bytes": data.getvalue(), "path": None}], "name": ["Ada Lovelace"]}), source)
    assert prepare["named_crops"](source, target) == 1
    row = pq.read_table(target).to_pylist()[0]
    crop = np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])))
    assert row["text"] == "Ada Lovelace" and crop.shape == (128, 128)
    y, x = np.unravel_index(crop.argmax(), crop.shape)
    assert abs(x + 0.5 - 83.5) < 5 and abs(y + 0.5 - 55.5) < 5


def test_the_recipe_is_read():
    recipe = PreTrainingConfig.from_yaml(FOLDER / "pretrain.yaml")
    assert recipe.auxiliary_head is None and len(recipe.train) == 2
