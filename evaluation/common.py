"""Options and output that all kinds of `gptface evaluate` share."""

import argparse
import json
from collections.abc import Iterator
from typing import Any


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """`--data`, `--model` and `--json`, which every kind has."""
    parser.add_argument(
        "--data",
        required=True,
        help="labelled faces: parquet file with an `image` column, tars with .json, or a folder",
    )
    parser.add_argument("--model", help="folder or Hub name of a checkpoint; the embedded one by default")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def print_report(report: dict[str, Any], as_json: bool) -> None:
    """Prints the figures as one JSON object, or one a line."""
    if as_json:
        print(json.dumps(report))
        return
    for name, value in _flat(report):
        print(f"{name}: {value:.4f}" if isinstance(value, float) else f"{name}: {value}")


def _flat(report: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The figures with the names of what they are nested in in front: `groups.age.18-29.Male`."""
    for name, value in report.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
