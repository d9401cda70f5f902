"""AUC of image-text matching on encoded validation faces.

    python benchmarks/matching.py CODES_DIR/validation/celeba178

Each face has one caption of one or two attributes (seed 0), half of them false of it; nothing is masked.
"""

import argparse
import json
from pathlib import Path

import torch

from gptface import DEFAULT_CHECKPOINT, GPTFaceForGuidedGeneration, GPTFaceTokenizer
from gptface.training.code_dataset import load_code_table
from gptface.training.collator import PreTrainingCollator, TextMaskLaw
from gptface.training.pretrain import area_under_curve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default=DEFAULT_CHECKPOINT)
    options = parser.parse_args()

    model = GPTFaceForGuidedGeneration.from_pretrained(options.model).eval()
    table = load_code_table([options.data], model.image_tokenizer.fingerprint())
    collate = PreTrainingCollator(
        table,
        GPTFaceTokenizer.from_pretrained(options.model),
        model.config.max_text_length,
        text_law=TextMaskLaw(unmasked=1.0),
        max_mentions=2,
        caption_dropout=0.0,
    )
    odds, labels = [], []
    for rows in torch.arange(len(table)).split(32):
        batch = collate([{"row": int(row), "epoch": 0} for row in rows])
        with torch.no_grad():
            inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "image_codes")}
            odds.append(model.match_log_odds(**inputs))
        labels.append(batch["match_labels"])
    scores, truth = torch.cat(odds).numpy(), torch.cat(labels).numpy()
    print(json.dumps({"auc": area_under_curve(scores[truth == 1], scores[truth == 0]), "images": len(table)}))


if __name__ == "__main__":
    main()
