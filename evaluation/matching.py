"""`gptface evaluate matching`: image-text matching and masked modelling of a checkpoint by the fixed protocol."""

import argparse
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from gptface.data.captions import phrase_for
from gptface.data.masking import mask_budget, random_mask, sample_generator, span_mask
from gptface.metrics.ranking import area_under_curve
from gptface.modeling_gptface.heads_gptface import GPTFaceForPreTraining
from gptface.pipelines.pipeline_loading import DEFAULT_CHECKPOINT
from gptface.processing.tokenization_gptface import GPTFaceTokenizer

from .faces import LabelledFaces, load_faces
from .progress import progress
from .protocol import frequent_attributes, protocol_captions, words_only_auc

logger = logging.getLogger(__name__)

PERCENTAGES = (15, 50, 100)
# Rows and columns of the mouth on a grid of 16×16 cells over the project's face crop.
MOUTH_ROWS, MOUTH_COLUMNS = (10, 14), (4, 12)


def run_matching(options: argparse.Namespace) -> dict[str, Any]:
    """Figures of matching and of masked codes and words."""
    source = options.model or DEFAULT_CHECKPOINT
    model = GPTFaceForPreTraining.from_pretrained(source).eval()
    tokenizer = GPTFaceTokenizer.from_pretrained(source)
    faces = load_faces(options.data, model.image_tokenizer, options.layout)
    counted = load_faces(options.unigram, model.image_tokenizer, options.layout).codes if options.unigram else None
    judge = MatchingEvaluation(model, tokenizer, faces, options.batch_size)
    report = {"images": len(faces.codes), **judge.matching(options.per_attribute), **judge.masked()}
    return report | judge.mouth() | (judge.unigram(counted) if counted is not None else {})


