"""The command line `gptface`. Each command imports what it needs when it runs."""

import argparse
import gc
import io
import logging
import os
import sys
from collections.abc import Sequence

from gptface import __version__
from gptface.commands import (
    caption,
    card,
    classify,
    convert,
    demo,
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
    serve,
    train_critic,
    train_parser,
    train_plan,
    train_refiner,
    train_tokenizer,
)
from gptface.commands.common import plain
from gptface.evaluation.cli import add_evaluate_parser

#: Commands whose start somebody waits for; and after how many new objects Python looks for garbage in them.
AWAITED = frozenset(("edit", "generate", "caption", "classify", "expression", "parse"))
COLLECTED_AFTER = 50_000
#: Exit status where whatever reads the output has ended, as shells have it (128 + SIGPIPE).
READER_LEFT = 141

ADD_PARSERS = (
    edit.add_parser,
    edits.add_parser,
    generate.add_parser,
    caption.add_parser,
    classify.add_parser,
    parse.add_parser,
    demo.add_parser,
    serve.add_parser,
    prepare.add_parser,
    encode.add_parser,
    train_tokenizer.add_parser,
    train_plan.add_parser,
    train_refiner.add_parser,
    train_parser.add_parser,
    train_critic.add_parser,
    pretrain.add_parser,
    finetune.add_parser,
    add_evaluate_parser,
    convert.add_parser,
    export.add_parser,
    push.add_parser,
    card.add_parser,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status. Errors a user can mend are one line on stderr and status 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # a console that lacks a letter of a file's name must not lose the results of all files
            stream.reconfigure(errors="backslashreplace")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # names of files are bytes
    parser = build_parser()
    options = parser.parse_args(arguments)
    if options.command in AWAITED:
        # nearly all that imports make stays: to look for garbage in it every 700 objects is a tenth of the time
        gc.set_threshold(COLLECTED_AFTER, *gc.get_threshold()[1:])
    logging.basicConfig(level=logging.INFO if options.verbose else logging.WARNING, format="%(message)s")
    try:
        status = options.run(options)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # `gptface edits | head`: whoever reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left is flushed when Python ends
        return READER_LEFT
    except mendable_errors() as error:
        print(plain(f"gptface {options.command}: {error}", kept="\n\t"), file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # files appear whole: there is nothing to be told of where it was stopped
        print("stopped", file=sys.stderr)
        return 130


def mendable_errors() -> tuple[type[Exception], ...]:
    """The errors that say what a user can do; asked for when there was one, for guidance brings torch along."""
    from gptface.modeling_gptface.guidance import GuidanceError

    return ValueError, OSError, ImportError, FloatingPointError, GuidanceError


def build_parser() -> argparse.ArgumentParser:
    """The parser with all commands."""
    parser = argparse.ArgumentParser(
        prog="gptface",
        description="Edit, classify and learn faces.",
        epilog='To begin with: gptface edit photo.jpg "smiling" -o edited.png. What may be asked for: gptface edits. '
        "What a command takes: gptface COMMAND --help.",
    )
    parser.add_argument("--version", action="version", version=f"gptface {__version__}")
    parser.add_argument("--verbose", action="store_true", help="say what is being done")
    commands = parser.add_subparsers(dest="command", required=True)
    for add_parser in ADD_PARSERS:
        add_parser(commands)
    _describe_commands(parser)
    return parser


def _describe_commands(parser: argparse.ArgumentParser) -> None:
    """What the list of commands says of one is said by its own help, too; argparse keeps the two apart."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            sentences = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, command in action.choices.items():
                command.description = f"{sentences[name][:1].upper()}{sentences[name][1:]}."
                _describe_commands(command)
