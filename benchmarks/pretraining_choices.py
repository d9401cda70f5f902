"""What to choose in pre-training: models that differ in one thing, trained for the same processor time.

    OMP_NUM_THREADS=1 python -m benchmarks.pretraining_choices --codes recoded --data DATA_DIR --minutes 6 --work choices --results choices.json

`--codes` holds folders of one image tokenizer's codes: clear/celeba178, clear/celeba89, train/fer48, validation/celeba178 (stages of
`python -m gptface.training.embedded`). `start` begins with random weights (shape, optimizer, batch, data), `continued` with the embedded checkpoint
(masks, captions, terms of the loss). All follow `embedded_rare.yaml` but for what their name says. Measured: `gptface evaluate matching`, and edits of
validation faces that no report uses, by both guidances and the judge.
"""

import argparse
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.text_start import RECIPES, evaluated, train
from gptface import DEFAULT_CHECKPOINT
from gptface.commands.common import load_pipeline
from gptface.evaluation.crops import PerceptualDistance, first_crops
from gptface.evaluation.editing import EditingProtocol
from gptface.evaluation.edits import EDITS
from gptface.evaluation.judge import DEFAULT_JUDGE, AttributeJudge
from gptface.training.pretrain import PreTrainingConfig

SEED = "another seed"
#: Kind of start → what is done otherwise, as fields of [`PreTrainingConfig`]; dictionaries are merged. "" changes nothing.
ARMS: dict[str, dict[str, dict[str, Any]]] = {
    "start": {
        "": {},
        SEED: {"arguments": {"seed": 1}, "collator": {"seed": 1}},
        "256 × 4": {"model": {"num_hidden_layers": 4}},
        "256 × 9": {"model": {"num_hidden_layers": 9}},
        "384 × 4": {
            "model": {
                "hidden_size": 384,
                "intermediate_size": 1536,
                "num_attention_heads": 6,
                "num_hidden_layers": 4,
            }
        },
        "128 × 8": {
            "model": {"hidden_size": 128, "intermediate_size": 512, "num_attention_heads": 2, "num_hidden_layers": 8}
        },
        "a vector for each code": {"model": {"code_embedding": "free"}},
        "no convolution, positions at random": {"model": {"grid_convolution": False, "position_init": "normal"}},
        "AdamW, 1e-3": {"optimizer": "adamw_torch", "arguments": {"learning_rate": 1e-3}},
        "batch 8": {"arguments": {"per_device_train_batch_size": 8}},
        "batch 32": {"arguments": {"per_device_train_batch_size": 32}},
        "half-size faces left out": {"train": {"clear/celeba89": 0}},
    },
    "continued": {
        "": {},
        SEED: {"arguments": {"seed": 1}, "collator": {"seed": 1}},
        "half-size faces left out": {"train": {"clear/celeba89": 0}},
        "blocks alone": {"image_laws": [{"mode": "block", "law": "uniform", "low": 0.05, "high": 0.6}]},
        "high ratios (cosine) alone": {"image_laws": [{"mode": "random", "law": "cosine", "low": 0.0, "high": 1.0}]},
        "low ratios (5 to 40 %) alone": {
            "image_laws": [{"mode": "random", "law": "uniform", "low": 0.05, "high": 0.4}]
        },
        "no masks over the region of a phrase": {"collator": {"region_masks": 0.0}},
        "matching weighs 1 instead of 3": {"loss_weights": {"match": 1.0}},
        "8 captions a picture": {"collator": {"match_captions": 8}},
        "96 captions a picture": {"collator": {"match_captions": 96}},
        "no contrasts": {"collator": {"contrast": 0.0}},
        "long captions in many wordings": {"collator": {"max_mentions": 8, "plain_captions": 0.0}},
        "no repeats of rare attributes": {"repeat": None},
    },
}
LEARNING_RATES = {"start": 1.5e-3, "continued": 5e-4}
REPORTED_FACES = 100  # of an edit, the first in file order
FIGURES = ("success", "probability", "side_effect")


