"""What all recipes (YAML files) share."""

from pathlib import Path
from typing import Any, Self

import yaml


class Recipe:
    """Base of the dataclasses that a recipe is read into."""

    @classmethod
    def from_yaml(cls, path: str | Path, **overrides: Any) -> Self:
        """
        Reads a recipe; `overrides` replace its fields.

        Raises:
            ValueError: where a field is unknown, or one that is needed is missing.
        """
        values = {**(yaml.safe_load(Path(path).read_text()) or {}), **overrides}
        known: dict[str, Any] = getattr(cls, "__dataclass_fields__", {})
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(f"{path}: unknown fields {unknown}; known: {sorted(known)}")
        cls.check(path, values)
        return cls(**values)

    @classmethod
    def check(cls, path: str | Path, values: dict[str, Any]) -> None:
        """Raises `ValueError` where the values of the recipe at `path` do not do."""
