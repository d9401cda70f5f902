"""Weak pairs for pre-training: pictures with names instead of descriptions, and faces of which nothing is known but
the picture.

    python benchmarks/weak_pairs/prepare.py named DATA_DIR/train/lfw_names112.parquet weak/lfw_names112.parquet
    gptface encode weak/lfw_names112.parquet weak/codes/lfw_names112 --image-tokenizer image_tokenizer --layout aligned
    python benchmarks/weak_pairs/prepare.py unlabelled codes/train/celeba178 weak/codes/celeba178
    gptface pretrain benchmarks/weak_pairs/pretrain.yaml

`named` brings LFW's pictures to the project's crop, with the name as `text`. `unlabelled` copies the codes that
`gptface encode` wrote; no other column is read, so that no label can reach the training. `few_shot.py` then measures
what was learned.
"""

import argparse
import io
from pathlib import Path

from gptface.data.code_dataset import CODE_COLUMNS
from gptface.data.encode import code_parts
from gptface.processing.alignment import align, crop_matrix
from gptface.processing.image_loading import load_image
from gptface.processing.whole_files import whole_file

# Median landmarks that the face detector finds on 250 pictures, evenly spread, in pixels of the 112×112: eyes, nose,
# mouth corners. The middle half of the faces lies within 2 pixels of the eyes and 3 of the mouth corners.
LFW_LANDMARKS = [(36.2, 43.0), (76.1, 42.6), (56.3, 67.5), (40.6, 85.3), (73.1, 84.8)]


def named_crops(source: Path, target: Path, size: int = 128) -> int:
    """LFW's parquet file (`image`, `name`) → aligned crops with `text`; returns the rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    matrix = crop_matrix(LFW_LANDMARKS, size)
    table = pq.read_table(source, columns=["image", "name"])
    images = []
    for picture in table["image"].to_pylist():
        data = io.BytesIO()
        align(load_image(picture["bytes"]), matrix, size).convert("L").save(data, "PNG")
        images.append({"bytes": data.getvalue(), "path": None})
    _write(pa.table({"image": images, "text": table["name"]}), target)
    return len(images)


def unlabelled_codes(source: Path, target: Path) -> int:
    """A folder of codes → the same without any other column; returns the rows."""
    import pyarrow.parquet as pq

    rows = 0
    for part in code_parts(source):
        names = [name for name in pq.read_schema(part).names if name in CODE_COLUMNS]
        table = pq.read_table(part, columns=names)  # keeps the fingerprint of the image tokenizer
        _write(table, target / part.name)
        rows += table.num_rows
    return rows


def _write(table, target: Path) -> None:
    import pyarrow.parquet as pq

    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as unfinished:
        pq.write_table(table, unfinished)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["named", "unlabelled"])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    options = parser.parse_args()
    rows = {"named": named_crops, "unlabelled": unlabelled_codes}[options.what](options.source, options.target)
    print(f"{options.target}: {rows} rows")


if __name__ == "__main__":
    main()
