"""What several commands share: options about faces, pipelines, picture files."""

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any


def add_face_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help="folder or Hub name of a checkpoint; the embedded one by default")
    parser.add_argument("--aligned", action="store_true", help="the photo is an aligned face crop already")
    parser.add_argument("--face", default="largest", help='"largest", "all" or an index, 0 the largest')
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")


def face_index(value: str) -> str | int:
    return int(value) if value.lstrip("-").isdigit() else value


def load_pipeline(task: str, model: str | None) -> Any:
    from transformers import pipeline
    from transformers.utils import logging as transformers_logging

    import gptface

    transformers_logging.disable_progress_bar()
    return pipeline(task, model=model or gptface.DEFAULT_CHECKPOINT)  # type: ignore[call-overload]


def check_output(path: Path) -> None:
    """Complains before the work is done, not after it."""
    from PIL import Image

    Image.init()
    if path.suffix.lower() not in Image.EXTENSION:
        raise ValueError(f"{path}: unknown picture format {path.suffix!r}; use .png, .jpg or .webp")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent} is no folder: make it first")


def save_picture(image: Any, path: Path) -> None:
    """Writes a PIL picture in the format of the name, with its ICC profile; the file appears whole."""
    from PIL import Image

    image_format = Image.EXTENSION[path.suffix.lower()]
    if image_format == "JPEG":
        image = image.convert("RGB")
    extra = {"quality": 95} if image_format in ("JPEG", "WEBP") else {}
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=path.suffix, delete=False) as scratch:
        try:
            image.save(scratch, format=image_format, icc_profile=image.info.get("icc_profile"), **extra)
        except BaseException:
            os.unlink(scratch.name)
            raise
    os.chmod(scratch.name, 0o644)
    os.replace(scratch.name, path)
