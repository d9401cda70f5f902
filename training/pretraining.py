"""Pre-training: masked image and language modelling with image-text matching, on encoded faces."""

import logging
import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import PreTrainedTokenizerBase, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import set_seed

from gptface.data.batch_masking import MaskLaw
from gptface.data.captions import emotion_caption
from gptface.data.code_dataset import CodeDataset, CodeTable, load_code_table, spread_rows
from gptface.data.code_stream import CodeStream
from gptface.data.masking import sample_generator
from gptface.data.phrases import EMOTION_PHRASES, PHRASES
from gptface.data.picture_codes import encode_collections
from gptface.modeling_gptface.configuration_gptface import GPTFaceConfig
from gptface.modeling_gptface.heads_gptface import GPTFaceForPreTraining
from gptface.modeling_gptface.image_tokenizer_gptface import GPTFaceImageTokenizer
from gptface.pipelines.pipeline_loading import find_checkpoint
from gptface.processing.image_processing_gptface import GPTFaceImageProcessor
from gptface.processing.processing_gptface import GPTFaceProcessor
from gptface.processing.tokenization_gptface import GPTFaceTokenizer

from .checkpoints import last_whole_checkpoint
from .code_transfer import swap_image_tokenizer
from .image_tokenizer_init import load_image_tokenizer
from .pretraining_collator import PreTrainingCollator, ScalesCollator, TextMaskLaw
from .pretraining_trainer import BUDGET_STATE, PreTrainer, term_weights
from .recipe import Recipe
from .time_budget import UNBOUNDED_STEPS, ClockSchedule, TimeBudget

logger = logging.getLogger(__name__)

SCALES = ("image", "plan")
#: Faces that tell which codes of two image tokenizers mean the same.
CARRIED_FACES = 512


@dataclass
class PreTrainingConfig(Recipe):
    """
    What a pre-training recipe (YAML) holds.

    Args:
        output_dir: where checkpoints and the final model go.
        train: folders that `gptface encode` wrote, or pictures (parquet files, webdataset tars, folders), which are
            encoded into `output_dir/codes` first; a list, or name → how often its rows count.
        evaluation: folders that `gptface encode` wrote.
        layout: of pictures without codes, see [`gptface.data.encode.project_crop`].
        image_tokenizer: folder of the image tokenizer that made the codes, or of a model that has it; with
            `start_from` it is not needed, and given it takes the place of the model's: see [`swap_image_tokenizer`].
        start_from: folder of a model to continue from instead of random weights.
        repeat: attribute → how often a face that has it counts as a row: of what is rare the model sees too little to
            draw it.
        model: fields of [`GPTFaceConfig`]; with `start_from`, those that replace the model's.
        auxiliary_head: name of a head over the attributes of the captions that is trained along, none by default.
        vocab_size: most entries of the WordPiece vocabulary trained on captions of the training rows.
        image_laws: mixture of [`MaskLaw`].
        text_law: fields of [`TextMaskLaw`].
        collator: further options of [`PreTrainingCollator`].
        scales: what a step reads of each sample: `image`, the codes, and `plan`, the coarse ones above them, of an
            image tokenizer that has a plan.
        loss_weights: of the terms of the loss: text, image, match, label, contrast; 1 where not given.
        weight_average: decay of an average of the weights over the steps, which is what is evaluated and kept as the
            final model; none = the weights.
        minutes: time from the start to the written final model; learning rate and end follow the clock then, whatever
            `arguments` says of the schedule. `max_steps` still ends a run that gets there first.
        schedule: fields of [`ClockSchedule`], with `minutes`.
        optimizer: `"muon"` or any `optim` of `TrainingArguments`.
        streaming: read the training rows part by part instead of holding them in memory, see [`CodeStream`].
        shuffle_window: parts of a stream that are shuffled together.
        arguments: `TrainingArguments` by name.
    """

    output_dir: str
    train: list[str] | dict[str, float]
    evaluation: list[str] | dict[str, float] = field(default_factory=list)
    layout: str = "aligned"
    image_tokenizer: str | None = None
    start_from: str | None = None
    repeat: dict[str, int] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    auxiliary_head: str | None = None
    vocab_size: int = 2000
    image_laws: list[dict[str, Any]] = field(default_factory=lambda: [{}])
    text_law: dict[str, Any] = field(default_factory=dict)
    collator: dict[str, Any] = field(default_factory=dict)
    scales: list[str] = field(default_factory=lambda: ["image"])
    loss_weights: dict[str, float] = field(default_factory=dict)
    weight_average: float | None = None
    minutes: float | None = None
    schedule: dict[str, Any] = field(default_factory=dict)
    optimizer: str = "muon"
    streaming: bool = False
    shuffle_window: int = 16
    arguments: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def check(cls, path: str | Path, values: dict[str, Any]) -> None:
        term_weights(values.get("loss_weights") or {})
        known = {field.name for field in fields(GPTFaceConfig)}
        unknown = sorted(set(values.get("model") or {}) - known)
        if unknown:
            raise ValueError(f"{path}: model has no fields {unknown}; known: {sorted(known)}")
        scales = values.get("scales", ["image"])
        if not scales or set(scales) - set(SCALES):
            raise ValueError(f"{path}: scales must be some of {SCALES}, got {scales}")
        if values.get("schedule") and values.get("minutes") is None:
            raise ValueError(f"{path}: schedule follows the clock: it needs minutes")


