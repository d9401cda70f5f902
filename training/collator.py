"""Batches for pre-training: masks, captions and mismatched captions of encoded faces."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from .captions import contradicts, counterfactual, render, render_plainly
from .code_dataset import CodeTable
from .masking import MaskLaw, image_mask, sample_generator, span_mask

IGNORED = -100
UNKNOWN = -1
MASKED, RANDOM, KEPT = 0, 1, 2


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
        image_laws: mixture of mask laws for the grid.
        match_negatives: share of samples whose caption is not theirs.
        counterfactuals: share of those whose caption is their own with up to half of its attributes flipped; the others
            get the caption of another face, which contradicts at least one of their labels.
        max_mentions: most attributes that a caption names. Words are cheap beside the cells: long captions teach more a step.
        plain_captions: share of captions that list committed phrases ("smiling, eyeglasses"): with one wording for each
            attribute its meaning is learned from far fewer pairs.
        caption_dropout: share of samples whose caption is dropped; they carry no ITM loss.
        label_names: labels of the auxiliary head, in its order; none where it is empty.
    """

    table: CodeTable
    tokenizer: PreTrainedTokenizerBase
    max_text_length: int
    image_laws: list[MaskLaw] = field(default_factory=lambda: [MaskLaw()])
    text_law: TextMaskLaw = field(default_factory=TextMaskLaw)
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

    def __call__(self, samples: list[dict[str, int]]) -> dict[str, torch.Tensor]:
        rows = [self._sample(sample["row"], sample["epoch"]) for sample in samples]
        batch = {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in _GRID_FIELDS}
        length = max(len(row["input_ids"]) for row in rows)
        for name, padding in (("input_ids", self.tokenizer.pad_token_id), ("text_labels", IGNORED)):
            padded = np.full((len(rows), length), padding)
            for index, row in enumerate(rows):
                padded[index, : len(row[name])] = row[name]
            batch[name] = torch.from_numpy(padded)
        if self.label_names:
            known = [self.table.labels[sample["row"]] for sample in samples]
            batch["labels"] = torch.tensor([[row.get(name, UNKNOWN) for name in self.label_names] for row in known])
        batch["attention_mask"] = (batch["input_ids"] != self.tokenizer.pad_token_id).long()
        return batch

    def _sample(self, row: int, epoch: int) -> dict[str, np.ndarray]:
        generator = sample_generator(self.seed, epoch, row)
        codes = self.table.codes[row, generator.integers(2)].astype(np.int64)
        mask = image_mask(len(codes), self.image_laws, generator)
        text, matches = self._caption(row, generator)
        dropped = generator.random() < self.caption_dropout
        input_ids = np.array(
            self.tokenizer.encode("" if dropped else text, truncation=True, max_length=self.max_text_length)
        )
        masked_ids, text_labels = self._mask_words(input_ids, generator)
        wholly_masked = len(input_ids) > 2 and bool((text_labels[1:-1] != IGNORED).all())
        return {
            "image_codes": codes,
            "image_mask": mask,
            # MILM counts on matching pairs only: a caption that is not the picture's says nothing about it
            "image_labels": np.where(mask & matches, codes, IGNORED),
            "input_ids": masked_ids,
            "text_labels": np.where(matches, text_labels, IGNORED),
            "match_labels": np.array(IGNORED if dropped or wholly_masked else int(matches)),
        }

    def _caption(self, row: int, generator: np.random.Generator) -> tuple[str, bool]:
        """A caption and whether it matches the picture."""
        own = self.table.caption(row, generator, self.max_mentions, self.plain_captions)
        if generator.random() >= self.match_negatives:
            return own.text, True
        if generator.random() < self.counterfactuals:
            flipped = self._flip(own.mentions, generator)
            if contradicts(flipped, self.table.labels[row]):
                say = (
                    render_plainly
                    if generator.random() < self.plain_captions and self.table.emotions[row] is None
                    else render
                )
                return say(flipped, generator), False
        # ten other faces are enough: few captions are true of all of them
        for _ in range(10):
            stranger = int(generator.integers(len(self.table)))
            other = self.table.caption(stranger, generator, self.max_mentions, self.plain_captions)
            if contradicts(other.mentions, self.table.labels[row]):
                return other.text, False
        return own.text, True

    @staticmethod
    def _flip(mentions: dict[str, int], generator: np.random.Generator) -> dict[str, int]:
        """Mentions with one to half of them flipped; as they are where none can be."""
        for _ in range(int(generator.integers(1, max(1, len(mentions) // 2) + 1))):
            mentions = counterfactual(mentions, generator) or mentions
        return mentions

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


_GRID_FIELDS = ("image_codes", "image_mask", "image_labels", "match_labels")
