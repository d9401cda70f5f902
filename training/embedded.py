"""Everything from DATA_DIR to the embedded checkpoint: `python -m gptface.training.embedded DATA_DIR WEIGHTS_DIR WORK_DIR`.

Stages: the prototype of the image tokenizer, its codes, pre-training (four recipes), the better image tokenizer, its codes, pre-training
(three recipes), the mean of the last two, one more recipe from there, two without dark glasses, one on slightly changed copies of the
faces (minutes on a GPU, hours on a CPU), the expression head on the frozen backbone, release. Each resumes where it stopped and says how
long it took. The result lies in WORK_DIR/release.
"""

import argparse
import functools
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from gptface.evaluation.calibration import choose_thresholds
from gptface.modeling_gptface.configuration_gptface import GPTFaceImageTokenizerConfig
from gptface.modeling_gptface.heads_gptface import GPTFaceForPreTraining
from gptface.modeling_gptface.image_tokenizer_gptface import GPTFaceImageTokenizer
from gptface.processing.image_processing_gptface import GPTFaceImageProcessor
from gptface.processing.processing_gptface import GPTFaceProcessor
from gptface.processing.tokenization_gptface import GPTFaceTokenizer

from .augmentation import FaceAugmentation
from .captions import EMOTION_PHRASES
from .changed_copies import SLIGHT_CHANGES, encode_changed_copy
from .code_dataset import load_code_table
from .dark_glasses import forget_dark_glasses
from .encode import encode_parquet
from .heads import HeadTraining, image_states, train_head
from .image_tokenizer_init import load_image_tokenizer
from .image_tokenizer_training import ImageTokenizerTrainingConfig, train_image_tokenizer
from .pretrain import PreTrainingConfig, pretrain
from .release import save_release
from .weight_average import mean_of_models

logger = logging.getLogger(__name__)

RECIPES = Path(__file__).parent / "recipes"
# of the expression head: a quarter of an hour on two cores beside the codes and states; without changed copies it learns the faces by heart, see
# benchmarks/NOTES.md
EXPRESSION_HEAD = HeadTraining(epochs=10, learning_rate=2e-3, max_grad_norm=1.0)
EXPRESSION_COPIES = 3
EXPRESSION_CHANGES = FaceAugmentation(colour=0.25, rotation=10.0, scale=0.1, shift=0.05, erasing=0.0, grey=0.0)
PRETRAINING_COPIES = 4  # of every face, the first as it is
IMAGE_TOKENIZER = "tokenizer_whole_faces/final"  # the one that is released
PROTOTYPE, LPIPS = "tokenizer_prototype.safetensors", "lpips_alex.safetensors"
# file, layout, mirror images too, each how many-th row
DATA_SETS = [
    ("train/celeba178", "celeba", True, 1),
    ("validation/celeba178", "celeba", True, 1),
    ("train/celeba89", "celeba", False, 1),
    ("train/fer48", "fer48", False, 4),
    ("validation/fer48", "fer48", False, 4),
]


def make_image_tokenizer(weights: Path, target: Path) -> None:
    """The prototype tokenizer's file → a folder; weights are rounded to fp16 first, as they are released."""
    state = load_file(weights / PROTOTYPE)
    tokenizer = GPTFaceImageTokenizer(GPTFaceImageTokenizerConfig())
    tokenizer.load_state_dict(
        {key.replace("fsq.", "quantizer."): value.half().float() for key, value in state.items()}
    )
    tokenizer.save_pretrained(target)


def tokenizer_recipes(data: Path, weights: Path) -> list[ImageTokenizerTrainingConfig]:
    """The recipes of the better image tokenizer, each with what it starts from."""
    return [
        ImageTokenizerTrainingConfig.from_yaml(
            RECIPES / f"{name}.yaml", data_dir=str(data), init=start, lpips_weights=str(weights / LPIPS)
        )
        for name, start in (
            ("tokenizer", "image_tokenizer"),
            ("tokenizer_decoder", "tokenizer/final"),
            ("tokenizer_whole_faces", "tokenizer_decoder/final"),
        )
    ]


def check_files(data: Path, weights: Path, recipes: list[ImageTokenizerTrainingConfig]) -> None:
    """Raises `FileNotFoundError` at the start for what a later stage would miss after hours."""
    needed = {str(data / f"{name}.parquet") for name, *_ in DATA_SETS}
    needed |= {source.path for recipe in recipes for source in recipe.sources(recipe.train + recipe.evaluation)}
    needed |= {str(weights / PROTOTYPE), str(weights / LPIPS)}
    missing = sorted(path for path in needed if not Path(path).exists())
    if missing:
        raise FileNotFoundError(f"these files are needed too: {', '.join(missing)}")


def make_codes(data: Path, tokenizer_folder: str, target: Path) -> None:
    """All data sets as codes."""
    tokenizer = load_image_tokenizer(tokenizer_folder)
    for name, layout, flips, every in DATA_SETS:
        encode_parquet(data / f"{name}.parquet", target / name, tokenizer, layout, flips, every)


def make_mean(phases: list[Path], target: Path) -> None:
    """The mean of the weights of some checkpoints, as they would be released: a checkpoint to go on from."""
    model = mean_of_models([GPTFaceForPreTraining.from_pretrained(phase) for phase in phases])
    tokenizer = GPTFaceTokenizer.from_pretrained(phases[-1])
    save_release(model, GPTFaceProcessor(GPTFaceImageProcessor(), tokenizer), target)


