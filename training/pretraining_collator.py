"""Batches for pre-training: masks, captions and mismatched captions of encoded faces."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from gptface.data.batch_masking import WORDS, MaskLaw, SampleNoise, image_masks, mask_budgets, span_masks
from gptface.data.captions import Caption, mentions_of_other, render, render_plainly
from gptface.data.code_dataset import IGNORED, CodeTable
from gptface.data.encode import ABSENT
from gptface.data.grammar import choose
from gptface.data.masking import sample_generator
from gptface.data.phrase_contrast import (
    UNKNOWN,
    cells_of_regions,
    contrast_pairs,
    label_matrix,
    opposite_phrases,
    phrase_regions,
    truths,
)

MASKED, RANDOM, KEPT = 0, 1, 2
# Other faces that are looked at for a false caption: few captions are true of all of them.
CANDIDATES = 16
#: What the model reads as cells that a picture has no pixels for.
ABSENT_CODE = -1
# Streams of a sample's noise, beside those of the masks.
CELL_POSITIONS, WORD_POSITIONS = 4, 5
# Keep what is drawn for a batch apart from what is drawn for its first sample.
MATCHES, CONTRASTS = 2**62, 2**61


@dataclass
class TextMaskLaw:
    """
    How captions are masked. A share `unmasked` keeps all words; a share `high` masks a ratio drawn from [0.15, 1] (1 =
    all words, as captioning needs); the rest masks 15 % of the words.
    """

    unmasked: float = 0.4
    high: float = 0.3
    ratio: float = 0.15


@dataclass
class PreTrainingCollator:
    """
    Rows of a [`CodeTable`] → the inputs of `GPTFaceForPreTraining`.

    Every draw derives from (seed, epoch, row), so that workers, resume and ranks change nothing. Matching and
    mismatched pairs follow one law in everything but the pairing: masks, dropped captions and special tokens tell
    nothing.

    Args:
        table: of the samples that do not bring theirs.
        image_laws: mixture of mask laws for the grid.
        region_masks: share of samples in which, instead, the region that one phrase of the caption speaks of is
            masked, wholly or in part: there the caption says most about the codes, and editing asks for just this.
        match_captions: captions that every picture of a batch is matched with, for `match_head="cross"`; 0: each
            picture is matched with the caption of its own sample, which is then false in a share `match_negatives` of
            them.
        contrast_pairs: how many pairs of a picture and an attribute a batch also asks, for `caption_reader`, under
            which of two opposite phrases the masked codes of the attribute's region are likelier; an even number, 0 =
            none.
        contrast_attributes: how many attributes these pairs are about.
        contrast_cells: most cells of the region that a pair looks at.
        predicted_cells: so many masked cells of each picture are predicted, drawn at random where more are masked;
            all, where it is not given. Predicting is a large part of a step.
        predicted_words: likewise of the words of each caption; worth it where the vocabulary is large.
        text_lengths: captions are padded to the least of these lengths that holds the batch's longest, so that few
            shapes occur: by default to the next multiple of 8.
        packing: captions that the model reads apart from pictures, most of them far shorter than the longest, stand
            several in a row. There are as many rows as captions take, rounded up to this share of the rows without
            packing, in (0, 1]: a large one for few shapes.
        plan: whether the batch is one of plan tokens instead of codes.
        plan_dropout: share of samples that are read without their plan, where the table has one.
        match_negatives: share of samples whose caption is not theirs.
        counterfactuals: share of samples whose false caption speaks of the same attributes as the true one and differs
            in as few as can be found, best in a single one.
        max_mentions: most attributes that a caption names. Words are cheap beside the cells: long captions teach more
            a step.
        plain_captions: share of captions that list committed phrases ("smiling, eyeglasses"): with one wording for
            each attribute its meaning is learned from far fewer pairs.
        caption_dropout: share of samples whose caption is dropped; they carry no ITM loss.
        label_names: labels of the auxiliary head, in its order; none where it is empty. What the shown caption
            mentions is not asked for, since the head would read it off the words.
    """

    table: CodeTable | None
    tokenizer: PreTrainedTokenizerBase
    max_text_length: int
    image_laws: list[MaskLaw] = field(default_factory=lambda: [MaskLaw()])
    region_masks: float = 0.0
    text_law: TextMaskLaw = field(default_factory=TextMaskLaw)
    match_captions: int = 0
    contrast_pairs: int = 0
    contrast_attributes: int = 8
    contrast_cells: int = 32
    predicted_cells: int | None = None
    predicted_words: int | None = None
    text_lengths: Sequence[int] = ()
    packing: float = 0.125
    plan: bool = False
    plan_dropout: float = 0.4
    match_negatives: float = 0.5
    counterfactuals: float = 0.5
    max_mentions: int = 5
    plain_captions: float = 0.0
    caption_dropout: float = 0.1
    label_names: Sequence[str] = ()
    seed: int = 0

    def __post_init__(self):
        if self.contrast_pairs < 0 or self.contrast_pairs % 2:
            raise ValueError(f"contrast_pairs is an even number, got {self.contrast_pairs}")
        if self.contrast_pairs and min(self.contrast_attributes, self.contrast_cells) < 1:
            raise ValueError("contrast_attributes and contrast_cells must be at least 1")
        if not 0 < self.packing <= 1:
            raise ValueError(f"packing is a share in (0, 1], got {self.packing}")
        lengths = sorted(self.text_lengths) or range(8, self.max_text_length, 8)
        self._lengths = [length for length in lengths if length < self.max_text_length] + [self.max_text_length]
        vocabulary = self.tokenizer.get_vocab()
        specials = set(self.tokenizer.all_special_ids)
        self._word_ids = np.array(sorted(set(vocabulary.values()) - specials))

    def __call__(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        rows = [self._sample(sample) for sample in samples]
        faces = [self._face(sample) for sample in samples]
        noise = SampleNoise.of(
            self.seed,
            [sample["epoch"] for sample in samples],
            [sample.get("id", sample["row"]) for sample in samples],
        )
        codes = np.stack([row["image_codes"] for row in rows])
        known = label_matrix([table.labels[row] for table, row in faces])
        said = label_matrix([row["mentions"] for row in rows])
        captions: dict[str, list[str]] = {"own": [row["text"] for row in rows]}
        if self.match_captions:
            captions["match"], matches = self._match_all(samples, faces, known, said)
        encoded = {name: self._encode(texts) for name, texts in captions.items()}
        if self.contrast_pairs:
            encoded["contrast"] = self._opposite_captions
        longest = max(len(caption) for texts in encoded.values() for caption in texts)
        length = next(length for length in self._lengths if length >= longest)
        batch = self.mask_pairs(encoded["own"], codes, noise, [row["region"] for row in rows], length)
        batch["packing"] = self._packed(encoded["own"], length, length)
        match, dropped = (np.array([row[name] for row in rows]) for name in ("match", "dropped"))
        # MILM counts on matching pairs only: a caption that is not the picture's says nothing about it
        false = (match == 0) & ~dropped
        wholly_masked = batch.pop("wholly_masked")
        for name in ("image_labels", "text_labels"):
            batch[name][false] = IGNORED
        for name, budget, stream in (
            ("image", self.predicted_cells, CELL_POSITIONS),
            ("text", self.predicted_words, WORD_POSITIONS),
        ):
            labels = batch[f"{name}_labels"]
            if budget is not None and budget < labels.shape[1]:
                batch[f"{name}_positions"] = predicted_positions(labels, budget, noise.stream(stream))
        if self.match_captions:
            batch["match"] = self._apart(encoded["match"], length, length) | {"labels": matches}
        else:
            batch["match_labels"] = np.where(dropped | wholly_masked, IGNORED, match)
        if self.label_names:
            batch["labels"] = np.stack([row["labels"] for row in rows])
        if self.contrast_pairs:
            batch["contrast"] = self._contrast(samples, known, said, batch["image_labels"] != IGNORED, length)
        plans = [row["plan_codes"] for row in rows]
        if plans[0] is not None:
            batch["plan_codes"] = np.stack(plans)
        batch["label_counts"] = self._counts(batch)
        return _tensors(batch)

    @staticmethod
    def _counts(batch: Mapping[str, Any]) -> np.ndarray:
        """How many labels each term of the loss counts [5], in the order of `LOSS_TERMS`."""
        image, text = (
            np.take_along_axis(batch[f"{name}_labels"], batch[f"{name}_positions"], 1)
            if f"{name}_positions" in batch
            else batch[f"{name}_labels"]
            for name in ("image", "text")
        )
        match = batch["match"]["labels"] if "match" in batch else batch["match_labels"]
        none = np.empty(0)
        counted = (
            text,
            image,
            match,
            batch.get("labels", none),
            batch.get("contrast", {}).get("labels", none),
        )
        return np.array([(labels >= 0).sum() for labels in counted], np.float32)

    def mask_pairs(
        self,
        captions: Sequence[Sequence[int]],
        codes: np.ndarray,
        noise: SampleNoise,
        regions: Sequence[np.ndarray | None] | None = None,
        length: int | None = None,
    ) -> dict[str, Any]:
        """
        Captions (ids with a special token at both ends) and codes [B, N] → `input_ids`, `attention_mask` and
        `text_labels` [B, length], `image_codes`, `image_mask` and `image_labels` [B, N], and `wholly_masked` [B]: no
        word is left. Cells without pixels (code −1) have no label.

        Args:
            regions: masks [N] that take the place of the drawn ones, where they are not None.
            length: to which captions are padded; that of the longest where it is not given.
        """
        lengths = np.array([len(caption) for caption in captions])
        input_ids = _pad(captions, lengths, self.tokenizer.pad_token_id, length)
        masked_ids, text_labels = self._mask_words(input_ids, lengths, noise)
        image_mask = image_masks(codes.shape[1], self.image_laws, noise)
        for row, region in enumerate(regions or ()):
            if region is not None:
                image_mask[row] = region
        masked = (text_labels != IGNORED).sum(1)
        return {
            "image_codes": codes,
            "image_mask": image_mask,
            "image_labels": np.where(image_mask & (codes >= 0), codes, IGNORED),
            "input_ids": masked_ids,
            "attention_mask": (np.arange(masked_ids.shape[1]) < lengths[:, None]).astype(np.int64),
            "text_labels": text_labels,
            "wholly_masked": (lengths > 2) & (masked == lengths - 2),
        }

    def _sample(self, sample: dict[str, Any]) -> dict[str, Any]:
        """What is drawn for a sample alone: picture, caption, whether they match."""
        table, row = self._face(sample)
        generator = sample_generator(self.seed, sample["epoch"], sample.get("id", row))
        if self.match_captions:
            picture, caption, match = row, self._own_caption(table, row, generator), 1
        else:
            picture, caption, match = self._pair(table, row, generator)
        version = generator.integers(table.codes.shape[1])
        plan_codes = None
        if self.plan:
            if table.plan_codes is None:
                raise ValueError("the rows have no plan codes: encode them with an image tokenizer that has a plan")
            codes = _signed(table.plan_codes[picture, version])
        else:
            codes = _signed(table.codes[picture, version])
            if table.plan_codes is not None:
                plan_codes = _signed(table.plan_codes[picture, version])
                if generator.random() < self.plan_dropout:
                    plan_codes[:] = ABSENT_CODE
        region = self._region_mask(len(codes), caption, generator)
        dropped = generator.random() < self.caption_dropout
        return {
            "image_codes": codes,
            "plan_codes": plan_codes,
            "region": region,
            "text": "" if dropped else caption.text,
            "dropped": dropped,
            "match": match,
            "labels": self._labels(table.labels[picture], {} if dropped else caption.mentions),
            "mentions": {} if dropped else caption.mentions,
        }

    def _own_caption(self, table: CodeTable, row: int, generator: np.random.Generator) -> Caption:
        return table.caption(row, generator, self.max_mentions, self.plain_captions)

    def _match_all(
        self,
        samples: list[dict[str, Any]],
        faces: list[tuple[CodeTable, int]],
        known: np.ndarray,
        said: np.ndarray,
    ) -> tuple[list[str], np.ndarray]:
        """
        Captions of faces of the batch, P texts, and whether each picture matches each of them [B, P].

        Each caption counts for as many pictures that match as for others, so that the words alone tell nothing. A
        picture does not count where nothing is known of it, or where its own caption, which the model reads beside it,
        speaks of the same.

        Args:
            known, said: what is known of the pictures, and what their own captions say, see [`label_matrix`].
        """
        generator = self._batch_generator(samples, MATCHES)
        texts = np.array([(table.texts[row] or "").casefold() for table, row in faces])
        captions, labels = [], np.full((len(faces), self.match_captions), IGNORED)
        for column in range(self.match_captions):
            caption = self._own_caption(*faces[int(generator.integers(len(faces)))], generator)
            captions.append(caption.text)
            if caption.mentions:
                stated = label_matrix([caption.mentions])[0] != UNKNOWN
                truth = np.where((said[:, stated] != UNKNOWN).any(1), IGNORED, truths(caption.mentions, known))
            else:  # a weak caption is true of its own picture only
                truth = np.where(texts == "", IGNORED, texts == caption.text.casefold())
            sides = [generator.permutation(np.flatnonzero(truth == value)) for value in (0, 1)]
            for side in sides:
                chosen = side[: min(map(len, sides))]
                labels[chosen, column] = truth[chosen]
        return captions, labels

    def _contrast(
        self, samples: list[dict[str, Any]], known: np.ndarray, said: np.ndarray, labelled: np.ndarray, length: int
    ) -> dict[str, np.ndarray]:
        """Opposite phrases, the pictures and cells that they speak of, and which are true: see [`contrast_pairs`]."""
        generator = self._batch_generator(samples, CONTRASTS)
        design = (self.contrast_attributes, self.contrast_pairs, self.contrast_cells)
        pairs = contrast_pairs(known, said, labelled, *design, generator)
        asked = pairs.pop("asked")
        phrases = [self._opposite_captions[2 * attribute + value] for attribute in asked for value in (0, 1)]
        return self._apart(phrases, max(map(len, self._opposite_captions)), length) | pairs

    @cached_property
    def _opposite_captions(self) -> list[list[int]]:
        """The same in every batch."""
        return self._encode(opposite_phrases())

    def _apart(self, captions: Sequence[Sequence[int]], length: int, row_length: int) -> dict[str, np.ndarray]:
        """Captions that stand apart from the samples, padded [P, length], and how they are packed."""
        lengths = np.array([len(caption) for caption in captions])
        return {
            "input_ids": _pad(captions, lengths, self.tokenizer.pad_token_id, length),
            "attention_mask": (np.arange(length) < lengths[:, None]).astype(np.int64),
            "packing": self._packed(captions, length, row_length),
        }

    def _packed(self, captions: Sequence[Sequence[int]], length: int, row_length: int) -> np.ndarray:
        """See [`packed_rows`]."""
        unit = max(1, round(self.packing * len(captions) * length / row_length))
        return packed_rows([len(caption) for caption in captions], length, row_length, unit)

    def _batch_generator(self, samples: list[dict[str, Any]], purpose: int) -> np.random.Generator:
        """Derives from the batch's first sample."""
        first = samples[0]
        return sample_generator(self.seed, first["epoch"], first.get("id", first["row"]) + purpose)

    def _face(self, sample: dict[str, Any]) -> tuple[CodeTable, int]:
        return cast(CodeTable, sample.get("table", self.table)), sample["row"]

    def _encode(self, texts: list[str]) -> list[list[int]]:
        return self.tokenizer(texts, truncation=True, max_length=self.max_text_length)["input_ids"]

    def _labels(self, known: Mapping[str, int], mentions: Mapping[str, int]) -> np.ndarray:
        asked = [UNKNOWN if name in mentions else known.get(name, UNKNOWN) for name in self.label_names]
        return np.array(asked, np.int64)

    def _pair(self, table: CodeTable, row: int, generator: np.random.Generator) -> tuple[int, Caption, int]:
        """
        Row of the picture, caption, and whether they match (1, 0, or −100 where no false caption was found).

        Two faces are drawn whose captions are false of each other; which of them is the picture, and whether its
        caption is its own, are two coins. So neither the words nor the picture alone tell anything about the match:
        were a phrase of the own caption flipped instead, rare phrases would be false more often than true.
        """
        own = self._own_caption(table, row, generator)
        partner = self._partner(table, row, own, generator)
        if partner is None:
            return row, own, IGNORED
        faces = [(row, own), partner]
        if generator.random() < 0.5:
            faces.reverse()
        match = int(generator.random() >= self.match_negatives)
        return faces[0][0], faces[1 - match][1], match

    def _partner(
        self, table: CodeTable, row: int, own: Caption, generator: np.random.Generator
    ) -> tuple[int, Caption] | None:
        """Another face and its caption, each caption false of the other face; None where the candidates had none."""
        alike = generator.random() < self.counterfactuals and bool(own.mentions) and table.emotions[row] is None
        best: tuple[int, int, dict[str, int]] | None = None
        for stranger in generator.integers(len(table), size=CANDIDATES).tolist():
            if alike:
                mentions = mentions_of_other(own.mentions, table.labels[stranger])
                caption = None
            else:
                caption = self._own_caption(table, stranger, generator)
                mentions = caption.mentions
            wrong = table.contradictions(caption or Caption("", mentions), row)
            if not wrong or not table.contradictions(own, stranger):
                continue
            if caption is not None:
                return stranger, caption
            if best is None or wrong < best[0]:
                best = (wrong, stranger, mentions)
            if wrong == 1:
                break
        if best is None:
            return None
        say = render_plainly if generator.random() < self.plain_captions else render
        return best[1], Caption(say(best[2], generator), best[2])

    def _region_mask(self, cells: int, caption: Caption, generator: np.random.Generator) -> np.ndarray | None:
        """Mask [cells] of a region that the caption speaks of; None where the cells are masked by the laws."""
        if generator.random() >= self.region_masks:
            return None
        placed = [mention for mention in sorted(caption.mentions.items()) if phrase_regions(*mention)]
        if not placed:
            return None
        regions = phrase_regions(*choose(placed, generator))
        region = cells_of_regions(regions, round(cells**0.5)).reshape(-1)
        # wholly masked as decoding begins, or in part as it goes on
        shown = 0.0 if generator.random() < 0.5 else generator.random()
        return region & (generator.random(cells) >= shown)

    def _mask_words(
        self, input_ids: np.ndarray, lengths: np.ndarray, noise: SampleNoise
    ) -> tuple[np.ndarray, np.ndarray]:
        """Padded ids [B, T] with special tokens at both ends → (masked ids, labels), special tokens never masked."""
        law, noise = self.text_law, noise.stream(WORDS)
        draw, share = noise.uniform(2).T
        high = (draw >= law.unmasked) & (draw < law.unmasked + law.high)
        ratios = np.where(high, law.ratio + (1 - law.ratio) * share, law.ratio)
        counts = np.where(draw < law.unmasked, 0, lengths - 2)
        spans = span_masks(counts, mask_budgets(counts, ratios), noise.stream(1))
        owner = np.full(input_ids.shape, -1)
        owner[:, 1 : 1 + spans.shape[1]] = spans
        # 80 % [MASK], 10 % random words, 10 % kept, for a whole span; at high ratios all [MASK], as generation has it
        kinds = np.searchsorted([0.8, 0.9], noise.stream(2).uniform(int(owner.max()) + 1))
        kinds[high] = MASKED
        # the last column is that of what no span owns, −1
        kind = np.take_along_axis(np.pad(kinds, ((0, 0), (0, 1)), constant_values=KEPT), owner, 1)
        masked = np.where(kind == MASKED, self.tokenizer.mask_token_id, input_ids)
        rows, columns = np.nonzero(kind == RANDOM)
        drawn = noise.stream(3).entries(rows, columns)
        masked[rows, columns] = self._word_ids[(drawn * len(self._word_ids)).astype(np.int64)]
        return masked, np.where(owner >= 0, input_ids, IGNORED)


