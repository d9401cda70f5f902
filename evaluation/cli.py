"""The command `gptface evaluate KIND`: each kind is a module of this package that adds its own parser."""

from typing import Any

from . import captioning, changes, editing, generation, inpainting, matching, parsing, recognition, saliency, tokenizer

KINDS: tuple[Any, ...] = (
    captioning,
    changes,
    editing,
    generation,
    inpainting,
    matching,
    parsing,
    recognition,
    saliency,
    tokenizer,
)


def add_evaluate_parser(commands: Any) -> None:
    """Adds `evaluate` with all kinds to the sub-commands of a parser."""
    parser = commands.add_parser("evaluate", help="measure a checkpoint by a fixed protocol")
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind in KINDS:
        kind.add_parser(kinds)
