"""The tables of what transformers opens by name: model classes by their Auto class, pipelines by their task."""

from transformers import (
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForImageToImage,
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    AutoModelForZeroShotImageClassification,
)

from gptface.modeling_gptface.generation_gptface import GPTFaceForGuidedGeneration
from gptface.modeling_gptface.heads_gptface import (
    GPTFaceForFaceAttributeClassification,
    GPTFaceForFacialExpression,
    GPTFaceForImageClassification,
    GPTFaceForImageTextMatching,
    GPTFaceForMaskedLM,
    GPTFaceForPreTraining,
)
from gptface.modeling_gptface.modeling_gptface import GPTFaceModel

from .face_captioning import FaceCaptioningPipeline
from .face_classification import (
    FaceAttributeClassificationPipeline,
    FaceClassificationPipeline,
    FacialExpressionPipeline,
)
from .face_parsing_pipeline import FaceParsingPipeline
from .guided_face_editing import GuidedFaceEditingPipeline
from .text_to_face import TextToFacePipeline

# Each Auto registry holds one class for a configuration; a second registration would overwrite the first in silence.
AUTO_MODELS = {
    AutoModel: GPTFaceModel,
    AutoModelForPreTraining: GPTFaceForPreTraining,
    AutoModelForImageClassification: GPTFaceForImageClassification,
    AutoModelForImageToImage: GPTFaceForGuidedGeneration,
    AutoModelForMaskedLM: GPTFaceForMaskedLM,
    AutoModelForZeroShotImageClassification: GPTFaceForImageTextMatching,
}

PIPELINES = {
    "guided-face-editing": (GuidedFaceEditingPipeline, GPTFaceForGuidedGeneration),
    "text-to-face": (TextToFacePipeline, GPTFaceForGuidedGeneration),
    "face-captioning": (FaceCaptioningPipeline, GPTFaceForGuidedGeneration),
    "face-parsing": (FaceParsingPipeline, GPTFaceForGuidedGeneration),
    "face-classification": (FaceClassificationPipeline, GPTFaceForImageClassification),
    "face-attribute-classification": (
        FaceAttributeClassificationPipeline,
        GPTFaceForFaceAttributeClassification,
    ),
    "facial-expression": (FacialExpressionPipeline, GPTFaceForFacialExpression),
}
