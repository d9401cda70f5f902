"""Loading of weights: out of safetensors files beside the configuration. Nothing else is opened, whatever a folder
names.
"""

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from safetensors import SafetensorError
from transformers import PreTrainedModel

SAFETENSORS = ".safetensors"
# a file name on any system
_WEIGHT_NAME = re.compile(r"[^/\\:]+" + re.escape(SAFETENSORS))
#: Parameters that a checkpoint may lack, which are drawn at random: new heads and words. What lacks more is not the
#: checkpoint of this network, and a configuration out of nowhere must not fill the memory.
MOST_NEW_PARAMETERS = 2**27


def check_weight_names(names: Iterable[Any], where: str) -> None:
    """
    Raises `ValueError` where what an index names is not a safetensors file beside it: a pickle runs whatever its
    author put into it, and a path leads to files that are nobody's business.

    Args:
        names: values of a `weight_map`.
        where: name of the index, for the message.
    """
    for name in names:
        if not isinstance(name, str) or not _WEIGHT_NAME.fullmatch(name):
            raise ValueError(f"{where} names {name!r}: weights must be *.safetensors files in the same folder")


class MisfitError(RuntimeError, ValueError):
    """
    Weights of other shapes than the configuration says: a `ValueError`, for it is what was given that is wrong, and
    the `RuntimeError` that transformers raises of it.
    """


class SafetensorsModel(PreTrainedModel):
    """A model whose `from_pretrained` opens safetensors files alone."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """
        As in transformers, except that safetensors files alone are opened.

        Raises:
            OSError: no safetensors file, or a damaged one.
            ValueError: another kind of file is asked for or named, or one outside of the folder; or a configuration of
                a network that the files are not the weights of ([`MisfitError`] where they are of other shapes); or an
                adapter beside the weights.
        """
        if kwargs.setdefault("use_safetensors", True) is not True or kwargs.get("gguf_file") is not None:
            raise ValueError("GPTFace opens safetensors files alone: leave use_safetensors and gguf_file out")
        try:
            return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        except SafetensorError as error:
            raise OSError(
                f"the weights in {pretrained_model_name_or_path} are truncated or damaged ({error}): fetch them again"
            ) from error
        except RuntimeError as error:
            if "ignore_mismatched_sizes" not in str(error):
                raise
            raise MisfitError(
                f"the weights in {pretrained_model_name_or_path} are of other shapes than its configuration says: "
                f"fetch them again, or pass ignore_mismatched_sizes=True to draw those anew\n{error}"
            ) from error

    def load_adapter(self, peft_model_id: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As in transformers, except that `from_pretrained` takes none that lies beside the weights: it would change
        them unseen, out of a file of any kind.
        """
        if "load_config" in kwargs:
            raise ValueError(
                f"{peft_model_id} holds an adapter (adapter_config.json): take that file out, and open the adapter "
                "with peft.PeftModel.from_pretrained(model, folder)"
            )
        return super().load_adapter(peft_model_id, *args, **kwargs)

    @staticmethod
    def _load_pretrained_model(model, state_dict, checkpoint_files, load_config, *args, **kwargs):
        # However transformers came to these files, here they are read.
        files = [os.fspath(file) for file in checkpoint_files or ()]
        index: Mapping[str, Any] = load_config.sharded_metadata or {}
        where = f"the index of the weights in {load_config.pretrained_model_name_or_path}"
        check_weight_names(set((index.get("weight_map") or {}).values()), where)
        if foreign := [file for file in files if not file.endswith(SAFETENSORS)]:
            raise ValueError(f"{foreign[0]} is no safetensors file: GPTFace opens no other weights")
        if files:
            needed = sum(parameter.numel() for parameter in model.parameters())
            # a parameter takes a byte or more
            if needed > sum(map(os.path.getsize, files)) + MOST_NEW_PARAMETERS:
                raise ValueError(
                    f"the configuration in {load_config.pretrained_model_name_or_path} is of a network of "
                    f"{needed:,} parameters, which its weights are not: fetch it again"
                )
        return PreTrainedModel._load_pretrained_model(
            model, state_dict, checkpoint_files, load_config, *args, **kwargs
        )
