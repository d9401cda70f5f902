"""Folders that are saved with the code that opens them where the package is not installed."""

import os
from collections.abc import Callable
from typing import Any, ClassVar


class SavesCode:
    """
    Base of what has a `save_pretrained`, in front of the class of transformers: folders and uploads hold the code too.

    The package sets `complete_folder` when it registers its classes. In remote code it is None: there transformers
    copies the code that a class was loaded from.
    """

    complete_folder: ClassVar[Callable[[str | os.PathLike], None] | None] = None

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; the folder opens with `trust_remote_code=True` where this package is not installed."""
        saved = super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]
        if kwargs.get("is_main_process", True):
            self._complete(save_directory)
        return saved

    def _upload_modified_files(self, working_dir: str | os.PathLike, *args: Any, **kwargs: Any) -> Any:
        # `save_pretrained(…, push_to_hub=True)` of transformers uploads before it returns
        self._complete(working_dir)
        return super()._upload_modified_files(working_dir, *args, **kwargs)  # type: ignore[misc]

    @staticmethod
    def _complete(folder: str | os.PathLike) -> None:
        if SavesCode.complete_folder is not None:
            SavesCode.complete_folder(folder)
