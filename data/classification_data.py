"""Faces with labels for classification: any collection of pictures, or their codes, and any set of label columns.

Independent labels are 0/1 columns (a file that lacks one leaves it unknown); classes that exclude each other are one
column of strings, of integers, or of a `ClassLabel` of datasets. The votes of FER+ stay beside the class as shares.
"""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from gptface.modeling_gptface.heads_gptface import GPTFaceForImageClassification
from gptface.modeling_gptface.image_tokenizer_gptface import GPTFaceImageTokenizer
from gptface.processing.detection import FaceNotFoundError, default_detector
from gptface.processing.image_loading import load_image

from .detected_crops import crop_by_landmarks, find_landmarks
from .encode import LAYOUT_LANDMARKS, check_layout, encode_dataset, pixels_from_images, read_crop
from .image_table import ImageTable
from .labels import VOTES
from .sources import Source, class_names, name_of, read_samples

logger = logging.getLogger(__name__)

#: Where the class of a face is looked for if no column is named.
CLASS_COLUMNS = ("emotion", "expression", "label", "labels")
GROUP_COLUMN = "identity"
CELEBA_SIZES = ((178, 218), (89, 109))
#: Of a picture's size; others are aligned crops.
LAYOUT_OF_SIZE = {**dict.fromkeys(CELEBA_SIZES, "celeba"), (48, 48): "fer48", (100, 100): "rafdb100"}


