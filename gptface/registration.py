"""Registers GPTFace with the Auto classes and the pipeline registry of transformers."""

import logging
import os

from transformers import AutoConfig, AutoModel, AutoProcessor, AutoTokenizer
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING
from transformers.pipelines import PIPELINE_REGISTRY

from gptface.modeling_gptface.configuration_gptface import (
    GPTFaceConfig,
    GPTFaceImageTokenizerConfig,
    GPTFaceParserConfig,
    GPTFaceRefinerConfig,
)
from gptface.modeling_gptface.face_parser_gptface import GPTFaceParser
from gptface.modeling_gptface.image_tokenizer_gptface import GPTFaceImageTokenizer
from gptface.modeling_gptface.saved_code import SavesCode
from gptface.pipelines.pipeline_loading import DEFAULT_CHECKPOINT
from gptface.pipelines.task_registry import AUTO_MODELS, PIPELINES
from gptface.processing.image_processing_gptface import GPTFaceImageProcessor
from gptface.processing.processing_gptface import GPTFaceProcessor
from gptface.processing.tokenization_gptface import GPTFaceTokenizer


def complete_folder(folder: str | os.PathLike) -> None:
    """Puts into a saved folder what opens it without the package; imports what that needs when it is called."""
    from gptface.conversion.folder_code import complete_folder

    complete_folder(folder)


def register() -> None:
    """Makes `AutoModel…`, `AutoProcessor` and `pipeline(task)` know GPTFace; harmless when called again."""
    AutoConfig.register("gptface", GPTFaceConfig, exist_ok=True)
    AutoConfig.register("gptface_image_tokenizer", GPTFaceImageTokenizerConfig, exist_ok=True)
    AutoConfig.register("gptface_refiner", GPTFaceRefinerConfig, exist_ok=True)
    AutoConfig.register("gptface_face_parser", GPTFaceParserConfig, exist_ok=True)
    for auto_class, network in AUTO_MODELS.items():
        auto_class.register(GPTFaceConfig, network, exist_ok=True)
    AutoModel.register(GPTFaceImageTokenizerConfig, GPTFaceImageTokenizer, exist_ok=True)
    AutoModel.register(GPTFaceParserConfig, GPTFaceParser, exist_ok=True)
    AutoTokenizer.register(GPTFaceConfig, fast_tokenizer_class=GPTFaceTokenizer, exist_ok=True)
    # what AutoImageProcessor.register does; some versions let nobody call it without torchvision
    IMAGE_PROCESSOR_MAPPING.register(GPTFaceConfig, {"pil": GPTFaceImageProcessor}, exist_ok=True)  # type: ignore[arg-type]
    AutoProcessor.register(GPTFaceConfig, GPTFaceProcessor, exist_ok=True)
    SavesCode.complete_folder = complete_folder
    logging.getLogger("transformers.pipelines").addFilter(_is_no_advice_on_the_default)
    for task, (pipeline_class, model_class) in PIPELINES.items():
        if task not in PIPELINE_REGISTRY.supported_tasks:
            PIPELINE_REGISTRY.register_pipeline(
                task,
                pipeline_class=pipeline_class,
                pt_model=model_class,
                default={"model": (DEFAULT_CHECKPOINT, None)},
                type="multimodal",
            )


def _is_no_advice_on_the_default(record: logging.LogRecord) -> bool:
    """
    Whether a message is none about a model that nobody named: the default comes with the package, of the same release,
    so that there is no revision to pin.
    """
    message = record.getMessage()
    return not (message.startswith("No model was supplied") and DEFAULT_CHECKPOINT in message)
