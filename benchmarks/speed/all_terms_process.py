"""
One implementation of the pre-training step with all terms of the loss, in a process of its own: run in the folder of
its tree with the arguments CELLS WIDTH LAYERS HEADS FEED_FORWARD BATCH THREADS. It reads what to do line by line and
answers each with a line of JSON: `step` (forward, backward, AdamW), `operators` of a forward and a backward, `collate`
(a batch of all faces), `clock` (seconds of its CPU time).

It imports nothing of the benchmarks: the tree may be an older one, whose collator has other arguments.
"""

import dataclasses
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gptface import GPTFaceConfig, GPTFaceForPreTraining

if Path("data").is_dir():
    from gptface.data.batch_masking import MaskLaw
    from gptface.data.code_dataset import CodeTable
    from gptface.data.phrases import PHRASES
    from gptface.training.pretraining import train_vocabulary
    from gptface.training.pretraining_collator import PreTrainingCollator
else:  # an older tree, in which all of it lay in one folder
    from gptface.training.batch_masking import MaskLaw
    from gptface.training.code_dataset import CodeTable
    from gptface.training.collator import PreTrainingCollator
    from gptface.training.phrases import PHRASES
    from gptface.training.pretrain import train_vocabulary

ATTRIBUTES = tuple(PHRASES)
LEVELS = (8, 8, 8, 8)
TEXT_LENGTH = 40
FACES = 512
LAWS = [
    MaskLaw("block", "uniform", 0.05, 0.6, 0.4),
    MaskLaw("random", "uniform", 0.1, 0.9, 0.3),
    MaskLaw("random", "cosine", 0.0, 1.0, 0.3),
]
#: Operators that compute nothing, in the names of aten.
VIEWS = ("view", "_unsafe_view", "t", "transpose", "permute", "expand", "slice", "select", "split", "split_with_sizes")
VIEWS += ("squeeze", "unsqueeze", "alias", "detach")


class Operators(TorchDispatchMode):
    """Counts operators by name."""

    def __init__(self):
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[operator.overloadpacket.__name__] += 1
        return operator(*args, **(kwargs or {}))


def make_table(cells: int) -> CodeTable:
    """Faces of random codes and attributes."""
    generator = np.random.default_rng(0)
    codes = generator.integers(0, np.prod(LEVELS), (FACES, 2, cells)).astype(np.uint16)
    labels = [{name: int(generator.integers(2)) for name in ATTRIBUTES} for _ in range(FACES)]
    return CodeTable(codes, labels, [None] * FACES)


def make_collator(table: CodeTable, tokenizer: Any, batch: int, captions: int, pairs: int) -> PreTrainingCollator:
    """
    All terms: so many captions that are matched with every picture, so many pairs of opposite phrases, attributes.
    """
    fields = {field.name for field in dataclasses.fields(PreTrainingCollator)}
    if "contrast_pairs" in fields:
        design = {"contrast_pairs": pairs, "contrast_attributes": 12, "predicted_cells": table.codes.shape[2] // 2}
    else:  # a share of the attributes, of all pictures and codes that there are
        design = {"contrast": 0.35}
    return PreTrainingCollator(
        table,
        tokenizer,
        TEXT_LENGTH,
        LAWS,
        region_masks=0.5,
        match_captions=captions,
        max_mentions=3,
        plain_captions=0.5,
        caption_dropout=0.15,
        label_names=ATTRIBUTES,
        **design,  # type: ignore[arg-type]
    )


def make_model(tokenizer: Any, cells: int, width: int, layers: int, heads: int, feed_forward: int) -> Any:
    """As the embedded checkpoint is built, with random weights."""
    torch.manual_seed(0)
    attributes = {"labels": list(ATTRIBUTES), "problem_type": "multi_label_classification", "trained": True}
    side = round(cells**0.5)
    config = GPTFaceConfig(
        image_tokenizer_config={
            "image_size": 8 * side,
            "fsq_levels": list(LEVELS),
            "hidden_channels": 8,
            "latent_channels": 8,
        },
        vocab_size=len(tokenizer),
        max_text_length=TEXT_LENGTH,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=feed_forward,
        code_embedding="levels",
        position_init="sine",
        grid_convolution=True,
        text_attention_bias=3.0,
        caption_reader=True,
        match_head="cross",
        heads={"attributes": attributes},
        auxiliary_head="attributes",
        pad_token_id=tokenizer.pad_token_id,
        cls_token_id=tokenizer.cls_token_id,
        sep_token_id=tokenizer.sep_token_id,
        mask_token_id=tokenizer.mask_token_id,
    )
    return GPTFaceForPreTraining(config).train()


def commands(cells: int, width: int, layers: int, heads: int, feed_forward: int, batch: int) -> dict[str, Callable]:
    """What this process can be told to do."""
    table = make_table(cells)
    tokenizer = train_vocabulary(table, 700, TEXT_LENGTH, captions=2000)
    collator = make_collator(table, tokenizer, batch, captions=2 * batch, pairs=3 * batch)
    model = make_model(tokenizer, cells, width, layers, heads, feed_forward)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5, fused=True)
    drawn = 0

    def collate(count: int = batch) -> dict[str, Any]:
        nonlocal drawn
        rows = [{"row": (drawn + row) % FACES, "id": drawn + row, "epoch": 0} for row in range(count)]
        drawn += count
        made = collator(rows)
        made.pop("label_counts", None)
        return made

    inputs = [collate() for _ in range(4)]
    steps = 0

    def step() -> None:
        nonlocal steps
        optimizer.zero_grad()
        model(**inputs[steps % len(inputs)]).loss.backward()
        optimizer.step()
        steps += 1

    def operators() -> dict[str, int]:
        optimizer.zero_grad()
        with Operators() as forward:
            loss = model(**inputs[0]).loss
        with Operators() as backward:
            loss.backward()
        counts = forward.counts + backward.counts
        return {
            "forward": forward.counts.total(),
            "backward": backward.counts.total(),
            "without_views": sum(count for name, count in counts.items() if name not in VIEWS),
        }

    def collate_many() -> dict[str, int]:
        collate(FACES)
        return {"samples": FACES}

    return {"step": step, "operators": operators, "collate": collate_many, "clock": time.process_time}


def main(arguments: list[str]) -> None:
    *shape, threads = map(int, arguments)
    torch.set_num_threads(threads)
    known = commands(*shape)
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        print(json.dumps(known[line.strip()]()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