def embedded_model() -> dict[str, Any]:
    """Fields of the configuration that the embedded checkpoint began with: its recipes set them, phase after phase."""
    fields: dict[str, Any] = {}
    for phase in ("start", "main", "captions", "words", "contrast", "pictures"):
        fields |= PreTrainingConfig.from_yaml(RECIPES / f"embedded_{phase}.yaml").model
    return fields


def settings(kind: str, changes: dict[str, Any], codes: Path, target: Path) -> dict[str, Any]:
    """Fields of [`PreTrainingConfig`]: `embedded_rare.yaml` on these codes with some changes."""
    fields = vars(PreTrainingConfig.from_yaml(RECIPES / "embedded_rare.yaml")) | {"evaluation": []}
    fields |= {"output_dir": str(target), "start_from": None, "model": embedded_model() if kind == "start" else {}}
    fields["train"] = {name.removeprefix("recoded/"): weight for name, weight in fields["train"].items()}
    quiet = {"save_steps": 100_000, "eval_strategy": "no", "learning_rate": LEARNING_RATES[kind]}
    fields["arguments"] = {**fields["arguments"], **quiet}
    for name, change in changes.items():
        old = fields[name]
        fields[name] = {**old, **change} if isinstance(old, dict) and isinstance(change, dict) else change
    fields["repeat"] = fields["repeat"] or {}
    fields["train"] = {str(codes / name): weight for name, weight in fields["train"].items() if weight}
    return fields


def figures(folder: Path, codes: Path) -> dict[str, float]:
    """Matching, masked codes and words of a model by the protocol, and its parameters without the image tokenizer."""
    _, report = evaluated(folder, codes)
    return {name: value for name, value in report.items() if name != "auc_per_attribute"}


def edits(folder: Path, data: Path, names: Iterable[str], count: int) -> dict[str, dict[str, float]]:
    """Edit → success, mean probability and side effect on `count` faces that follow the reported ones."""
    pipeline, judge = load_pipeline("guided-face-editing", folder), AttributeJudge.from_file(DEFAULT_JUDGE)
    report = {}
    for name in names:
        edit = EDITS[name]
        lacking = {edit.label: 1 - edit.wanted}
        file = data / "validation/celeba178.parquet"
        faces = first_crops(file, REPORTED_FACES + count, pipeline.face_size, lacking)[REPORTED_FACES:]
        protocol = EditingProtocol(pipeline, judge, edit, faces)
        arm = protocol.report({"both": protocol.run()}, PerceptualDistance(None))["arms"]["both"]
        report[name] = {"faces": len(faces), **{figure: arm[figure] for figure in FIGURES}}
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codes", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder with validation/celeba178.parquet")
    parser.add_argument("--minutes", type=float, default=6, help="processor time of an arm's training")
    parser.add_argument("--kinds", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--arms", nargs="+", help="some of the arms alone, by name")
    parser.add_argument("--edits", nargs="*", default=["smiling", "eyeglasses"], help="of the continued arms")
    parser.add_argument("--faces", type=int, default=24, help="of each edit")
    parser.add_argument("--work", type=Path, required=True, help="folder for the models")
    parser.add_argument("--results", type=Path, required=True, help="JSON file; arms that it holds are not run again")
    options = parser.parse_args()
    results = json.loads(options.results.read_text()) if options.results.exists() else {}
    for kind in options.kinds:
        for name, changes in ARMS[kind].items():
            key = f"{kind}: {name or 'as it is'}"
            if key in results or (options.arms is not None and name not in options.arms):
                continue
            target = options.work / re.sub(r"\W+", "_", key)
            start = Path(DEFAULT_CHECKPOINT) if kind == "continued" else None
            cost = train(settings(kind, changes, options.codes, target), options.minutes, start)
            results[key] = {**cost, **figures(target / "final", options.codes)}
            if kind == "continued":
                results[key]["edits"] = edits(target / "final", options.data, options.edits, options.faces)
            options.results.write_text(json.dumps(results, indent=1, ensure_ascii=False))
            print(key, results[key], flush=True)


if __name__ == "__main__":
    main()
