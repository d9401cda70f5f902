"""A trained model made larger, so that it predicts what it did and can learn more."""

import copy
import re

import torch

from gptface.modeling_gptface.configuration_gptface import GPTFaceConfig
from gptface.modeling_gptface.heads_gptface import GPTFaceForPreTraining
from gptface.modeling_gptface.image_tokenizer_gptface import GPTFaceImageTokenizer

#: Outputs of a layer's parts: with these at zero, a layer passes on what it was given.
CLOSED = re.compile(r"(attention\.output|feed_forward\.down|grid_convolution\.conv)\.(weight|bias)$")


@torch.no_grad()
def grow_model(
    model: GPTFaceForPreTraining, layers: int | None = None, image_tokenizer: GPTFaceImageTokenizer | None = None
) -> GPTFaceForPreTraining:
    """
    A deeper copy of a model, with another image tokenizer of the same codes, for example one that has a plan.

    The new layers are copies of the last one whose outputs are zero (residual growth), so that codes, words and
    matches are predicted as before; what reads and writes the plan starts at random.

    Args:
        layers: how many the copy has; as many where it is not given.

    Raises:
        ValueError: fewer layers than there are, a model with norms behind its sums, or codes of another image
            tokenizer.
    """
    config = copy.deepcopy(model.config)
    count = config.num_hidden_layers if layers is None else layers
    if count < config.num_hidden_layers:
        raise ValueError(f"the model has {config.num_hidden_layers} layers already: it cannot grow to {count}")
    if count > config.num_hidden_layers and config.norm_position != "pre":
        raise ValueError("only a model with norm_position='pre' grows: behind a sum a norm changes what passes")
    if image_tokenizer is not None:
        if image_tokenizer.fingerprint() != model.image_tokenizer.fingerprint():
            raise ValueError("the image tokenizer makes other codes than the model's: see `swap_image_tokenizer`")
        config.image_tokenizer_config = copy.deepcopy(image_tokenizer.config)
    last = f"gptface.layers.{config.num_hidden_layers - 1}."
    config.num_hidden_layers = count
    grown = GPTFaceForPreTraining(GPTFaceConfig(**_fields(config)))
    state = dict(model.state_dict())
    for name, value in model.state_dict().items():
        if name.startswith(last):
            for number in range(model.config.num_hidden_layers, count):
                closed = CLOSED.search(name) is not None
                new = name.replace(last, f"gptface.layers.{number}.")
                state[new] = torch.zeros_like(value) if closed else value.clone()
    tokenizer = (image_tokenizer or model.image_tokenizer).state_dict()
    state |= {f"gptface.image_tokenizer.{name}": value for name, value in tokenizer.items()}
    grown.load_state_dict(state, strict=False)
    return grown.train(model.training)


def _fields(config: GPTFaceConfig) -> dict:
    fields = config.to_dict()
    return {name: value for name, value in fields.items() if name not in ("model_type", "transformers_version")}