def train_vocabulary(table: CodeTable, vocab_size: int, max_length: int, captions: int = 50_000) -> GPTFaceTokenizer:
    """
    A WordPiece vocabulary from captions of random rows, and of every expression, whether the rows have them or not: a
    later phase of training may bring them, and users type them.
    """
    generator = sample_generator(0, 0, 0)
    captions = min(captions, 200 * len(table))
    texts = [table.caption(int(row), generator).text for row in generator.integers(len(table), size=captions)]
    texts += [emotion_caption(emotion, generator).text for emotion in EMOTION_PHRASES for _ in range(captions // 50)]
    return GPTFaceTokenizer.train(texts, vocab_size, max_length)


def load_rows(
    config: PreTrainingConfig, image_tokenizer: GPTFaceImageTokenizer, arguments: TrainingArguments
) -> CodeTable | CodeStream:
    """The training rows: a table, or this rank's stream of them; pictures without codes are encoded first."""
    rank, world_size = arguments.process_index, arguments.world_size
    cache = Path(config.output_dir) / "codes"
    folders = encode_collections(config.train, cache, image_tokenizer, config.layout, rank, world_size)
    PartialState().wait_for_everyone()
    fingerprint = image_tokenizer.fingerprint()
    if not config.streaming:
        return load_code_table(folders, fingerprint).repeat(config.repeat)
    if config.repeat:
        raise ValueError("repeat counts rows in memory: a stream (streaming: true) reads each once")
    batch = arguments.train_batch_size
    return CodeStream(folders, fingerprint, batch, arguments.seed, config.shuffle_window, rank, world_size)


def build_model(
    config: PreTrainingConfig, arguments: TrainingArguments, checkpoint: str | None = None
) -> tuple[GPTFaceForPreTraining, PreTrainedTokenizerBase, CodeTable | CodeStream]:
    """Model, text tokenizer and training rows of a recipe, or of the checkpoint where it is resumed."""
    # A vocabulary trained again may number its entries otherwise: a resumed run takes the one that it began with.
    source = checkpoint or config.start_from
    overrides = dict(config.model)
    heads: dict[str, Any] = {}
    if source:
        of_source = GPTFaceConfig.from_pretrained(find_checkpoint(source))
        heads = {name: head for name, head in of_source.heads.items() if not of_source.reads_pixels(name)}
        if of_source.image_reader is not None:
            # it is made for the weights that are about to change
            logger.warning("the pixel reader and its heads are left out: train them behind this")
            overrides |= {"image_reader": None, "heads": heads}
    if config.auxiliary_head:
        head = {"labels": list(PHRASES), "problem_type": "multi_label_classification", "trained": False}
        overrides |= {"heads": {config.auxiliary_head: head} | heads, "auxiliary_head": config.auxiliary_head}
    if source:
        model = GPTFaceForPreTraining.from_pretrained(source, **({} if checkpoint else overrides))
        image_tokenizer = model.image_tokenizer
        if config.image_tokenizer and not checkpoint:
            image_tokenizer = load_image_tokenizer(config.image_tokenizer)
        rows = load_rows(config, image_tokenizer, arguments)
        # no weight tells 7 levels from 8
        codes = [(each.fingerprint(), each.config.num_codes) for each in (image_tokenizer, model.image_tokenizer)]
        if codes[0] != codes[1]:
            seen = rows.excerpt() if isinstance(rows, CodeStream) else rows
            model = swap_image_tokenizer(model, image_tokenizer, seen.codes[spread_rows(len(seen), CARRIED_FACES), 0])
        return model, GPTFaceTokenizer.from_pretrained(source), rows
    if not config.image_tokenizer:
        raise ValueError("a recipe needs image_tokenizer (a folder) or start_from (a model)")
    image_tokenizer = load_image_tokenizer(config.image_tokenizer)
    rows = load_rows(config, image_tokenizer, arguments)
    seen = rows.excerpt() if isinstance(rows, CodeStream) else rows
    tokenizer = train_vocabulary(seen, config.vocab_size, config.model.get("max_text_length", 64))
    model_config = GPTFaceConfig(
        image_tokenizer_config=image_tokenizer.config.to_dict(),
        vocab_size=len(tokenizer),
        **{f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "cls", "sep", "mask")},
        **overrides,
    )
    model = GPTFaceForPreTraining(model_config)
    model.image_tokenizer.load_state_dict(image_tokenizer.state_dict())
    return model, tokenizer, rows


def make_collator(
    config: PreTrainingConfig, model: GPTFaceForPreTraining, tokenizer: PreTrainedTokenizerBase
) -> PreTrainingCollator | ScalesCollator:
    """
    The collator of a recipe, or one for each of its scales.

    Raises:
        ValueError: the scale `plan` without an image tokenizer that has one.
    """
    if "plan" in config.scales and not model.config.has_plan:
        raise ValueError("scales: the image tokenizer has no plan: see `gptface train-plan`")
    collators = {
        scale: PreTrainingCollator(
            None,
            tokenizer,
            model.config.max_text_length,
            image_laws=[MaskLaw(**law) for law in config.image_laws],
            text_law=TextMaskLaw(**config.text_law),
            # attributes are read off the codes: the head has no queries of its own for the plan
            label_names=list(PHRASES) if config.auxiliary_head and scale == "image" else (),
            plan=scale == "plan",
            **{**config.collator, "seed": config.collator.get("seed", 0) + SCALES.index(scale)},
        )
        for scale in config.scales
    }
    return collators["image"] if list(collators) == ["image"] else ScalesCollator(collators)


def training_arguments(config: PreTrainingConfig) -> TrainingArguments:
    """The recipe's `arguments` with what pre-training needs."""
    options: dict[str, Any] = {
        "report_to": "none",
        # it would wait for the device in every step; the Trainer finds losses that are not finite by itself
        "logging_nan_inf_filter": False,
        # starting them anew costs as much as a short epoch
        "dataloader_persistent_workers": config.arguments.get("dataloader_num_workers", 0) > 0,
    }
    if torch.cuda.is_available():
        options["accelerator_config"] = {"non_blocking": True}
    if config.optimizer != "muon":
        options["optim"] = config.optimizer
    if config.streaming:
        options["ignore_data_skip"] = True  # a stream begins at its position by itself
    if config.minutes is not None:
        options["max_steps"] = UNBOUNDED_STEPS
    return TrainingArguments(
        output_dir=config.output_dir,
        remove_unused_columns=False,
        label_names=["text_labels", "image_labels", "match_labels"],
        **{**options, **config.arguments},
    )


def place_stream(stream: CodeStream, arguments: TrainingArguments, checkpoint: str | None) -> None:
    """Puts a stream where a checkpoint left it, and the steps of `num_train_epochs` where `max_steps` is not given."""
    step = arguments.train_batch_size * arguments.world_size * arguments.gradient_accumulation_steps
    if arguments.max_steps <= 0:
        arguments.max_steps = math.ceil(arguments.num_train_epochs * stream.rows / step)
    if checkpoint:
        stream.start = trainer_state(checkpoint).global_step * step


def trainer_state(checkpoint: str) -> TrainerState:
    return TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE_NAME))