def make_heads(model: GPTFaceForPreTraining, data: Path) -> None:
    """
    The expression head on the frozen backbone, from FER2013 and changed copies of it, and thresholds for the attribute head, which
    pre-training has trained along.
    """
    fingerprint = model.image_tokenizer.fingerprint()
    faces = load_code_table(["recoded/train/celeba178", "recoded/train/celeba89"], fingerprint)
    head = model.config.heads["attributes"]
    truth = np.array([[row.get(name, -1) for name in head["labels"]] for row in faces.labels])
    model.config.heads["attributes"] = {**head, "thresholds": choose_thresholds(truth).tolist()}
    # the head sees all of them, pre-training each fourth: grey pictures of 48 pixels are to be a small part of what it draws
    grey = load_code_table(encode_expressions(data, model.image_tokenizer), fingerprint)
    emotions = sorted(EMOTION_PHRASES)
    targets = torch.tensor([emotions.index(str(emotion)) for emotion in grey.emotions])
    codes = grey.codes[:, 0]
    entry = {"labels": emotions, "problem_type": "single_label_classification", "reader": "convolution"}
    train_head(model, "expression", image_states(model, codes), codes, targets, entry, EXPRESSION_HEAD)


def encode_expressions(data: Path, tokenizer: GPTFaceImageTokenizer) -> list[Path]:
    """FER2013's training faces as codes, and changed copies of them: the folders."""

    file, folders = data / "train/fer48.parquet", [Path("recoded/heads/fer48")]
    encode_parquet(file, folders[0], tokenizer, "fer48", flips=False)  # pre-training may have made them
    for copy in range(EXPRESSION_COPIES):
        folders.append(Path(f"recoded/heads/fer48_{copy}"))
        encode_changed_copy(file, "fer48", tokenizer, folders[-1], copy, EXPRESSION_CHANGES, flips=False)
    return folders


def forget_all_dark_glasses(codes: Path) -> None:
    """Training data without the labels of dark glasses."""
    tokenizer = load_image_tokenizer(IMAGE_TOKENIZER)
    for name in ("celeba178", "celeba89"):
        forget_dark_glasses(codes / "train" / name, codes / "clear" / name, tokenizer)


def make_changed_copies(data: Path, codes: Path) -> None:
    """Copies of the faces to pre-train on, without the labels of dark glasses, and all of FER2013 as it is."""
    tokenizer = load_image_tokenizer(IMAGE_TOKENIZER)
    for name in ("celeba178", "celeba89"):
        for copy in range(PRETRAINING_COPIES):
            folder = codes / "copies" / name / str(copy)
            changes = SLIGHT_CHANGES if copy else None
            encode_changed_copy(data / f"train/{name}.parquet", "celeba", tokenizer, folder, copy, changes)
            forget_dark_glasses(folder, codes / "clear_copies" / name / str(copy), tokenizer)
    encode_parquet(data / "train/fer48.parquet", codes / "heads/fer48", tokenizer, "fer48", flips=False)


def timed(name: str, done: Path | None, stage: Callable[[], object]) -> None:
    """Runs a stage unless its result is there; says how long it took. None: it looks itself what is there already."""
    if done is not None and done.exists():
        logger.info("%s: done before", name)
        return
    start = time.monotonic()
    stage()
    logger.info("%s: %.0f s", name, time.monotonic() - start)


def run_recipes(*names: str) -> None:
    """Pre-trains by recipes, one after another."""
    for name in names:
        config = PreTrainingConfig.from_yaml(RECIPES / f"{name}.yaml")
        config.arguments.setdefault("bf16", torch.cuda.is_available())
        timed(name, Path(config.output_dir) / "final", functools.partial(pretrain, config))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train/ and validation/ parquet files")
    parser.add_argument("weights", type=Path, help=f"folder with {PROTOTYPE} and {LPIPS}")
    parser.add_argument("work", type=Path, help="folder for codes, checkpoints and the result")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    data, weights, work = (path.resolve() for path in (options.data, options.weights, options.work))
    image_tokenizers = tokenizer_recipes(data, weights)
    check_files(data, weights, image_tokenizers)
    work.mkdir(parents=True, exist_ok=True)
    os.chdir(work)  # the recipes' paths are relative to it

    timed("image tokenizer", work / "image_tokenizer", lambda: make_image_tokenizer(weights, work / "image_tokenizer"))
    timed("codes", None, lambda: make_codes(data, "image_tokenizer", Path("codes")))
    run_recipes("embedded_start", "embedded_main", "embedded_captions", "embedded_words")
    for config in image_tokenizers:
        timed(config.output_dir, Path(config.output_dir) / "final", functools.partial(train_image_tokenizer, config))
    timed("better codes", None, lambda: make_codes(data, IMAGE_TOKENIZER, Path("recoded")))
    run_recipes("embedded_contrast", "embedded_pictures", "embedded_finish")
    phases = [work / name / "final" for name in ("pictures", "finish")]
    timed("mean", work / "mean/final/config.json", lambda: make_mean(phases, work / "mean/final"))
    run_recipes("embedded_settle")
    timed("dark glasses", None, lambda: forget_all_dark_glasses(Path("recoded")))
    run_recipes("embedded_glasses", "embedded_rare")
    timed("changed copies", None, lambda: make_changed_copies(data, Path("recoded")))
    run_recipes("embedded_copies")

    def heads_and_release() -> None:
        model = GPTFaceForPreTraining.from_pretrained(work / "copies/final")
        make_heads(model, data)
        tokenizer = GPTFaceTokenizer.from_pretrained(work / "copies/final")
        save_release(model, GPTFaceProcessor(GPTFaceImageProcessor(), tokenizer), work / "release")

    timed("heads and release", work / "release" / "config.json", heads_and_release)


if __name__ == "__main__":
    main()
