"""The command `gptface export`."""

import argparse
import json
from typing import Any


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("export", help="write a checkpoint as a self-contained repository for the Hub")
    parser.add_argument("folder", metavar="DIR", help="folder of the checkpoint and its processor")
    parser.add_argument("output", metavar="OUT", help="new folder of the repository")
    parser.add_argument("--card", metavar="FILE", help="model card for README.md; that of DIR by default")
    parser.add_argument(
        "--onnx",
        action="store_true",
        help="also write OUT/onnx: image tokenizer and classification heads, each file compared with torch",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run_export)


def run_export(options: argparse.Namespace) -> int:
    from transformers.utils import logging as transformers_logging

    from gptface.conversion.hub_export import export_hub

    transformers_logging.disable_progress_bar()
    files = export_hub(options.folder, options.output, options.card, options.onnx)
    if options.json:
        print(json.dumps({"output": options.output, "files": files}))
    else:
        print("\n".join([*files, f"written to {options.output}"]))
    return 0