@dataclass
class ScalesCollator:
    """
    A batch for each scale, of the same samples but with draws of its own: name → what its [`PreTrainingCollator`]
    makes.

    Args:
        collators: name → collator; a model with a plan is trained with `"image"` and `"plan"`.
    """

    collators: dict[str, PreTrainingCollator]

    def __call__(self, samples: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        return {name: collator(samples) for name, collator in self.collators.items()}


def predicted_positions(labels: np.ndarray, budget: int, noise: SampleNoise) -> np.ndarray:
    """
    `budget` positions [B, budget] of labels [B, N]: those that have one, at random; where there are fewer, others
    beside them.
    """
    order = noise.uniform(labels.shape[1]) + (labels == IGNORED)
    return np.argpartition(order, budget - 1, axis=1)[:, :budget]


def packed_rows(lengths: Sequence[int], length: int, row_length: int, unit: int) -> np.ndarray:
    """
    Captions of so many words, each padded to `length`, in rows of `row_length` [R, row_length]: the numbers of their
    words, those of all padded captions counted through, −1 = none. R is a multiple of `unit`.

    The longest come first, each into the row that it fills best.
    """
    places = np.empty(len(lengths), np.int64)
    rows_by_room: list[list[int]] = [[] for _ in range(row_length + 1)]
    count = 0
    for number in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        words = lengths[number]
        room = next((room for room in range(words, row_length) if rows_by_room[room]), row_length)
        if room == row_length:
            row, count = count, count + 1
        else:
            row = rows_by_room[room].pop()
        places[number] = row * row_length + row_length - room
        rows_by_room[room - words].append(row)
    packing = np.full(-(-count // unit) * unit * row_length, -1)
    word = np.arange(length)
    numbers, inside = np.arange(len(lengths))[:, None] * length + word, word < np.array(lengths)[:, None]
    packing[(places[:, None] + word)[inside]] = numbers[inside]
    return packing.reshape(-1, row_length)


def _pad(rows: Sequence[Sequence[int]], lengths: np.ndarray, padding: int, length: int | None = None) -> np.ndarray:
    """Rows of several lengths → [rows, length], by default that of the longest."""
    padded = np.full((len(rows), lengths.max() if length is None else length), padding, np.int64)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = np.concatenate(rows)
    return padded


def _signed(codes: np.ndarray) -> np.ndarray:
    """Stored codes, uint16 → int64 with −1 for cells that the picture has no pixels for."""
    codes = codes.astype(np.int64)
    codes[codes == ABSENT] = ABSENT_CODE
    return codes


def _tensors(batch: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _tensors(value) if isinstance(value, Mapping) else torch.from_numpy(np.ascontiguousarray(value))
        for name, value in batch.items()
    }
