"""The command `gptface edits`."""

import argparse
import json
from typing import Any


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("edits", help="list the edits that a prompt may ask for")
    parser.add_argument("--quality", choices=("good", "fair", "experimental"), help="only the edits of this quality")
    parser.add_argument("--markdown", action="store_true", help="print the table of docs/edits.md")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    parser.set_defaults(run=run_edits)


def run_edits(options: argparse.Namespace) -> int:
    from gptface.processing.edits import edits_table, list_edits

    edits = list_edits(options.quality)
    if options.json:
        for edit in edits:
            row = {"name": edit.name, "prompt": edit.phrase, "kind": edit.kind, "regions": edit.regions}
            print(json.dumps(row | {"quality": edit.quality, "example": edit.example, "sentence": edit.sentence}))
    elif options.markdown:
        print(edits_table(edits))
    else:
        for edit in edits:
            regions = ", ".join(edit.regions)
            print(f'{edit.phrase:20} {edit.quality:13} {regions:22} e.g. "{edit.example}". {edit.sentence}')
    return 0