class MatchingEvaluation:
    """
    A model and the faces that it is measured on; every method returns figures by name (losses in nats).

    Args:
        faces: codes by the model's own image tokenizer, and labels.
        seed: of captions and masks. 0 is the protocol's.

    Raises:
        ValueError: where the labels do not allow the protocol, see [`protocol_captions`].
    """

    def __init__(
        self,
        model: GPTFaceForPreTraining,
        tokenizer: PreTrainedTokenizerBase,
        faces: LabelledFaces,
        batch_size: int = 32,
        seed: int = 0,
    ):
        self.model, self.tokenizer, self.faces = model, tokenizer, faces
        self.batch_size, self.seed = batch_size, seed
        self.codes = torch.from_numpy(faces.codes)
        self.captions = protocol_captions(faces.labels, seed)
        if not model.config.match_trained:
            logger.warning("the matching head of this checkpoint has not been trained to the end of a run")

    def matching(self, per_attribute: int = 20) -> dict[str, Any]:
        """
        - `auc`: true captions against those of other faces; `auc_counterfactual`: against the same with one attribute
          flipped.
        - `words_only_auc`, `words_only_auc_counterfactual`: what the words alone reach, see [`words_only_auc`].
        - `auc_by_attribute`: mean over the attributes of the AUC of their single committed phrase between faces that
          have the attribute and faces that do not, at most `per_attribute` of each, drawn from the seed;
          `auc_per_attribute`: attribute → its AUC.
        """
        rows = np.arange(len(self.codes))
        texts = {
            kind: [getattr(caption, kind) for caption in self.captions] for kind in ("true", "false", "counterfactual")
        }
        odds = {kind: self.log_odds(rows, captions) for kind, captions in texts.items()}
        by_attribute = {}
        for index, name in enumerate(frequent_attributes(self.faces.labels)):
            positive, negative = (
                self.log_odds(chosen, [phrase_for(name, 1)] * len(chosen))
                for chosen in self.faces_by_value(name, (1, 0), per_attribute, 2, index)
            )
            by_attribute[name] = area_under_curve(positive, negative)
        return {
            "auc": area_under_curve(odds["true"], odds["false"]),
            "words_only_auc": words_only_auc(texts["true"], texts["false"]),
            "auc_counterfactual": area_under_curve(odds["true"], odds["counterfactual"]),
            "words_only_auc_counterfactual": words_only_auc(texts["true"], texts["counterfactual"]),
            "auc_by_attribute": float(np.mean(list(by_attribute.values()))),
            "auc_per_attribute": by_attribute,
        }

    def faces_by_value(self, name: str, values: tuple[int, int], most: int, *stream: int) -> list[np.ndarray]:
        """
        Row numbers of at most `most` faces for each of the values of an attribute, drawn from the seed and `stream`.
        """
        known = np.array([row.get(name, -1) for row in self.faces.labels])
        generator = sample_generator(self.seed, *stream)
        return [generator.permutation(np.flatnonzero(known == value))[:most] for value in values]

    def masked(self) -> dict[str, float]:
        """
        `code_loss_R`, `code_accuracy_R`: of R % masked cells anywhere, with the whole true caption; `word_loss_R`,
        `word_accuracy_R`: of R % of the true caption's tokens masked in spans, with the whole picture. Means over what
        is masked, all of it shown as `[MASK]`.
        """
        cells = self.codes.shape[1]
        report: dict[str, float] = {}
        for percentage in PERCENTAGES:
            ratio = percentage / 100
            code_totals, word_totals = np.zeros(3), np.zeros(3)
            for rows, batch in self._batches(np.arange(len(self.codes)), [c.true for c in self.captions]):
                generators = [sample_generator(self.seed, percentage, int(row)) for row in rows]
                masks = [random_mask(cells, mask_budget(cells, ratio), generator) for generator in generators]
                image_mask = torch.from_numpy(np.stack(masks))
                code_totals += self._code_totals(batch, image_mask)
                word_mask = torch.zeros_like(batch["input_ids"], dtype=torch.bool)
                for index, generator in enumerate(generators):
                    words = int(batch["attention_mask"][index].sum()) - 2
                    word_mask[index, 1 : 1 + words] = torch.from_numpy(span_mask(words, ratio, generator) >= 0)
                word_totals += self._word_totals(batch, word_mask)
            for name, (loss, right, count) in (("code", code_totals), ("word", word_totals)):
                report |= {f"{name}_loss_{percentage}": loss / count, f"{name}_accuracy_{percentage}": right / count}
        return report

    def mouth(self) -> dict[str, float]:
        """`mouth_loss`: of the cells of the mouth, the rest given, under the empty caption."""
        mask, totals = torch.from_numpy(self._mouth_mask()), np.zeros(3)
        for rows, batch in self._batches(np.arange(len(self.codes)), [""] * len(self.codes)):
            totals += self._code_totals(batch, mask.expand(len(rows), -1))
        return {"mouth_loss": totals[0] / totals[2]}

    def unigram(self, counted: np.ndarray) -> dict[str, float]:
        """
        `unigram_loss`, `unigram_mouth_loss`: of guessing each cell by how often its codes occur there in `counted`
        [faces, cells]: what can be had without looking at the other cells.
        """
        cells = np.arange(self.codes.shape[1])
        # add one: a code that was never seen in a cell still has a probability
        counts = np.ones((len(cells), self.model.config.num_codes))
        np.add.at(counts, (cells, counted), 1)
        losses = -np.log(counts / counts.sum(1, keepdims=True))[cells, self.faces.codes]
        return {
            "unigram_loss": float(losses.mean()),
            "unigram_mouth_loss": float(losses[:, self._mouth_mask()].mean()),
        }

    @torch.no_grad()
    def log_odds(self, rows: np.ndarray, texts: list[str]) -> np.ndarray:
        """Faces [R] (row numbers) with a caption each → log-odds [R] that they match."""
        odds = [self.model.match(**batch)[0].float() for _, batch in self._batches(rows, texts)]
        return (torch.cat(odds)[:, 1] - torch.cat(odds)[:, 0]).cpu().numpy() if odds else np.zeros(0)

    def _batches(self, rows: np.ndarray, texts: list[str]) -> Iterator[tuple[np.ndarray, dict[str, torch.Tensor]]]:
        """Row numbers and model inputs of each batch."""
        for start in progress(range(0, len(rows), self.batch_size), "faces"):
            chunk = slice(start, start + self.batch_size)
            text = self.tokenizer(
                texts[chunk],
                padding=True,
                truncation=True,
                max_length=self.model.config.max_text_length,
                return_tensors="pt",
            )
            inputs = {name: text[name] for name in ("input_ids", "attention_mask")}
            inputs["image_codes"] = self.codes[rows[chunk]]
            yield rows[chunk], {name: tensor.to(self.model.device) for name, tensor in inputs.items()}

    def _code_totals(self, batch: dict[str, torch.Tensor], image_mask: torch.Tensor) -> np.ndarray:
        """Summed loss, right guesses and count of masked cells [B, N]."""
        image_mask = image_mask.to(self.model.device)
        labels = torch.where(image_mask, batch["image_codes"], -100)
        with torch.no_grad():
            logits = self.model(**batch, image_mask=image_mask, image_labels=labels).image_logits
        return _totals(logits[labels != -100], labels[labels != -100])

    def _word_totals(self, batch: dict[str, torch.Tensor], word_mask: torch.Tensor) -> np.ndarray:
        """Summed loss, right guesses and count of masked tokens [B, T]."""
        labels = torch.where(word_mask, batch["input_ids"], -100)
        masked = torch.where(word_mask, self.model.config.mask_token_id, batch["input_ids"])
        with torch.no_grad():
            logits = self.model(**{**batch, "input_ids": masked}, text_labels=labels).text_logits
        return _totals(logits[labels != -100], labels[labels != -100])

    def _mouth_mask(self) -> np.ndarray:
        """[cells] bool; in proportion where the grid has another side than 16."""
        side = self.model.config.grid_size
        mask = np.zeros((side, side), bool)
        rows, columns = (slice(*(end * side // 16 for end in ends)) for ends in (MOUTH_ROWS, MOUTH_COLUMNS))
        mask[rows, columns] = True
        return mask.reshape(-1)


def _totals(logits: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
    """Logits [M, classes] and labels [M] → summed loss, right guesses, count."""
    loss = nn.functional.cross_entropy(logits.float(), labels, reduction="sum")
    return np.array([float(loss), int((logits.argmax(-1) == labels).sum()), len(labels)])
