"""Where the embedded checkpoint lies, and pipelines by the name of their task."""

from importlib.resources import files
from pathlib import Path
from typing import Any

#: Folder of the checkpoint that comes with the package.
DEFAULT_CHECKPOINT = str(files("gptface") / "assets")


def find_checkpoint(name: str | Path) -> str:
    """
    The name of a checkpoint, looked for before anything is loaded: transformers would ask the Hub for every file of a
    folder that is not there, several times each.

    Args:
        name: a folder, or "user/name" on the Hub.

    Raises:
        FileNotFoundError: there is no such folder, and nothing of the name on the Hub.
        ConnectionError: there is no such folder, and the Hub cannot be reached.
    """
    text = str(name)
    if Path(text).exists():
        return text
    parts = text.replace("\\", "/").split("/")
    is_path = Path(text).is_absolute() or text[:1] in (".", "~") or len(parts) != 2 or Path(parts[0]).is_dir()
    if is_path or not all(parts):
        raise FileNotFoundError(f"there is no folder {text}")
    from huggingface_hub import HfApi, constants, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    if isinstance(try_to_load_from_cache(text, "config.json"), str) or constants.HF_HUB_OFFLINE:
        return text
    try:
        HfApi().model_info(text, timeout=10)
    except HfHubHTTPError as error:
        raise FileNotFoundError(f"there is no folder {text}, and no such model on the Hub ({error!s:.200})") from error
    except HTTPError as error:
        raise ConnectionError(f"there is no folder {text}, and the Hub cannot be reached ({error!s:.200})") from error
    return text


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
    return pipeline(task, model=DEFAULT_CHECKPOINT if model is None else find_checkpoint(model), **parameters)  # type: ignore[call-overload]
