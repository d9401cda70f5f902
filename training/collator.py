"""Batches for pre-training: masks, captions and mismatched captions of encoded faces."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from .batch_masking import WORDS, MaskLaw, SampleNoise, image_masks, mask_budgets, span_masks
from .captions import Caption, mentions_of_other, render, render_plainly
from .code_dataset import IGNORED, CodeTable
from .grammar import choose
from .masking import sample_generator
from .phrase_contrast import cells_of_regions, contrast_labels, opposite_phrases, phrase_regions, placed_cells

UNKNOWN = -1
MASKED, RANDOM, KEPT = 0, 1, 2
# Other faces that are looked at for a false caption: few captions are true of all of them.
CANDIDATES = 16
# Keep what is drawn for a batch apart from what is drawn for its first sample.
MATCHES, CONTRASTS = 2**62, 2**61


@dataclass
class TextMaskLaw:
    """
    How captions are masked. A share `unmasked` keeps all words; a share `high` masks a ratio drawn from [0.15, 1] (1 = all
    words, as captioning needs); the rest masks 15 % of the words.
    """

    unmasked: float = 0.4
    high: float = 0.3
    ratio: float = 0.15


@dataclass
class PreTrainingCollator:
    """
    Rows of a [`CodeTable`] → the inputs of `GPTFaceForPreTraining`.

    Every draw derives from (seed, epoch, row), so that workers, resume and ranks change nothing. Matching and mismatched
    pairs follow one law in everything but the pairing: masks, dropped captions and special tokens tell nothing.

    Args:
        table: of the samples that do not bring theirs.
        image_laws: mixture of mask laws for the grid.
        region_masks: share of samples in which, instead, the region that one phrase of the caption speaks of is masked, wholly
            or in part: there the caption says most about the codes, and editing asks for just this.
        match_captions: captions that every picture of a batch is matched with, for `match_head="cross"`; 0: each picture is
            matched with the caption of its own sample, which is then false in a share `match_negatives` of them.
        contrast: share of the attributes that have a region of which each batch also asks, for `caption_reader`, under which of two
            opposite phrases the masked codes of the region are likelier; 0 = none, 1 = all. They cost time: see benchmarks/NOTES.md.
        match_negatives: share of samples whose caption is not theirs.
        counterfactuals: share of samples whose false caption speaks of the same attributes as the true one and differs in
            as few as can be found, best in a single one.
        max_mentions: most attributes that a caption names. Words are cheap beside the cells: long captions teach more a step.
        plain_captions: share of captions that list committed phrases ("smiling, eyeglasses"): with one wording for each
            attribute its meaning is learned from far fewer pairs.
        caption_dropout: share of samples whose caption is dropped; they carry no ITM loss.
        label_names: labels of the auxiliary head, in its order; none where it is empty. What the shown caption mentions is
            not asked for, since the head would read it off the words.
    """

    table: CodeTable | None
    tokenizer: PreTrainedTokenizerBase
    max_text_length: int
    image_laws: list[MaskLaw] = field(default_factory=lambda: [MaskLaw()])
    region_masks: float = 0.0
    text_law: TextMaskLaw = field(default_factory=TextMaskLaw)
    match_captions: int = 0
    contrast: float = 0.0
    match_negatives: float = 0.5
    counterfactuals: float = 0.5
    max_mentions: int = 5
    plain_captions: float = 0.0
    caption_dropout: float = 0.1
    label_names: Sequence[str] = ()
    seed: int = 0

    def __post_init__(self):
        if not 0 <= self.contrast <= 1:
            raise ValueError(f"contrast is a share in [0, 1], got {self.contrast}")
        vocabulary = self.tokenizer.get_vocab()
        specials = set(self.tokenizer.all_special_ids)
        self._word_ids = np.array(sorted(set(vocabulary.values()) - specials))

    def __call__(self, samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        rows = [self._sample(sample) for sample in samples]
        encoded = self.tokenizer([row["text"] for row in rows], truncation=True, max_length=self.max_text_length)
        noise = SampleNoise.of(
            self.seed,
            [sample["epoch"] for sample in samples],
            [sample.get("id", sample["row"]) for sample in samples],
        )
        codes = np.stack([row["image_codes"] for row in rows])
        batch = self.mask_pairs(encoded["input_ids"], codes, noise, [row["region"] for row in rows])
        match, dropped = (np.array([row[name] for row in rows]) for name in ("match", "dropped"))
        # MILM counts on matching pairs only: a caption that is not the picture's says nothing about it
        false = (match == 0) & ~dropped
        wholly_masked = batch.pop("wholly_masked")
        for name in ("image_labels", "text_labels"):
            batch[name][false] = IGNORED
        batch["match_labels"] = np.where(dropped | wholly_masked, IGNORED, match)
        if self.label_names:
            batch["labels"] = np.stack([row["labels"] for row in rows])
        tensors = {name: torch.from_numpy(array) for name, array in batch.items()}
        if self.match_captions:
            tensors |= self._match_all(samples, rows)
        if self.contrast:
            tensors |= self._contrast(samples, rows, batch["image_labels"] != IGNORED)
        return tensors

    def mask_pairs(
        self,
        captions: Sequence[Sequence[int]],
        codes: np.ndarray,
        noise: SampleNoise,
        regions: Sequence[np.ndarray | None] | None = None,
    ) -> dict[str, np.ndarray]:
        """
        Captions (ids with a special token at both ends) and codes [B, N] → `input_ids`, `attention_mask` and `text_labels`
        [B, longest], `image_codes`, `image_mask` and `image_labels` [B, N], and `wholly_masked` [B]: no word is left.

        Args:
            regions: masks [N] that take the place of the drawn ones, where they are not None.
        """
        lengths = np.array([len(caption) for caption in captions])
        input_ids = _pad(captions, lengths, self.tokenizer.pad_token_id)
        masked_ids, text_labels = self._mask_words(input_ids, lengths, noise)
        image_mask = image_masks(codes.shape[1], self.image_laws, noise)
        for row, region in enumerate(regions or ()):
            if region is not None:
                image_mask[row] = region
        masked = (text_labels != IGNORED).sum(1)
        return {
            "image_codes": codes,
            "image_mask": image_mask,
            "image_labels": np.where(image_mask, codes, IGNORED),
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
        codes = table.codes[picture, generator.integers(2)].astype(np.int64)
        region = self._region_mask(len(codes), caption, generator)
        dropped = generator.random() < self.caption_dropout
        return {
            "image_codes": codes,
            "region": region,
            "text": "" if dropped else caption.text,
            "dropped": dropped,
            "match": match,
            "labels": self._labels(table.labels[picture], {} if dropped else caption.mentions),
            "mentions": {} if dropped else caption.mentions,
        }

    def _own_caption(self, table: CodeTable, row: int, generator: np.random.Generator) -> Caption:
        return table.caption(row, generator, self.max_mentions, self.plain_captions)

    def _match_all(self, samples: list[dict[str, Any]], rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """
        Captions of faces of the batch [P, T] and whether each picture matches each of them [B, P].

        Each caption counts for as many pictures that match as for others, so that the words alone tell nothing. A picture does
        not count where nothing is known of it, or where its own caption, which the model reads beside it, speaks of the same.
        """
        generator = self._batch_generator(samples, MATCHES)
        faces = [self._face(sample) for sample in samples]
        captions, labels = [], np.full((len(faces), self.match_captions), IGNORED)
        for column in range(self.match_captions):
            table, row = faces[int(generator.integers(len(faces)))]
            caption = self._own_caption(table, row, generator)
            captions.append(self._encode(caption.text))
            truth = np.array(
                [
                    IGNORED if caption.mentions.keys() & shown["mentions"].keys() else other.agrees(caption, index)
                    for (other, index), shown in zip(faces, rows, strict=True)
                ]
            )
            sides = [generator.permutation(np.flatnonzero(truth == value)) for value in (0, 1)]
            for side in sides:
                chosen = side[: min(map(len, sides))]
                labels[chosen, column] = truth[chosen]
        return self._captions("match", captions) | {"match_labels": torch.from_numpy(labels)}

    def _contrast(
        self, samples: list[dict[str, Any]], rows: list[dict[str, Any]], masked: np.ndarray
    ) -> dict[str, torch.Tensor]:
        """Opposite phrases, the cells that they speak of, and which are true: see [`contrast_labels`]."""
        known = [table.labels[row] for table, row in map(self._face, samples)]
        mentions = [row["mentions"] for row in rows]
        generator = self._batch_generator(samples, CONTRASTS)
        labels = contrast_labels(known, mentions, masked, generator)
        cells = placed_cells(round(masked.shape[1] ** 0.5))
        asked = np.sort(generator.permutation(len(cells))[: max(1, round(self.contrast * len(cells)))])
        phrases = np.stack([2 * asked, 2 * asked + 1], 1).reshape(-1)
        return {name: tensor[phrases] for name, tensor in self._opposite_captions.items()} | {
            "contrast_cells": torch.from_numpy(cells[asked]),
            "contrast_labels": torch.from_numpy(labels[:, asked]),
        }

    @cached_property
    def _opposite_captions(self) -> dict[str, torch.Tensor]:
        """The same in every batch."""
        return self._captions("contrast", [self._encode(text) for text in opposite_phrases()])

    def _captions(self, name: str, captions: list[list[int]]) -> dict[str, torch.Tensor]:
        """Captions that stand apart from the samples, padded [P, T]."""
        lengths = np.array([len(caption) for caption in captions])
        ids = torch.from_numpy(_pad(captions, lengths, self.tokenizer.pad_token_id))
        mask = (ids != self.tokenizer.pad_token_id).long()
        return {f"{name}_input_ids": ids, f"{name}_attention_mask": mask}

    def _batch_generator(self, samples: list[dict[str, Any]], purpose: int) -> np.random.Generator:
        """Derives from the batch's first sample."""
        first = samples[0]
        return sample_generator(self.seed, first["epoch"], first.get("id", first["row"]) + purpose)

    def _face(self, sample: dict[str, Any]) -> tuple[CodeTable, int]:
        return cast(CodeTable, sample.get("table", self.table)), sample["row"]

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, truncation=True, max_length=self.max_text_length)

    def _labels(self, known: Mapping[str, int], mentions: Mapping[str, int]) -> np.ndarray:
        asked = [UNKNOWN if name in mentions else known.get(name, UNKNOWN) for name in self.label_names]
        return np.array(asked, np.int64)

    def _pair(self, table: CodeTable, row: int, generator: np.random.Generator) -> tuple[int, Caption, int]:
        """
        Row of the picture, caption, and whether they match (1, 0, or −100 where no false caption was found).

        Two faces are drawn whose captions are false of each other; which of them is the picture, and whether its caption is
        its own, are two coins. So neither the words nor the picture alone tell anything about the match: were a phrase of
        the own caption flipped instead, rare phrases would be false more often than true.
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
        kinds = np.searchsorted([0.8, 0.9], noise.stream(2).uniform(input_ids.shape[1]))
        kinds[high] = MASKED
        kind = np.where(owner >= 0, np.take_along_axis(kinds, np.maximum(owner, 0), 1), KEPT)
        masked = np.where(kind == MASKED, self.tokenizer.mask_token_id, input_ids)
        drawn = noise.stream(3).uniform(input_ids.shape[1])[kind == RANDOM]
        masked[kind == RANDOM] = self._word_ids[(drawn * len(self._word_ids)).astype(np.int64)]
        return masked, np.where(owner >= 0, input_ids, IGNORED)


def _pad(rows: Sequence[Sequence[int]], lengths: np.ndarray, padding: int) -> np.ndarray:
    """Rows of several lengths → [rows, longest]."""
    padded = np.full((len(rows), lengths.max()), padding, np.int64)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = np.concatenate(rows)
    return padded
