"""Gives the model and collator of before the merge the interface that the Trainer expects: loss weights in, label counts out."""

import torch

from gptface.modeling_gptface.heads_gptface import GPTFaceForPreTraining
from gptface.training.collator import PreTrainingCollator
from gptface.training.trainer import TERMS

LABELS = ("text_labels", "image_labels", "match_labels", "labels", "contrast_labels")


def install() -> None:
    forward, collate = GPTFaceForPreTraining.forward, PreTrainingCollator.__call__

    def weighted(self, *args, loss_weights=None, **kwargs):
        outputs = forward(self, *args, **kwargs)
        if loss_weights is not None:
            terms = [(w, getattr(outputs, n)) for w, n in zip(loss_weights, TERMS, strict=True)]
            outputs.loss = sum(w * value for w, value in terms if value is not None)
        return outputs

    def counting(self, samples):
        batch = collate(self, samples)
        counts = [(batch[n] >= 0).sum() if n in batch else torch.tensor(0) for n in LABELS]
        return {**batch, "label_counts": torch.stack(counts).float()}

    GPTFaceForPreTraining.forward, PreTrainingCollator.__call__ = weighted, counting


install()
