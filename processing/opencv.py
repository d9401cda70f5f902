"""OpenCV, an optional dependency that is imported where it is used."""

from typing import Any


def import_opencv(what: str) -> Any:
    """
    The module `cv2`.

    Args:
        what: what needs it, as the error says it: `"filling holes"`.

    Raises:
        ImportError: it is missing; says what to install.
    """
    try:
        import cv2
    except ImportError as error:
        raise ImportError(f'{what} needs OpenCV: pip install "gptface[detect]"') from error
    return cv2
