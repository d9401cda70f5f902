"""What is left out of a collection: counted by its reason, and named."""

import logging
from collections import Counter

logger = logging.getLogger(__name__)

#: Of each reason so many are named in a warning; the rest of them in the log's details.
NAMED = 3


def refuse(
    refused: Counter[str] | None, reason: str, what: str, error: BaseException | None = None, count: int = 1
) -> None:
    """
    Adds `count` to a reason and names what was left out; without a counter nothing happens: it is said elsewhere.
    """
    if refused is None:
        return
    level = logging.WARNING if refused[reason] < NAMED else logging.INFO
    refused[reason] += count
    logger.log(level, "%s left out: %s%s", readable(what), reason, f" ({error})" if error else "")


def readable(text: str) -> str:
    r"""
    A text that can be written as UTF-8: bytes of a file name that are none become `\udc80` and the like, spelt out.
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
