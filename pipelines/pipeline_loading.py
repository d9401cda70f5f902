"""Where the embedded checkpoint lies, and pipelines by the name of their task."""

from importlib.resources import files
from typing import Any

#: Folder of the checkpoint that comes with the package.
DEFAULT_CHECKPOINT = str(files("gptface") / "assets")


def load_pipeline(task: str, model: str | None = None, **parameters: Any) -> Any:
    """
    The pipeline of a task, such as "guided-face-editing", without progress bars.

    Args:
        model: folder or Hub name of a checkpoint; the embedded one by default.
        parameters: of the pipeline.
    """
    from transformers import pipeline
    from transformers.utils import logging

    logging.disable_progress_bar()
    return pipeline(task, model=model or DEFAULT_CHECKPOINT, **parameters)  # type: ignore[call-overload]
