"""Registration with transformers at the moment when it is needed: `import gptface` loads neither transformers nor
torch.
"""

import importlib.abc
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

#: Every Auto class imports this module, and `transformers.pipeline` imports Auto classes.
AUTO_MODULE = "transformers.models.auto.configuration_auto"
PACKAGES = ("transformers", "gptface")


class AutoClassesHook(importlib.abc.MetaPathFinder):
    """
    Calls `register` once the Auto classes of transformers are imported; nobody can look for GPTFace in them before.

    Not at once, but behind the outermost import of a module of either package: to register, models are imported, and
    these need modules that may be half executed at that moment.

    Args:
        register: makes the Auto classes and `pipeline` know GPTFace.
    """

    def __init__(self, register: Callable[[], None]):
        self.register = register
        self._thread = threading.local()

    def install(self) -> None:
        """Starts to wait; where the Auto classes are imported already, registers now."""
        sys.meta_path.insert(0, self)
        self._finish()

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """What the other finders find, made to tell when it has been executed; None for other packages."""
        if name.partition(".")[0] not in PACKAGES:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, (finder.find_spec(name, path, target) for finder in others)), None)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            self._watch(spec.loader)
        return spec

    def _watch(self, loader: Any) -> None:
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            depth = getattr(self._thread, "depth", 0)
            self._thread.depth = depth + 1
            try:
                execute(module)
            finally:
                self._thread.depth = depth
            if depth == 0:
                self._finish()

        loader.exec_module = exec_module

    def _finish(self) -> None:
        if AUTO_MODULE in sys.modules and self in sys.meta_path:
            sys.meta_path.remove(self)
            self.register()
