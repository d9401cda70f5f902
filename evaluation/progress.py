"""The bar that kinds of `gptface evaluate` show on a terminal while they run."""

from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def progress(items: Iterable[Any], what: str) -> Any:
    """The items, with a bar on stderr where that is a terminal, gone when it is done."""
    return tqdm(items, desc=what, leave=False, disable=None)