def time_budget(config: PreTrainingConfig, checkpoint: str | None) -> TimeBudget | None:
    """
    The time that a run has from now on: that of the recipe, less what it had spent when the checkpoint was written.
    """
    if config.minutes is None:
        return None
    budget = TimeBudget(config.minutes, ClockSchedule(**config.schedule))
    callbacks: Any = trainer_state(checkpoint).stateful_callbacks if checkpoint else None
    spent = (callbacks or {}).get(BUDGET_STATE)
    if spent:
        budget.resume(spent)
    return budget


def pretrain(config: PreTrainingConfig) -> Path:
    """
    Runs a recipe, resuming from the last whole checkpoint in `output_dir` if there is one; returns the model's folder.

    Batches are not formed by length: captions are short beside the 256 cells, so that padding is but 2 to 9 % of a
    batch, and batches of like lengths would be batches of like captions.

    Raises:
        ValueError: a recipe that does not fit together.
        FloatingPointError: a loss that is not finite; names the step.
    """
    checkpoint = last_whole_checkpoint(config.output_dir)
    budget = time_budget(config, checkpoint)  # the clock starts
    arguments = training_arguments(config)
    set_seed(arguments.seed)
    if arguments.torch_compile:
        # a graph for each of the few shapes that occur, none with a size that is a symbol
        torch._dynamo.config.automatic_dynamic_shapes = False
        if "dataloader_drop_last" not in config.arguments:
            arguments.dataloader_drop_last = True  # the rest of an epoch would be a shape of its own
    model, tokenizer, rows = build_model(config, arguments, checkpoint)
    if isinstance(rows, CodeStream):
        place_stream(rows, arguments, checkpoint)
    # from the first checkpoint on: what a run has trained so far may be used
    model.config.match_trained = True
    model.config.plan_trained |= "plan" in config.scales
    if config.auxiliary_head:
        model.config.heads[config.auxiliary_head]["trained"] = True
    evaluation = None
    if config.evaluation:
        evaluation = CodeDataset(load_code_table(config.evaluation, model.image_tokenizer.fingerprint()))
    side = model.config.image_tokenizer_config.image_size
    trainer = PreTrainer(
        model=model,
        args=arguments,
        data_collator=make_collator(config, model, tokenizer),
        train_dataset=rows if isinstance(rows, CodeStream) else CodeDataset(rows),
        eval_dataset=evaluation,
        processing_class=GPTFaceProcessor(GPTFaceImageProcessor(size={"height": side, "width": side}), tokenizer),
        loss_weights=config.loss_weights,
        use_muon=config.optimizer == "muon",
        resumed_from=checkpoint,
        budget=budget,
        weight_average=config.weight_average,
    )
    if budget is None or not budget.is_over:
        trainer.train(resume_from_checkpoint=checkpoint)
    target = Path(config.output_dir) / "final"
    trainer.save_final(target)
    return target
