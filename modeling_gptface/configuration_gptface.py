"""Configurations of the GPTFace image tokenizer, of the face parser and of the GPTFace model."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN

from .quantization import QUANTIZERS

#: Kind of a classification head that names none, see `CLASSIFIERS`.
DEFAULT_READER = "attention"
INPUTS = ("codes", "pixels")
#: Pixels along one side of a token of the pixel reader.
PIXEL_READER_STRIDE = 16
PIXEL_READER = {"channels": (32, 64, 96), "blocks": (1, 2, 2), "adapter_rank": 16}
#: What the face parser tells apart, in the order of its logits.
FACE_CLASSES = (
    "background",
    "skin",
    "nose",
    "eyeglasses",
    "eye",
    "brow",
    "ear",
    "mouth",
    "upper_lip",
    "lower_lip",
    "hair",
    "hat",
    "earring",
    "necklace",
    "neck",
    "cloth",
    "face_mask",
)
PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")
#: What a head of `GPTFaceConfig.heads` may say.
HEAD_KEYS = frozenset(("labels", "problem_type", "trained", "reader", "input", "temperature", "thresholds"))

# The most that a configuration may ask for, far above any network of this kind that was trained: a few bytes of JSON
# from an unknown folder must not take hours or all of the memory. A list holds no more than `MOST_ENTRIES` such
# numbers.
LARGEST = {
    "adapter_rank": 4096,
    "attention_resolutions": 2048,
    "block_out_channels": 8192,
    "blocks": 64,
    "channels": 8192,
    "codebook_dim": 8192,
    "codebook_size": 2**18,
    "critic_channels": 8192,
    "dilations": 1024,
    "expansion": 64,
    "fsq_levels": 2**16,
    "hidden_channels": 8192,
    "hidden_size": 2**14,
    "image_size": 2048,
    "intermediate_size": 2**16,
    "latent_channels": 8192,
    "layers_per_block": 64,
    "max_text_length": 8192,
    "norm_num_groups": 8192,
    "num_attention_heads": 1024,
    "num_channels": 64,
    "num_hidden_layers": 256,
    "plan_channels": 8192,
    "plan_levels": 2**16,
    "vocab_size": 2**21,
}
#: Of which there may be none.
DISPENSABLE = ("blocks", "num_hidden_layers")
MOST_ENTRIES = 32
#: What weights may be opened as.
DTYPES = ("float32", "float16", "bfloat16", "float64")
MOST_CELLS = 128**2
MOST_CODES = 2**18
MOST_HEADS = 256
MOST_LABELS = 2**15


def check_sizes(values: Mapping[str, Any]) -> None:
    """
    Raises `ValueError` where one of these fields of a configuration is no whole number, less than 1 (of what a network
    can do without less than 0) or more than `LARGEST`, or where any of them is NaN or infinite.
    """
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name} must be a finite number, got {value}")
        if name not in LARGEST or value is None:
            continue
        entries = value if isinstance(value, list | tuple) else [value]
        if len(entries) > MOST_ENTRIES:
            raise ValueError(f"{name} has {len(entries)} entries: {MOST_ENTRIES} is the most")
        for entry in entries:
            if not isinstance(entry, int) or isinstance(entry, bool):
                raise ValueError(f"{name} must be whole numbers, got {str(value)[:50]!r}")
            if entry > LARGEST[name]:
                raise ValueError(f"{name} is {entry}: {LARGEST[name]} is the most")
            least = 0 if name in DISPENSABLE else 1
            if entry < least:
                raise ValueError(f"{name} is {entry}: {least} is the least")


def check_head(name: str, head: Any) -> None:
    """Raises `ValueError` where an entry of `GPTFaceConfig.heads` is none, says which and what would be right."""
    where = f"heads[{name!r:.50}]"
    if not name.replace("-", "").replace("_", "").isalnum() or hasattr(nn.ModuleDict, name):
        raise ValueError(f"{where}: a head is called by a word, such as 'expression'")
    if not isinstance(head, Mapping):
        raise ValueError(f"{where} must say its labels and problem_type, got {str(head)[:50]!r}")
    labels = head.get("labels")
    if head.get("problem_type") not in PROBLEM_TYPES or not labels:
        raise ValueError(f"{where} needs 'labels' and a 'problem_type' out of {PROBLEM_TYPES}")
    if not isinstance(labels, list | tuple) or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"{where}['labels'] must be a list of names, got {str(labels)[:50]!r}")
    if head.get("input", INPUTS[0]) not in INPUTS:
        raise ValueError(f"{where}['input'] must be one of {INPUTS}, got {head['input']!r}")
    temperature, thresholds = head.get("temperature"), head.get("thresholds")
    if temperature is not None and not (_is_number(temperature) and temperature > 0):
        raise ValueError(f"{where}['temperature'] must be a number above 0, got {str(temperature)[:50]!r}")
    if thresholds is not None and not (
        isinstance(thresholds, list | tuple) and len(thresholds) == len(labels) and all(map(_is_number, thresholds))
    ):
        raise ValueError(f"{where}['thresholds'] must be a number for each of its {len(labels)} labels")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


class NetworkConfig(PreTrainedConfig):
    """
    Base of the configurations. From a config.json it takes what describes the network, see [`description`]; its sizes
    are bounded.
    """

    @classmethod
    def description(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """
        What a config.json says of the network, its nested configurations included: not where it was saved, which file
        its weights are in, or how somebody ran it.
        """
        known = {each.name for each in dataclasses.fields(cls)} | {"model_type"}
        described = {name: value for name, value in values.items() if name in known}
        for name, config_class in cls.sub_configs.items():
            if isinstance(described.get(name), dict):
                described[name] = config_class.description(described[name])
        return described

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        kept: dict[str, Any] = {
            name: config_dict[name]
            for name in ("auto_map", "custom_pipelines", "num_labels", "torch_dtype")
            if name in config_dict
        }
        for name in ("dtype", "torch_dtype"):
            if isinstance(config_dict.get(name), str) and config_dict[name].removeprefix("torch.") not in DTYPES:
                raise ValueError(f"{name} must be one of {DTYPES}, got {config_dict[name]!r:.50}")
        try:
            return super().from_dict({**cls.description(config_dict), **kept}, **kwargs)
        except (StrictDataclassError, TypeError, AttributeError, LookupError, ArithmeticError) as error:
            # what a value of another kind than was meant comes to
            reason = (str(error).strip() or type(error).__name__).replace("\n", " ")
            raise ValueError(f"the configuration is damaged ({reason:.300}): fetch it again") from error

    def __post_init__(self, **kwargs):
        labels = max(len(self.id2label or ()), kwargs.get("num_labels") or 0)
        if labels > MOST_LABELS:
            raise ValueError(f"there are {labels} labels: {MOST_LABELS} is the most")
        if self.dtype is None and kwargs.get("torch_dtype") is None:
            # transformers would look for one in the weights, before it is known what they are
            self.dtype = "float32"
        super().__post_init__(**kwargs)


@strict
class GPTFaceRefinerConfig(NetworkConfig):
    r"""
    Configuration of [`GPTFaceRefiner`], which draws what decoded codes lost, at a larger size, so that it fits the
    photo around.

    Args:
        image_size (`int`, *optional*, defaults to 256):
            Side of the refined picture in pixels, a power of two.
        hidden_channels (`list[int]`, *optional*, defaults to `[20, 40, 64, 96]`):
            Channels at each resolution, the full one first; each halves the side.
        dilations (`list[int]`, *optional*, defaults to `[1, 2, 2]`):
            Dilations of the residual blocks at the coarsest resolution, one a block.

    Raises:
        ValueError: a size that the resolutions do not halve, or values that no network of this kind has.

    Example:

    ```python
    >>> GPTFaceRefinerConfig(image_size=128, hidden_channels=[8, 16, 32]).dilations
    [1, 2, 2]

    ```
    """

    model_type = "gptface_refiner"
    base_config_key = "refiner_config"

    image_size: int = 256
    hidden_channels: list[int] | tuple[int, ...] = (20, 40, 64, 96)
    dilations: list[int] | tuple[int, ...] = (1, 2, 2)

    def __post_init__(self, **kwargs):
        check_sizes(vars(self))
        self.hidden_channels = list(self.hidden_channels)
        self.dilations = list(self.dilations)
        if len(self.hidden_channels) < 2:
            raise ValueError(f"hidden_channels needs at least two resolutions, got {self.hidden_channels}")
        coarsest = self.image_size >> (len(self.hidden_channels) - 1)
        if self.image_size & (self.image_size - 1) or coarsest < 2:
            raise ValueError(
                f"image_size must be a power of two that {len(self.hidden_channels)} resolutions halve, "
                f"got {self.image_size}"
            )
        super().__post_init__(**kwargs)


@strict
class GPTFaceImageTokenizerConfig(NetworkConfig):
    r"""
    Configuration of [`GPTFaceImageTokenizer`], which turns an aligned face picture into a grid of discrete codes and
    back.

    Args:
        image_size (`int`, *optional*, defaults to 128):
            Side of the square picture in pixels.
        backbone (`str`, *optional*, defaults to `"compact"`):
            `"compact"`: the small convolutional autoencoder of the TAESD family, factor 8. `"vqgan"`: the encoder and
            decoder of diffusers' `VQModel`, into which taming-transformers checkpoints convert; its factor is
            `2 ** (len(block_out_channels) - 1)`.
        quantizer (`str`, *optional*, defaults to `"fsq"`):
            `"fsq"`: finite scalar quantization (Mentzer et al. 2023) with `fsq_levels`. `"codebook"`: a learned
            codebook of `codebook_size` vectors with `codebook_dim` entries (van den Oord et al. 2017). `"gumbel"`:
            such a codebook whose codes a linear classifier picks (taming-transformers' `GumbelVQ`).
        latent_channels (`int`, *optional*, defaults to 32):
            Channels between the encoder and the quantizer.
        hidden_channels (`int`, *optional*, defaults to 64):
            Width of the compact backbone.
        fsq_levels (`list[int]`, *optional*, defaults to `[8, 6, 5, 5]`):
            Levels of each FSQ dimension; their product is the number of codes.
        codebook_size (`int`, *optional*, defaults to 1024):
            Vectors of the learned codebook.
        codebook_dim (`int`, *optional*):
            Entries of a codebook vector; `latent_channels` where it is not given.
        block_out_channels (`list[int]`, *optional*, defaults to `[128, 128, 256, 256, 512]`):
            Channels of each resolution of the vqgan backbone.
        layers_per_block (`int`, *optional*, defaults to 2):
            Residual blocks at each resolution of the vqgan backbone.
        attention_resolutions (`list[int]`, *optional*, defaults to `[16]`):
            Resolutions (in cells) at which the vqgan backbone attends.
        norm_num_groups (`int`, *optional*, defaults to 32):
            Groups of the vqgan backbone's group norms.
        plan_levels (`list[int]`, *optional*):
            Levels of each FSQ dimension of the plan, a second grid of codes of half the side, for what is where in the
            face; no plan where it is not given.
        plan_channels (`int`, *optional*, defaults to 128):
            Width of the networks on both sides of the plan's codes, a multiple of 16.
        refiner_config (`GPTFaceRefinerConfig` or `dict`, *optional*):
            The refiner behind the decoder; there is none where it is not given.

    Raises:
        ValueError: an unknown backbone or quantizer, a size that is no multiple of the backbone's factor, or more
            cells or codes than any network of this kind has.

    Example:

    ```python
    >>> config = GPTFaceImageTokenizerConfig(image_size=128, fsq_levels=[8, 8, 8, 8], plan_levels=[8, 8, 8, 8])
    >>> config.grid_size, config.num_codes, config.num_plan_tokens
    (16, 4096, 64)

    ```
    """

    model_type = "gptface_image_tokenizer"
    base_config_key = "image_tokenizer_config"
    sub_configs = {"refiner_config": GPTFaceRefinerConfig}

    image_size: int = 128
    num_channels: int = 3
    backbone: str = "compact"
    quantizer: str = "fsq"
    latent_channels: int = 32
    hidden_channels: int = 64
    fsq_levels: list[int] | tuple[int, ...] = (8, 6, 5, 5)
    codebook_size: int = 1024
    codebook_dim: int | None = None
    block_out_channels: list[int] | tuple[int, ...] = (128, 128, 256, 256, 512)
    layers_per_block: int = 2
    attention_resolutions: list[int] | tuple[int, ...] = (16,)
    norm_num_groups: int = 32
    plan_levels: list[int] | tuple[int, ...] | None = None
    plan_channels: int = 128
    # A `GPTFaceRefinerConfig` or None from __post_init__ on.
    refiner_config: Any = None

    def __post_init__(self, **kwargs):
        check_sizes(vars(self))
        if isinstance(self.refiner_config, dict):
            self.refiner_config = GPTFaceRefinerConfig(**self.refiner_config)
        if self.backbone not in ("compact", "vqgan"):
            raise ValueError(f"backbone must be 'compact' or 'vqgan', got {self.backbone!r}")
        if self.quantizer not in QUANTIZERS:
            raise ValueError(f"quantizer must be one of {tuple(QUANTIZERS)}, got {self.quantizer!r}")
        self.fsq_levels = list(self.fsq_levels)
        self.block_out_channels = list(self.block_out_channels)
        self.attention_resolutions = list(self.attention_resolutions)
        if not self.fsq_levels or not self.block_out_channels:
            raise ValueError("fsq_levels and block_out_channels need one number at least")
        if self.codebook_dim is None:
            self.codebook_dim = self.latent_channels
        if self.image_size % self.downsample_factor:
            raise ValueError(
                f"image_size {self.image_size} is no multiple of the backbone's factor {self.downsample_factor}"
            )
        if self.plan_levels is not None:
            self._check_plan(self.plan_levels)
        super().__post_init__(**kwargs)
        if self.grid_size**2 > MOST_CELLS:
            raise ValueError(f"image_size {self.image_size} makes {self.grid_size**2} cells: {MOST_CELLS} is the most")
        if max(self.num_codes, self.num_plan_codes) > MOST_CODES:
            codes = max(self.num_codes, self.num_plan_codes)
            raise ValueError(
                f"fsq_levels, plan_levels or codebook_size make {float(codes):.3g} codes: {MOST_CODES} is the most"
            )

    def _check_plan(self, levels: list[int] | tuple[int, ...]) -> None:
        self.plan_levels = list(levels)
        if not levels or min(levels) < 2:
            raise ValueError(f"plan_levels needs a number of at least 2 for each dimension, got {list(levels)}")
        if self.plan_channels < 16 or self.plan_channels % 16:
            raise ValueError(f"plan_channels must be a multiple of 16, got {self.plan_channels}")
        if self.grid_size % 2:
            raise ValueError(
                "a plan halves the grid of codes: with plan_levels its side must be even, but "
                f"image_size {self.image_size} at the factor {self.downsample_factor} gives {self.grid_size}"
            )

    @property
    def downsample_factor(self) -> int:
        """Pixels along one side of a cell of the grid."""
        return 8 if self.backbone == "compact" else 2 ** (len(self.block_out_channels) - 1)

    @property
    def grid_size(self) -> int:
        """Cells along one side of the grid of codes."""
        return self.image_size // self.downsample_factor

    @property
    def num_codes(self) -> int:
        """Number of different codes K; a code lies in 0…K−1."""
        return QUANTIZERS[self.quantizer].codes_of(self)

    @property
    def plan_grid_size(self) -> int:
        """Cells along one side of the plan; 0 where there is none."""
        return 0 if self.plan_levels is None else self.grid_size // 2

    @property
    def num_plan_tokens(self) -> int:
        """Cells of the plan, in raster order; 0 where there is none."""
        return self.plan_grid_size**2

    @property
    def num_plan_codes(self) -> int:
        """Number of different codes of a cell of the plan; 0 where there is none."""
        return 0 if self.plan_levels is None else math.prod(self.plan_levels)


@strict
class GPTFaceParserConfig(NetworkConfig):
    r"""
    Configuration of [`GPTFaceParser`], which tells what each pixel of a face shows.

    Args:
        image_size (`int`, *optional*, defaults to 256):
            Side in pixels of the pictures that it is trained on; a multiple of 16.
        block_out_channels (`list[int]`, *optional*, defaults to `[24, 40, 64, 96]`):
            Channels at half, quarter, eighth and sixteenth of the resolution, multiples of 8.
        expansion (`int`, *optional*, defaults to 2):
            How many times wider the depthwise convolutions at the sixteenth are.
        dilations (`list[int]`, *optional*, defaults to `[1, 2, 1]`):
            Of the blocks at the sixteenth, one each.
        id2label (`dict[int, str]`, *optional*):
            Names of the classes; `FACE_CLASSES` where they are not given.

    Raises:
        ValueError: another number of channels than four, or sizes that are no multiples of 8 or 16.

    Example:

    ```python
    >>> GPTFaceParserConfig().class_names[:4]
    ('background', 'skin', 'nose', 'eyeglasses')

    ```
    """

    model_type = "gptface_face_parser"
    base_config_key = "face_parser_config"

    image_size: int = 256
    num_channels: int = 3
    block_out_channels: list[int] | tuple[int, ...] = (24, 40, 64, 96)
    expansion: int = 2
    dilations: list[int] | tuple[int, ...] = (1, 2, 1)

    def __post_init__(self, **kwargs):
        check_sizes(vars(self))
        self.block_out_channels = list(self.block_out_channels)
        self.dilations = list(self.dilations)
        if len(self.block_out_channels) != 4 or any(channels % 8 for channels in self.block_out_channels):
            raise ValueError(f"block_out_channels must be four multiples of 8, got {self.block_out_channels}")
        if self.image_size % 16:
            raise ValueError(f"image_size must be a multiple of 16, got {self.image_size}")
        if self.id2label is None and kwargs.get("num_labels") is None:
            self.id2label = dict(enumerate(FACE_CLASSES))
            self.label2id = {name: index for index, name in enumerate(FACE_CLASSES)}
        super().__post_init__(**kwargs)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in the order of the logits."""
        return tuple(name for _, name in sorted((self.id2label or {}).items()))


@strict
class GPTFaceConfig(NetworkConfig):
    r"""
    Configuration of [`GPTFaceModel`] and its task classes. The defaults are the base size of the lineage (12 layers of
    768, BERT's uncased vocabulary, 64 text tokens).

    Args:
        image_tokenizer_config (`GPTFaceImageTokenizerConfig` or `dict`, *optional*):
            The image tokenizer that lives inside the model.
        face_parser_config (`GPTFaceParserConfig` or `dict`, *optional*):
            The face parser that lives inside the model; none where it is not given.
        vocab_size (`int`, *optional*, defaults to 30522):
            Words of the text vocabulary. Image codes follow them: image id = code + `vocab_size`.
        max_text_length (`int`, *optional*, defaults to 64):
            Most text tokens, `[CLS]` and `[SEP]` included. Image positions start here whatever the caption's length.
        norm_position (`str`, *optional*, defaults to `"pre"`):
            `"pre"`: layer norm before attention and feed-forward, with a final norm; `"post"`: after the residual sum,
            as BERT.
        embedding_norm (`bool`, *optional*, defaults to `False`):
            Layer norm on the sum of the embeddings.
        attention_pattern (`str`, *optional*, defaults to `"bidirectional"`):
            `"prefix"` lets text see text, and an image cell the text and the cells before it (the autoregressive
            sibling).
        code_embedding (`str`, *optional*, defaults to `"free"`):
            `"levels"` adds to each code's vector one vector for each level of its FSQ tuple, so that neighbouring
            codes share what they have in common; needs an FSQ tokenizer. The output head is tied to the sum.
        position_init (`str`, *optional*, defaults to `"normal"`):
            `"sine"` starts the learned positions from 1-D sines (text) and 2-D sines (grid).
        grid_convolution (`bool`, *optional*, defaults to `False`):
            A depthwise 3×3 convolution over the grid of cells in front of each layer (conditional position encoding,
            Chu et al. 2021). It sees later cells, so `"prefix"` refuses it.
        text_attention_bias (`float`, *optional*, defaults to 0.0):
            Added to the attention scores of words. A caption has a handful of words, the grid hundreds of cells, all
            in one softmax: with log(cells / words), about 4 for 256 cells, words and cells weigh alike at the start.
        match_head (`str`, *optional*, defaults to `"cls"`):
            What judges whether caption and picture match: `"cls"` reads the state of `[CLS]` of the pair (the
            lineage), `"cross"` reads the two apart, lets every word look at the cells and sums what each finds.
        caption_reader (`bool`, *optional*, defaults to `False`):
            Whether each cell looks at the words of the caption once more, read apart from the picture, before its code
            is predicted: a short way for what is asked.
        lm_head_transform (`bool`, *optional*, defaults to `True`):
            Linear layer, activation and norm in front of the decoders over words and codes; `False`: the decoders read
            the states as they are (the autoregressive sibling).
        heads (`dict`, *optional*):
            Named classification heads: `{name: {"labels": […], "problem_type": …, "trained": bool}}`; `problem_type`
            is one of `"single_label_classification"`, `"multi_label_classification"`, `"regression"`. A head may carry
            a `"temperature"`, by which the pipelines divide its logits, and `"thresholds"`, one a label, from which on
            a label holds (0.5 by default). Its `"reader"` is `"attention"` (the default; each label looks at its own
            place) or `"convolution"` (over the grid, for labels that are told by shapes and have thousands of faces).
            Its `"input"` is `"codes"` (the default) or `"pixels"`, which the pixel reader reads.
        image_reader (`dict`, *optional*):
            The pixel reader, which turns aligned pixels into the vectors of tokens of 16×16 pixels, for recognition:
            `"channels"` of its three stages at 1/2, 1/4 and 1/8 of the resolution (32, 64, 96 by default), residual
            `"blocks"` of each (1, 2, 2), and `"adapter_rank"`, that of the changes by which the layers read these
            tokens (16). None where it is not given.
        classification_head (`str`, *optional*):
            Name of the head that a classification model was saved with, and opens with again; where it is not given
            that with the labels of `id2label`, else `default_head`.
        auxiliary_head (`str`, *optional*):
            Name of a head that pre-training also trains where `labels` come in: attribute labels shape the backbone
            long before the captions do.
        match_trained (`bool`, *optional*, defaults to `False`):
            Whether the image-text matching head has been trained. What needs it refuses to run on random weights.
        plan_trained (`bool`, *optional*, defaults to `False`):
            Whether the transformer has been trained on the plan of an image tokenizer that has one.
        critic_channels (`int`, *optional*):
            Width of the critic, a multiple of 8, which tells tokens of photos from drawn ones: those of the plan,
            where there is one, else the codes. None where it is not given.
        critic_trained (`bool`, *optional*, defaults to `False`):
            Whether the critic has been trained.

    Raises:
        ValueError: options that do not go together, heads that are none, or more than any network of this kind has.

    Example:

    ```python
    >>> config = GPTFaceConfig(vocab_size=700, hidden_size=64, num_hidden_layers=2, num_attention_heads=4)
    >>> config.num_image_tokens, config.num_codes, config.max_text_length
    (256, 1200, 64)

    ```
    """

    model_type = "gptface"
    sub_configs = {"image_tokenizer_config": GPTFaceImageTokenizerConfig, "face_parser_config": GPTFaceParserConfig}

    # A `GPTFaceImageTokenizerConfig` from __post_init__ on, whatever was given.
    image_tokenizer_config: Any = None
    # A `GPTFaceParserConfig` or None from __post_init__ on.
    face_parser_config: Any = None
    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    layer_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    max_text_length: int = 64
    norm_position: str = "pre"
    embedding_norm: bool = False
    attention_pattern: str = "bidirectional"
    code_embedding: str = "free"
    position_init: str = "normal"
    grid_convolution: bool = False
    text_attention_bias: float | int = 0.0
    match_head: str = "cls"
    caption_reader: bool = False
    lm_head_transform: bool = True
    heads: dict[str, Any] = field(default_factory=dict)
    image_reader: dict[str, Any] | None = None
    classification_head: str | None = None
    auxiliary_head: str | None = None
    match_trained: bool = False
    plan_trained: bool = False
    critic_channels: int | None = None
    critic_trained: bool = False
    pad_token_id: int | None = 0
    cls_token_id: int = 101
    sep_token_id: int = 102
    mask_token_id: int = 103
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs):
        check_sizes(vars(self))
        if self.image_tokenizer_config is None:
            self.image_tokenizer_config = GPTFaceImageTokenizerConfig()
        elif isinstance(self.image_tokenizer_config, dict):
            self.image_tokenizer_config = GPTFaceImageTokenizerConfig(**self.image_tokenizer_config)
        elif not isinstance(self.image_tokenizer_config, PreTrainedConfig):
            raise TypeError(
                "image_tokenizer_config must be a GPTFaceImageTokenizerConfig or a dict, got "
                f"{type(self.image_tokenizer_config).__name__}"
            )
        if self.image_reader is not None:
            self._check_image_reader(self.image_reader)
        if isinstance(self.face_parser_config, dict):
            self.face_parser_config = GPTFaceParserConfig(**self.face_parser_config)
        elif self.face_parser_config is not None and not isinstance(self.face_parser_config, PreTrainedConfig):
            raise TypeError(
                "face_parser_config must be a GPTFaceParserConfig or a dict, "
                f"got {type(self.face_parser_config).__name__}"
            )
        if self.plan_trained and not self.has_plan:
            raise ValueError("plan_trained is said of an image tokenizer without plan_levels")
        self._check_choice("norm_position", ("pre", "post"))
        self._check_choice("attention_pattern", ("bidirectional", "prefix"))
        self._check_choice("code_embedding", ("free", "levels"))
        self._check_choice("position_init", ("normal", "sine"))
        if self.code_embedding == "levels" and self.image_tokenizer_config.quantizer != "fsq":
            raise ValueError("code_embedding='levels' needs an image tokenizer with quantizer='fsq'")
        if self.critic_channels is not None and (self.critic_channels < 8 or self.critic_channels % 8):
            raise ValueError(f"critic_channels must be a multiple of 8, got {self.critic_channels}")
        if self.attention_pattern == "prefix" and self.grid_convolution:
            raise ValueError(
                "grid_convolution looks at later cells, which attention_pattern='prefix' must not: use one"
            )
        self._check_choice("hidden_act", tuple(ACT2FN))
        for token in ("pad_token_id", "cls_token_id", "sep_token_id", "mask_token_id"):
            if not 0 <= (getattr(self, token) or 0) < self.vocab_size:
                raise ValueError(f"{token} {getattr(self, token)} is none of the {self.vocab_size} words")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is no multiple of num_attention_heads {self.num_attention_heads}"
            )
        if self.id2label is None and kwargs.get("num_labels") is None:
            # Not the two labels that transformers gives by default: one must see whether somebody asked for labels.
            self.id2label, self.label2id = {}, {}
        if len(self.heads) > MOST_HEADS:
            raise ValueError(f"there are {len(self.heads)} heads: {MOST_HEADS} are the most")
        for name, head in self.heads.items():
            check_head(name, head)
            if self.reads_pixels(name) and self.image_reader is None:
                raise ValueError(f"heads[{name!r}] reads pixels, which needs image_reader: {{}} takes its defaults")
        labels = sum(len(head["labels"]) for head in self.heads.values())
        if labels > MOST_LABELS:
            raise ValueError(f"there are {labels} labels: {MOST_LABELS} are the most")
        if self.classification_head is not None and self.classification_head not in self.heads:
            raise ValueError(
                f"classification_head {self.classification_head!r} is none of the heads {sorted(self.heads)}"
            )
        if self.auxiliary_head is not None and self.auxiliary_head not in self.heads:
            raise ValueError(f"auxiliary_head {self.auxiliary_head!r} is none of the heads {sorted(self.heads)}")
        if self.auxiliary_head is not None and self.reads_pixels(self.auxiliary_head):
            raise ValueError(f"auxiliary_head {self.auxiliary_head!r} reads pixels: pre-training reads codes")
        # `pipeline()` would ask for trust_remote_code although the installed class is in use; the export writes it
        # back.
        if not type(self).__module__.startswith("transformers_modules"):
            kwargs.pop("custom_pipelines", None)
        super().__post_init__(**kwargs)

    @classmethod
    def description(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """What a config.json says of the network, and of each head what the network needs to know."""
        described = super().description(values)
        if isinstance(described.get("heads"), dict):
            described["heads"] = {
                name: {key: value for key, value in head.items() if key in HEAD_KEYS}
                for name, head in described["heads"].items()
            }
        return described

    def _check_choice(self, field: str, choices: tuple[str, ...]) -> None:
        if getattr(self, field) not in choices:
            raise ValueError(f"{field} must be one of {choices}, got {getattr(self, field)!r}")

    def _check_image_reader(self, reader: dict[str, Any]) -> None:
        if not reader.keys() <= PIXEL_READER.keys():
            raise ValueError(f"image_reader may have {', '.join(PIXEL_READER)}, got {sorted(reader)}")
        check_sizes(reader)
        channels, blocks, _ = {**PIXEL_READER, **reader}.values()
        if not all(isinstance(each, list | tuple) for each in (channels, blocks)):
            raise ValueError("channels and blocks of image_reader must be lists, of a number for each stage")
        if len(channels) != 3 or len(blocks) != 3 or any(count % 8 for count in channels):
            raise ValueError("image_reader has three stages: channels that are multiples of 8, and blocks of each")
        if self.image_tokenizer_config.image_size % PIXEL_READER_STRIDE:
            raise ValueError(
                f"the pixel reader needs an image_size that is a multiple of {PIXEL_READER_STRIDE}, not "
                f"{self.image_tokenizer_config.image_size}"
            )

    def reads_pixels(self, head: str) -> bool:
        """Whether a head is for what the pixel reader read, not for codes."""
        return self.heads[head].get("input", INPUTS[0]) == "pixels"

    @property
    def default_head(self) -> str | None:
        """
        Name of the head that is meant where none is named: the one that the model was saved with, else `"attributes"`,
        else the first (a saved config.json has them in alphabetical order); None without heads.
        """
        if self.classification_head is not None or "attributes" not in self.heads:
            return self.classification_head or next(iter(self.heads), None)
        return "attributes"

    @property
    def pixel_grid_size(self) -> int:
        """Tokens along one side of the pixel reader's grid."""
        return self.image_tokenizer_config.image_size // PIXEL_READER_STRIDE

    @property
    def num_codes(self) -> int:
        """Number of image codes K."""
        return self.image_tokenizer_config.num_codes

    @property
    def grid_size(self) -> int:
        """Cells along one side of the grid."""
        return self.image_tokenizer_config.grid_size

    @property
    def num_image_tokens(self) -> int:
        """Cells N of the grid, in raster order."""
        return self.grid_size**2

    @property
    def has_plan(self) -> bool:
        """Whether the image tokenizer has a coarse scale too, and so the transformer."""
        return self.image_tokenizer_config.plan_levels is not None

    @property
    def plan_grid_size(self) -> int:
        """Tokens along one side of the plan."""
        return self.image_tokenizer_config.plan_grid_size

    @property
    def num_plan_tokens(self) -> int:
        """Tokens P of the plan, in raster order."""
        return self.image_tokenizer_config.num_plan_tokens

    @property
    def num_plan_codes(self) -> int:
        """Number of plan codes."""
        return self.image_tokenizer_config.num_plan_codes

    @property
    def num_critic_tokens(self) -> int:
        """Size of the grids that the critic reads."""
        return self.num_plan_tokens if self.has_plan else self.num_image_tokens

    def is_plan(self, cells: int) -> bool:
        """Whether a grid of so many cells is the plan's."""
        return self.has_plan and cells == self.num_plan_tokens

    @property
    def grid_tokens(self) -> tuple[int, ...]:
        """Sizes of the grids that the transformer reads: cells, and tokens of the plan."""
        return (self.num_image_tokens, self.num_plan_tokens) if self.has_plan else (self.num_image_tokens,)
