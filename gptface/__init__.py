"""GPTFace: one transformer for faces and language.

With this package imported, the Auto classes of transformers know the GPTFace classes, and `transformers.pipeline`
knows its tasks, whose default model is the checkpoint in `gptface/assets`. The import itself is light: a public name
is imported when it is first asked for.

Example:

```python
>>> import gptface
>>> gptface.GPTFaceConfig().model_type
'gptface'

```
"""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .import_hook import AutoClassesHook

_here = Path(__file__).parent
if not (_here / "processing").is_dir():
    # Run from a checkout that is not installed: the other folders stand beside this one.
    __path__.append(str(_here.parent))

if TYPE_CHECKING:
    from gptface.modeling_gptface.configuration_gptface import (
        GPTFaceConfig,
        GPTFaceImageTokenizerConfig,
        GPTFaceParserConfig,
        GPTFaceRefinerConfig,
    )
    from gptface.modeling_gptface.face_parser_gptface import GPTFaceParser
    from gptface.modeling_gptface.generation_gptface import GPTFaceForGuidedGeneration
    from gptface.modeling_gptface.guidance import ITMGuidance
    from gptface.modeling_gptface.heads_gptface import (
        GPTFaceForFaceAttributeClassification,
        GPTFaceForFacialExpression,
        GPTFaceForImageClassification,
        GPTFaceForImageTextMatching,
        GPTFaceForMaskedLM,
        GPTFaceForPreTraining,
    )
    from gptface.modeling_gptface.image_tokenizer_gptface import GPTFaceImageTokenizer
    from gptface.modeling_gptface.modeling_gptface import GPTFaceModel
    from gptface.modeling_gptface.refiner_gptface import GPTFaceRefiner
    from gptface.pipelines.pipeline_loading import DEFAULT_CHECKPOINT
    from gptface.processing.edits import EDITS, Edit, list_edits
    from gptface.processing.image_processing_gptface import GPTFaceImageProcessor
    from gptface.processing.image_saving import save_picture
    from gptface.processing.processing_gptface import GPTFaceProcessor
    from gptface.processing.tokenization_gptface import GPTFaceTokenizer

__version__ = "0.1.0"

#: Module of each public name.
_MODULES = {
    "DEFAULT_CHECKPOINT": "pipelines.pipeline_loading",
    "EDITS": "processing.edits",
    "Edit": "processing.edits",
    "GPTFaceConfig": "modeling_gptface.configuration_gptface",
    "GPTFaceForFaceAttributeClassification": "modeling_gptface.heads_gptface",
    "GPTFaceForFacialExpression": "modeling_gptface.heads_gptface",
    "GPTFaceForGuidedGeneration": "modeling_gptface.generation_gptface",
    "GPTFaceForImageClassification": "modeling_gptface.heads_gptface",
    "GPTFaceForImageTextMatching": "modeling_gptface.heads_gptface",
    "GPTFaceForMaskedLM": "modeling_gptface.heads_gptface",
    "GPTFaceForPreTraining": "modeling_gptface.heads_gptface",
    "GPTFaceImageProcessor": "processing.image_processing_gptface",
    "GPTFaceImageTokenizer": "modeling_gptface.image_tokenizer_gptface",
    "GPTFaceImageTokenizerConfig": "modeling_gptface.configuration_gptface",
    "GPTFaceModel": "modeling_gptface.modeling_gptface",
    "GPTFaceParser": "modeling_gptface.face_parser_gptface",
    "GPTFaceParserConfig": "modeling_gptface.configuration_gptface",
    "GPTFaceProcessor": "processing.processing_gptface",
    "GPTFaceRefiner": "modeling_gptface.refiner_gptface",
    "GPTFaceRefinerConfig": "modeling_gptface.configuration_gptface",
    "GPTFaceTokenizer": "processing.tokenization_gptface",
    "ITMGuidance": "modeling_gptface.guidance",
    "list_edits": "processing.edits",
    "save_picture": "processing.image_saving",
}

__all__ = [
    "DEFAULT_CHECKPOINT",
    "EDITS",
    "Edit",
    "GPTFaceConfig",
    "GPTFaceForFaceAttributeClassification",
    "GPTFaceForFacialExpression",
    "GPTFaceForGuidedGeneration",
    "GPTFaceForImageClassification",
    "GPTFaceForImageTextMatching",
    "GPTFaceForMaskedLM",
    "GPTFaceForPreTraining",
    "GPTFaceImageProcessor",
    "GPTFaceImageTokenizer",
    "GPTFaceImageTokenizerConfig",
    "GPTFaceModel",
    "GPTFaceParser",
    "GPTFaceParserConfig",
    "GPTFaceProcessor",
    "GPTFaceRefiner",
    "GPTFaceRefinerConfig",
    "GPTFaceTokenizer",
    "ITMGuidance",
    "list_edits",
    "save_picture",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'gptface' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"gptface.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _register() -> None:
    from .registration import register

    register()


AutoClassesHook(_register).install()
