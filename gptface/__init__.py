"""GPTFace: one transformer for faces and language.

Importing this package registers the GPTFace classes with the Auto classes of transformers and its pipelines, whose
default model is the checkpoint in `gptface/assets`.
"""

from pathlib import Path

_here = Path(__file__).parent
if not (_here / "processing").is_dir():
    # Run from a checkout that is not installed: the other folders stand beside this one.
    __path__.append(str(_here.parent))

from gptface.modeling_gptface.configuration_gptface import (  # noqa: E402
    GPTFaceConfig,
    GPTFaceImageTokenizerConfig,
    GPTFaceParserConfig,
    GPTFaceRefinerConfig,
)
from gptface.modeling_gptface.face_parser_gptface import GPTFaceParser  # noqa: E402
from gptface.modeling_gptface.generation_gptface import GPTFaceForGuidedGeneration  # noqa: E402
from gptface.modeling_gptface.guidance import ITMGuidance  # noqa: E402
from gptface.modeling_gptface.heads_gptface import (  # noqa: E402
    GPTFaceForFaceAttributeClassification,
    GPTFaceForFacialExpression,
    GPTFaceForImageClassification,
    GPTFaceForImageTextMatching,
    GPTFaceForPreTraining,
)
from gptface.modeling_gptface.image_tokenizer_gptface import GPTFaceImageTokenizer  # noqa: E402
from gptface.modeling_gptface.modeling_gptface import GPTFaceModel  # noqa: E402
from gptface.modeling_gptface.refiner_gptface import GPTFaceRefiner  # noqa: E402
from gptface.processing.edits import EDITS, Edit, list_edits  # noqa: E402
from gptface.processing.image_processing_gptface import GPTFaceImageProcessor  # noqa: E402
from gptface.processing.image_saving import save_picture  # noqa: E402
from gptface.processing.processing_gptface import GPTFaceProcessor  # noqa: E402
from gptface.processing.tokenization_gptface import GPTFaceTokenizer  # noqa: E402

from .registration import register  # noqa: E402

__version__ = "0.1.0"

#: Folder of the checkpoint that comes with the package.
DEFAULT_CHECKPOINT = str(_here / "assets")

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

register(DEFAULT_CHECKPOINT)