@dataclass
class ClassificationData:
    """
    Args:
        targets: 0/1 [rows, labels] with −1 = unknown, or class indices [rows] with −100 = unknown.
        names: of the labels.
        people: who each row shows [rows], where the data say it: all rows of a person belong to one part of a split.
        pictures: encoded pictures, as they lie in the files; empty where there are codes.
        layouts: of the pictures, see [`gptface.data.encode.project_crop`].
        codes: [rows, 2, cells] uint16 of each face and its mirror image; None where there are pictures.
        row_numbers: of each row in its own source.
        columns: the tables' other columns by name, for groups.
        search: whether pictures of tight sets are searched for the face, as the pipelines do it, and cut by the
            landmarks that are usual in their set only where none is found. Each is searched once.
        shares: of the annotators who chose each class [rows, classes], 0 in rows whose class is unknown; None where
            the data hold no votes.
    """

    targets: np.ndarray
    names: list[str]
    row_numbers: np.ndarray
    people: np.ndarray | None = None
    pictures: list[bytes] = field(default_factory=list)
    layouts: list[str] = field(default_factory=list)
    codes: np.ndarray | None = None
    columns: dict[str, list[Any]] = field(default_factory=dict)
    search: bool = False
    shares: np.ndarray | None = None
    _found: dict[int, np.ndarray | None] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def multi_label(self) -> bool:
        return self.targets.ndim == 2

    @property
    def problem_type(self) -> str:
        return "multi_label_classification" if self.multi_label else "single_label_classification"

    @property
    def known(self) -> np.ndarray:
        """Which rows have a class, or at least one label that is known: bool [rows]."""
        return np.asarray((self.targets >= 0).reshape(len(self), -1).any(1))

    def crop(self, row: int, size: int) -> Image.Image:
        """The aligned face of a row, RGB. Raises `ValueError` or `OSError` where its picture is no such face."""
        picture, layout = self.pictures[row], self.layouts[row]
        if self.search and layout in LAYOUT_LANDMARKS:
            image = load_image(picture)
            if row not in self._found:
                self._found[row] = self._landmarks(image, layout)
            if (landmarks := self._found[row]) is not None:
                return crop_by_landmarks(image, landmarks, size)[0]
        return read_crop(picture, layout, size)

    @staticmethod
    def _landmarks(image: Image.Image, layout: str) -> np.ndarray | None:
        try:
            return find_landmarks(image, default_detector(), LAYOUT_LANDMARKS[layout])
        except FaceNotFoundError:
            return None

    def split(self, rows: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows → (kept, held out): about `share` of the people, or of the rows, drawn from the seed, are held out."""
        people = rows if self.people is None else self.people[rows]
        unique, inverse = np.unique(people, return_inverse=True)
        order = np.random.default_rng(seed).permutation(len(unique))
        held_out = np.isin(inverse, order[: round(share * len(unique))])
        return rows[~held_out], rows[held_out]


def guess_layout(pictures: Iterable[bytes]) -> str:
    """
    The layout of encoded pictures by the size of the first that can be read: CelebA's alignment, FER2013's 48×48,
    RAF-DB's 100×100, or an aligned crop.
    """
    for data in pictures:
        try:
            return LAYOUT_OF_SIZE.get(load_image(data).size, "aligned")
        except (OSError, ValueError):
            continue
    return "aligned"


def load_classification_data(
    sources: Sequence[Source],
    multi_label: bool,
    labels: Sequence[str] | str | None = None,
    names: Sequence[str] = (),
    layout: str | None = None,
    require_all: bool = True,
    tokenizer: GPTFaceImageTokenizer | None = None,
    codes_folder: Path | None = None,
    search: bool = False,
) -> ClassificationData:
    """
    Reads and joins labelled faces. What cannot be read is named in a warning and left out.

    Args:
        sources: what [`~gptface.data.sources.read_samples`] reads (parquet files, tars, folders, rows of `datasets`),
            or folders that `gptface encode` wrote.
        multi_label: independent labels, or classes that exclude each other.
        labels: the 0/1 columns, or the column of the class. By default the columns `names`, if all are there, else
            every 0/1 column; for classes the first of `CLASS_COLUMNS`.
        names: labels of a head that there is already; they come in its order where the data have no others.
        layout: of the pictures; by default each source's is guessed from its first picture.
        require_all: whether a column of `labels` that no source has is an error, else it is unknown everywhere.
        tokenizer: read codes instead of pictures: folders must hold this tokenizer's codes, pictures are encoded with
            it.
        codes_folder: where the codes of pictures go, by default beside their file; a stopped run goes on there.
        search: see [`ClassificationData`].

    Raises:
        FileNotFoundError: a source that does not exist.
        ValueError: a source without pictures or labels, or values that are no labels; the message says which.
    """
    if layout is not None:
        check_layout(layout)
    if not sources:
        raise ValueError("there is no data: name at least one parquet file")
    tables: list[ImageTable] = []
    layouts: list[str] = []
    refused: Counter[str] = Counter()
    for number, source in enumerate(sources):
        if tokenizer is not None:
            tables.append(_codes_of(source, number, tokenizer, layout, codes_folder, refused))
        elif _holds_codes(source):
            raise ValueError(f"{name_of(source)} holds codes, but pictures are needed here: give the parquet file")
        else:
            table = ImageTable.read(source, refused)
            layouts += [layout or guess_layout(table.pictures)] * len(table)
            tables.append(table)
    if refused:
        logger.warning("left out: %s", dict(refused))
    find = _attribute_targets if multi_label else _class_targets
    targets, found = find(tables, labels, names, require_all)
    # who names a column wants its classes; without one the votes say more than their majority
    shares = None if multi_label or labels is not None else _vote_shares(tables, targets, found)
    columns = {
        name: [value for table in tables for value in table.columns[name]]
        for name in tables[0].columns
        if name not in found and all(name in table.columns for table in tables)
    }
    return ClassificationData(
        targets,
        found,
        np.concatenate([table.row_numbers for table in tables]),
        np.asarray(columns[GROUP_COLUMN]) if GROUP_COLUMN in columns else None,
        [picture for table in tables for picture in table.pictures],
        layouts,
        None if tokenizer is None else np.concatenate([table.codes for table in tables]),  # type: ignore[misc]
        columns,
        search,
        shares,
    )


def _holds_codes(source: Source) -> bool:
    return isinstance(source, (str, os.PathLike)) and any(Path(source).glob("part-*.parquet"))


def _codes_of(
    source: Source,
    number: int,
    tokenizer: GPTFaceImageTokenizer,
    layout: str | None,
    codes_folder: Path | None,
    refused: Counter[str],
) -> ImageTable:
    """The codes of a source: its own, or those that its pictures are encoded into."""
    fingerprint = tokenizer.fingerprint()
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if _holds_codes(path):
            return ImageTable.read_codes(path, fingerprint)
        target = (codes_folder or path.parent) / path.stem
    else:
        if codes_folder is None:
            raise ValueError("rows without a file need codes_folder, where their codes go")
        target = codes_folder / f"rows-{number}"
    if layout is None:
        layout = guess_layout(sample.image for sample in read_samples(source))
    encode_dataset(source, target, tokenizer, layout, refused=refused)
    table = ImageTable.read_codes(target, fingerprint)
    table.classes = class_names(source)
    return table


def _attribute_targets(
    tables: list[ImageTable], labels: Sequence[str] | str | None, names: Sequence[str], require_all: bool
) -> tuple[np.ndarray, list[str]]:
    present = dict.fromkeys(name for table in tables for name in table.columns)
    if labels is not None:
        wanted = [labels] if isinstance(labels, str) else list(labels)
        missing = [name for name in wanted if name not in present]
        if missing and (require_all or len(missing) == len(wanted)):
            raise ValueError(f"the data have no column {missing[0]!r}; their columns are {list(present)}")
        if missing:
            logger.warning("labels that the data lack: %s", ", ".join(missing))
    elif names and all(name in present for name in names):
        wanted = list(names)
    else:
        wanted = [name for name in present if name != GROUP_COLUMN and _is_binary(tables, name)]
        if not wanted:
            raise ValueError(f"the data have no 0/1 columns, only {list(present)}: name the labels")
    values = {
        name: [value for table in tables for value in table.columns.get(name, [None] * len(table))] for name in wanted
    }
    targets = np.stack([_binary_values(values[name], name) for name in wanted], axis=1)
    if not (targets == 0).any():
        raise ValueError("the labels hold no 0: write 1 = holds, 0 = does not; −1 means unknown")
    return targets, wanted


def _is_binary(tables: list[ImageTable], name: str) -> bool:
    values = [value for table in tables for value in table.columns.get(name, ())]
    return (
        all(value is None or (isinstance(value, int | float) and value in (0, 1, -1)) for value in values)
        and 0 in values
    )


def _binary_values(values: list[Any], name: str) -> np.ndarray:
    wrong = next((value for value in values if value not in (0, 1, -1, None)), None)
    if wrong is not None:
        raise ValueError(f"column {name!r} holds {wrong!r}: an independent label is 0 or 1 (−1 or empty: unknown)")
    return np.array([-1 if value is None else int(value) for value in values])


def _class_targets(
    tables: list[ImageTable], labels: Sequence[str] | str | None, names: Sequence[str], require_all: bool
) -> tuple[np.ndarray, list[str]]:
    if labels is not None and not isinstance(labels, str):
        raise ValueError(f"classes that exclude each other are one column, got {list(labels)}")
    choices = (labels,) if labels is not None else CLASS_COLUMNS
    values: list[str | None] = []
    others: Counter[str] = Counter()
    order: dict[str, None] = {}
    for table in tables:
        column = next((name for name in choices if name in table.columns), None)
        if column is None:
            raise ValueError(f"no column {' or '.join(map(repr, choices))} in {list(table.columns)}")
        own = [None if value is None else _known_as(str(value), names) for value in table.columns[column]]
        classes = [known for value in table.classes.get(column, ()) if (known := _known_as(value, names)) is not None]
        order |= dict.fromkeys(classes or sorted({value for value in own if value is not None}))
        values += own
        others.update(
            str(value)
            for value, known in zip(table.columns[column], own, strict=True)
            if value is not None and known is None
        )
    if not order:
        raise ValueError("no row has a class")
    if others:
        logger.warning("rows of other classes count as unknown: %s", dict(others))
    found = list(names) if names and set(order) <= set(names) else list(order)
    index = {name: position for position, name in enumerate(found)}
    return np.array([-100 if value is None else index[value] for value in values]), found


def _vote_shares(tables: list[ImageTable], targets: np.ndarray, names: Sequence[str]) -> np.ndarray | None:
    """
    Shares of the annotators [rows, classes] by the votes of FER+: of those who chose one of the classes. A row without
    votes has its class alone, one whose class is unknown nothing. None where no table holds votes.
    """
    voted = [VOTES.keys() <= table.columns.keys() for table in tables]
    columns = {vote: names.index(known) for vote in VOTES if (known := _known_as(vote, names)) in names}
    if not columns or not any(voted):
        return None
    shares = np.eye(len(names), dtype=np.float32)[targets.clip(0)] * (targets >= 0)[:, None]
    start = 0
    for table, has_votes in zip(tables, voted, strict=True):
        own = shares[start : start + len(table)]
        start += len(table)
        if has_votes:
            votes = np.zeros_like(own)
            for vote, index in columns.items():
                votes[:, index] += [value or 0 for value in table.columns[vote]]
            total = votes.sum(1, keepdims=True)
            np.copyto(own, votes / total.clip(1), where=(total > 0) & (own.sum(1, keepdims=True) > 0))
    return shares


def _known_as(value: str, names: Sequence[str]) -> str | None:
    """
    A class as a head with these names calls it: FER+ has other names for the seven expressions, and three more, which
    are None.
    """
    return VOTES[value] if value not in names and VOTES.get("happiness") in names and value in VOTES else value


@torch.no_grad()
def face_logits(
    model: GPTFaceForImageClassification, data: ClassificationData, rows: np.ndarray, batch_size: int = 32
) -> tuple[np.ndarray, np.ndarray]:
    """
    Logits [rows, labels] of the model's head, and the rows that they belong to: those whose picture cannot be read are
    left out with a warning.
    """
    from tqdm import tqdm

    model.eval()
    logits, kept = [], []
    batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    for batch in tqdm(batches, desc="faces", leave=False, disable=None):
        inputs, readable = model_inputs(model, data, batch)
        if readable:
            logits.append(model(**inputs).logits.float().cpu().numpy())
            kept += readable
    if not kept:
        raise ValueError("no picture of the data can be read")
    return np.concatenate(logits), np.asarray(kept)


def model_inputs(
    model: GPTFaceForImageClassification, data: ClassificationData, rows: np.ndarray
) -> tuple[dict[str, torch.Tensor], list[int]]:
    """Codes or pixels of some rows, as they are, on the model's device; and the rows that could be read."""
    if data.codes is not None:
        codes = torch.from_numpy(data.codes[rows, 0].astype(np.int64))
        return {"image_codes": codes.to(model.device)}, [int(row) for row in rows]
    crops = dict(readable_crops(data, rows, model.config.image_tokenizer_config.image_size))
    if not crops:
        return {}, []
    return {"pixel_values": pixels_from_images(list(crops.values())).to(model.device)}, list(crops)


def readable_crops(data: ClassificationData, rows: Sequence[int] | np.ndarray, size: int) -> Iterator[tuple[int, Any]]:
    """(row, aligned face) of the rows whose picture can be read; the others are named in a warning."""
    for row in map(int, rows):
        try:
            yield row, data.crop(row, size)
        except (OSError, ValueError) as error:
            logger.warning("row %d is left out: %s", row, error)
