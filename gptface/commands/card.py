"""The command `gptface card`."""

import argparse
from pathlib import Path
from typing import Any

from gptface.processing.whole_files import write_text


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("card", help="make the model card from the reports of `gptface evaluate`")
    parser.add_argument("folder", metavar="EVALUATION_DIR", type=Path, help="folder of NAME.json reports")
    parser.add_argument("--model", metavar="DIR", help="folder of the checkpoint; the embedded one by default")
    parser.add_argument("-o", "--output", type=Path, help="file of the card; printed by default")
    parser.set_defaults(run=run_card)


def run_card(options: argparse.Namespace) -> int:
    from gptface.evaluation.card import model_card

    text = model_card(options.folder, options.model)
    if options.output is None:
        print(text, end="")
    else:
        write_text(options.output, text)
    return 0
