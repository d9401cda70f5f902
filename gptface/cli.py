"""The command line `gptface`. Each command imports what it needs when it runs."""

import argparse
import logging
import sys
from collections.abc import Sequence

from gptface.commands import (
    caption,
    card,
    classify,
    edit,
    edits,
    encode,
    export,
    finetune,
    generate,
    parse,
    prepare,
    pretrain,
    push,
    train_parser,
    train_plan,
    train_refiner,
    train_tokenizer,
)
from gptface.conversion.cli import add_convert_parser
from gptface.evaluation.cli import add_evaluate_parser
from gptface.modeling_gptface.guidance import GuidanceError

ADD_PARSERS = (
    edit.add_parser,
    edits.add_parser,
    generate.add_parser,
    caption.add_parser,
    classify.add_parser,
    parse.add_parser,
    prepare.add_parser,
    encode.add_parser,
    train_tokenizer.add_parser,
    train_plan.add_parser,
    train_refiner.add_parser,
    train_parser.add_parser,
    pretrain.add_parser,
    finetune.add_parser,
    add_evaluate_parser,
    add_convert_parser,
    export.add_parser,
    push.add_parser,
    card.add_parser,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status. Errors a user can mend are one line on stderr and status 2."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO if options.verbose else logging.WARNING, format="%(message)s")
    try:
        return options.run(options)
    except (ValueError, OSError, ImportError, FloatingPointError, GuidanceError) as error:
        print(f"gptface {options.command}: {error}", file=sys.stderr)
        return 2


def build_parser() -> argparse.ArgumentParser:
    """The parser with all commands."""
    parser = argparse.ArgumentParser(prog="gptface", description="Edit, classify and learn faces.")
    parser.add_argument("--verbose", action="store_true", help="say what is being done")
    commands = parser.add_subparsers(dest="command", required=True)
    for add_parser in ADD_PARSERS:
        add_parser(commands)
    return parser
