"""Batches for pre-training: masks, captions and mismatched captions of encoded faces."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, cast

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from gptface.processing.regions import region_cells, regions_from_prompt

from .captions import Caption, mentions_of_other, phrase_for, render, render_plainly
from .code_dataset import IGNORED, CodeTable
from .grammar import choose
from .masking import MaskLaw, image_mask, sample_generator, span_mask
from .phrases import SAYABLE

UNKNOWN = -1
MASKED, RANDOM, KEPT = 0, 1, 2
# Other faces that are looked at for a false caption: few captions are true of all of them.
CANDIDATES = 16
# Keeps what is drawn for a batch apart from what is drawn for its first sample.
OF_THE_BATCH = 2**62


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
    match_negatives: float = 0.5
    counterfactuals: float = 0.5
    max_mentions: int = 5
    plain_captions: float = 0.0
    caption_dropout: float = 0.1
    label_names: Sequence[str] = ()
    seed: int = 0

    def __post_init__(self):
        vocabulary = self.tokenizer.get_vocab()
        specials = set(self.tokenizer.all_special_ids)
        self._word_ids = np.array(sorted(set(vocabulary.values()) - specials))

    def __call__(self, samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        rows = [self._sample(sample) for sample in samples]
        batch = {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in _GRID_FIELDS}
        for name, padding in (("input_ids", self.tokenizer.pad_token_id), ("text_labels", IGNORED)):
            batch[name] = _pad([row[name] for row in rows], padding)
        if self.match_captions:
            batch |= self._match_all(samples, rows)
        if self.label_names:
            batch["labels"] = torch.from_numpy(np.stack([row["labels"] for row in rows]))
        batch["attention_mask"] = (batch["input_ids"] != self.tokenizer.pad_token_id).long()
        return batch

    def _sample(self, sample: dict[str, Any]) -> dict[str, np.ndarray]:
        table, row = self._face(sample)
        generator = sample_generator(self.seed, sample["epoch"], sample.get("id", row))
        if self.match_captions:
            picture, caption, match = row, self._own_caption(table, row, generator), 1
        else:
            picture, caption, match = self._pair(table, row, generator)
        codes = table.codes[picture, generator.integers(2)].astype(np.int64)
        mask = self._mask_cells(len(codes), caption, generator)
        dropped = generator.random() < self.caption_dropout
        input_ids = np.array(self._encode("" if dropped else caption.text))
        masked_ids, text_labels = self._mask_words(input_ids, generator)
        wholly_masked = len(input_ids) > 2 and bool((text_labels[1:-1] != IGNORED).all())
        true = match != 0 or dropped
        return {
            "image_codes": codes,
            "image_mask": mask,
            # MILM counts on matching pairs only: a caption that is not the picture's says nothing about it
            "image_labels": np.where(mask & true, codes, IGNORED),
            "input_ids": masked_ids,
            "text_labels": np.where(true, text_labels, IGNORED),
            "match_labels": np.array(IGNORED if dropped or wholly_masked else match),
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
        first = samples[0]
        generator = sample_generator(self.seed, first["epoch"], first.get("id", first["row"]) + OF_THE_BATCH)
        faces = [self._face(sample) for sample in samples]
        captions, labels = [], np.full((len(faces), self.match_captions), IGNORED)
        for column in range(self.match_captions):
            table, row = faces[int(generator.integers(len(faces)))]
            caption = self._own_caption(table, row, generator)
            captions.append(np.array(self._encode(caption.text)))
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
        ids = _pad(captions, self.tokenizer.pad_token_id)
        return {
            "match_input_ids": ids,
            "match_attention_mask": (ids != self.tokenizer.pad_token_id).long(),
            "match_labels": torch.from_numpy(labels),
        }

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

    def _mask_cells(self, cells: int, caption: Caption, generator: np.random.Generator) -> np.ndarray:
        mask = image_mask(cells, self.image_laws, generator)
        if generator.random() >= self.region_masks:
            return mask
        placed = [mention for mention in sorted(caption.mentions.items()) if _regions(*mention)]
        if not placed:
            return mask
        regions = _regions(*choose(placed, generator))
        region = _cells(regions, round(cells**0.5)).reshape(-1)
        # wholly masked as decoding begins, or in part as it goes on
        shown = 0.0 if generator.random() < 0.5 else generator.random()
        return region & (generator.random(cells) >= shown)

    def _mask_words(self, input_ids: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Ids with special tokens at both ends → (masked ids, labels), special tokens never masked."""
        masked, labels = input_ids.copy(), np.full_like(input_ids, IGNORED)
        draw = generator.random()
        words = len(input_ids) - 2
        if words == 0 or draw < self.text_law.unmasked:
            return masked, labels
        high = draw < self.text_law.unmasked + self.text_law.high
        owner = span_mask(words, generator.uniform(self.text_law.ratio, 1) if high else self.text_law.ratio, generator)
        # 80 % [MASK], 10 % random words, 10 % kept, for a whole span; at high ratios all [MASK], as generation has it
        kinds = np.searchsorted([0.8, 0.9], generator.random(words)) if not high else np.full(words, MASKED)
        kind = kinds[owner]
        inner, masked_inner = input_ids[1:-1], masked[1:-1]
        chosen = owner >= 0
        masked_inner[chosen & (kind == MASKED)] = self.tokenizer.mask_token_id
        random_words = generator.choice(self._word_ids, size=words)
        masked_inner[chosen & (kind == RANDOM)] = random_words[chosen & (kind == RANDOM)]
        labels[1:-1][chosen] = inner[chosen]
        return masked, labels


@lru_cache
def _regions(attribute: str, value: int) -> tuple[str, ...]:
    """Named regions that the committed phrase of a mention speaks of; none for what is said of the whole picture."""
    return tuple(regions_from_prompt(phrase_for(attribute, value))) if value in SAYABLE.get(attribute, {}) else ()


_cells = lru_cache(region_cells)


def _pad(rows: list[np.ndarray], padding: int) -> torch.Tensor:
    """Rows of several lengths → [rows, longest]."""
    padded = np.full((len(rows), max(map(len, rows))), padding)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = row
    return torch.from_numpy(padded)


_GRID_FIELDS = ("image_codes", "image_mask", "image_labels", "match_labels")
