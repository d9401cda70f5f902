"""Does a pre-trained text encoder help as the start? GPTFace models pre-trained for the same time, from it and from random weights.

    python benchmarks/text_start.py --encoder all-MiniLM-L6-v2 --codes recoded --minutes 20 --work text_start --results text_start.json

`--codes` holds folders that `gptface encode` wrote: train/celeba178, train/celeba89, validation/celeba178. Minutes are processor time
of the steps: those of a short run tell how many fit. Models: `own` (the embedded checkpoint's shape and vocabulary, random), `encoder`
(shape, weights and pruned vocabulary of the encoder), `shape` (its shape and vocabulary, random) and `vectors` (the embedded
checkpoint's shape, random, but for the encoder's word vectors, by PCA in its width). What is measured: the protocol of `gptface evaluate matching`, and the AUC of
prompts with words that no caption had (`UNSEEN`).
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gptface import DEFAULT_CHECKPOINT, GPTFaceConfig, GPTFaceForPreTraining, GPTFaceTokenizer
from gptface.conversion.bert import convert_bert, read_wordpiece_vocabulary
from gptface.evaluation.faces import load_faces
from gptface.evaluation.matching import MatchingEvaluation
from gptface.modeling_gptface.modeling_gptface import grid_sine_positions
from gptface.training.phrases import SAYABLE
from gptface.training.pretrain import PreTrainingConfig, pretrain
from gptface.training.scores import area_under_curve

RECIPES = Path(__file__).parents[1] / "training" / "recipes"
# Words for what no phrase of the captions says so: (attribute, value) → prompts.
UNSEEN = {
    ("Eyeglasses", 1): ("eyewear", "specs", "lenses"),
    ("Smiling", 1): ("beaming", "amused", "delighted", "friendly"),
    ("Male", 1): ("boy", "father", "husband", "businessman"),
    ("Male", 0): ("girl", "mother", "wife", "actress"),
    ("Blond_Hair", 1): ("yellow hair", "platinum hair"),
    ("Black_Hair", 1): ("raven hair", "ebony hair"),
    ("Heavy_Makeup", 1): ("cosmetics", "glamorous"),
    ("Wearing_Lipstick", 1): ("glossy lips", "crimson lips"),
    ("Young", 1): ("teenager", "student", "juvenile"),
    ("Young", 0): ("grandfather", "grandmother", "retired"),
    ("Chubby", 1): ("fat", "overweight"),
    ("Mouth_Slightly_Open", 1): ("talking", "shouting"),
    ("Wavy_Hair", 1): ("curls", "frizzy hair"),
}
FREQUENT_WORDS = 6000  # of the encoder's vocabulary, which is sorted by frequency


def check_unseen() -> None:
    """Raises `ValueError` for a prompt all of whose words captions use."""
    slots = ("nouns", "before", "with_", "wear", "doing", "without", "own", "alone")
    sets = [phrases for values in SAYABLE.values() for phrases in values.values()]
    seen = {word for phrases in sets for slot in slots for text in getattr(phrases, slot) for word in text.split()}
    for prompts in UNSEEN.values():
        for prompt in prompts:
            if set(prompt.split()) <= seen:
                raise ValueError(f"captions have the words of {prompt!r}")


def unseen_words(judge: MatchingEvaluation, most: int = 60) -> dict[str, float]:
    """Prompt → AUC of its log-odds between at most `most` faces that have what it means and as many that have not."""
    report = {}
    for index, ((name, value), prompts) in enumerate(UNSEEN.items()):
        chosen = judge.faces_by_value(name, (value, 1 - value), most, 3, index)
        for prompt in prompts:
            report[prompt] = area_under_curve(*(judge.log_odds(rows, [prompt] * len(rows)) for rows in chosen))
    return report


def recipe(codes: Path, target: Path, learning_rate: float) -> dict[str, Any]:
    """`embedded_words.yaml` on these codes: the phase in which matching is learned."""
    config = PreTrainingConfig.from_yaml(RECIPES / "embedded_words.yaml")
    arguments = {**config.arguments, "learning_rate": learning_rate, "save_steps": 100_000}
    arguments |= {"eval_strategy": "no", "logging_steps": 25}
    return {
        **vars(config),
        "output_dir": str(target),
        "start_from": None,
        "train": {str(codes / "train" / name): weight for name, weight in (("celeba178", 2), ("celeba89", 1))},
        "evaluation": [],
        "arguments": arguments,
    }


def converted(encoder: Path, target: Path) -> Path:
    """The encoder as a model folder, its vocabulary pruned to frequent words and the prompts of `UNSEEN`."""
    if not target.exists():
        vocabulary = read_wordpiece_vocabulary(encoder)
        words = [word for word, i in vocabulary.items() if i < FREQUENT_WORDS and word.isascii() and word.isalpha()]
        prompts = [phrase for prompts in UNSEEN.values() for phrase in prompts]
        convert_bert(encoder, DEFAULT_CHECKPOINT, target, words + prompts, max_text_length=40)
    return target


@torch.no_grad()
def make_start(kind: str, source: Path, target: Path) -> None:
    """
    A model to begin with, from a converted encoder, with the parts that the embedded checkpoint has besides: sums of the
    levels of a code, sine positions of the cells, convolutions over the grid.
    """
    shape = PreTrainingConfig.from_yaml(RECIPES / "embedded_start.yaml").model
    extra = {name: shape[name] for name in ("code_embedding", "grid_convolution", "position_init")}
    torch.manual_seed(0)
    model = GPTFaceForPreTraining.from_pretrained(source, **extra)
    words = model.get_input_embeddings().weight
    if kind == "encoder":
        cells = model.gptface.embeddings.position_embeddings.weight[model.config.max_text_length :]
        sines = grid_sine_positions(model.config.grid_size, model.config.hidden_size)
        cells.copy_(sines * cells.std() / sines.std())
    else:
        config, image_tokenizer = model.config, model.image_tokenizer.state_dict()
        if kind == "vectors":
            tokens = {
                f"{name}_token_id": getattr(config, f"{name}_token_id") for name in ("pad", "cls", "sep", "mask")
            }
            codes = config.image_tokenizer_config.to_dict()
            config = GPTFaceConfig(image_tokenizer_config=codes, vocab_size=config.vocab_size, **tokens, **shape)
        model = GPTFaceForPreTraining(config)
        model.image_tokenizer.load_state_dict(image_tokenizer)
        if kind == "vectors":
            table = model.get_input_embeddings().weight
            centred = words - words.mean(0)
            projected = centred @ torch.linalg.svd(centred, full_matrices=False).Vh[: table.shape[1]].T
            table.copy_(projected * table.std() / projected.std())
    model.save_pretrained(target)
    GPTFaceTokenizer.from_pretrained(source).save_pretrained(target)


def train(settings: dict[str, Any], minutes: float, start: Path | None) -> dict[str, float]:
    """Pre-trains for the steps that fit; their number and the processor time that they took."""
    if start:
        settings["start_from"] = str(start)
    else:
        shape = PreTrainingConfig.from_yaml(RECIPES / "embedded_start.yaml")
        settings["image_tokenizer"], settings["vocab_size"] = str(DEFAULT_CHECKPOINT), shape.vocab_size
        settings["model"] = {**shape.model, **settings["model"]}
    seconds = []
    target, arguments = settings["output_dir"], settings["arguments"]
    for steps in (3, 15):
        began = time.process_time()
        trial = {**settings, "output_dir": f"{target}_{steps}", "arguments": {**arguments, "max_steps": steps}}
        pretrain(PreTrainingConfig(**trial))
        seconds.append((time.process_time() - began) / torch.get_num_threads())
    steps = round(minutes * 60 / (seconds[1] - seconds[0]) * 12)
    began = time.process_time()
    pretrain(PreTrainingConfig(**{**settings, "arguments": {**arguments, "max_steps": steps}}))
    return {"steps": steps, "seconds": (time.process_time() - began) / torch.get_num_threads()}


def evaluated(folder: Path, codes: Path) -> tuple[MatchingEvaluation, dict[str, Any]]:
    """The evaluation of a model on validation faces, and its figures; its parameters are those besides the image tokenizer."""
    model = GPTFaceForPreTraining.from_pretrained(folder).eval()
    faces = load_faces(str(codes / "validation/celeba178"), model.image_tokenizer, "celeba")
    judge = MatchingEvaluation(model, GPTFaceTokenizer.from_pretrained(folder), faces)
    parameters = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("image_tokenizer"))
    return judge, {"parameters": parameters, **judge.matching(), **judge.masked(), **judge.mouth()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", type=Path, required=True, help="folder of a BERT-shaped encoder")
    parser.add_argument("--codes", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument(
        "--arms", nargs="+", default=["own=1.5e-3", "encoder=1.5e-3", "shape=1.5e-3", "encoder=5e-4", "vectors=1.5e-3"],
        help="model=learning rate",
    )  # fmt: skip
    parser.add_argument("--work", type=Path, required=True, help="folder for the models")
    parser.add_argument("--results", type=Path, required=True)
    options = parser.parse_args()
    check_unseen()
    results = json.loads(options.results.read_text()) if options.results.exists() else {}
    for arm in options.arms:
        if arm in results:
            continue
        kind, rate = arm.split("=")
        target, start = options.work / arm, None
        if kind != "own":
            start = options.work / kind
            if not start.exists():
                make_start(kind, converted(options.encoder, options.work / "converted"), start)
        cost = train(recipe(options.codes, target, float(rate)), options.minutes, start)
        judge, figures = evaluated(target / "final", options.codes)
        words = unseen_words(judge)
        results[arm] = {**cost, **figures}
        results[arm] |= {"unseen_words": words, "auc_unseen_words": float(np.mean(list(words.values())))}
        options.results.write_text(json.dumps(results, indent=1))
        print(arm, {name: value for name, value in results[arm].items() if not isinstance(value, dict)}, flush=True)


if __name__ == "__main__":
    main()
