"""The command `gptface export`."""

import argparse
import json
from typing import Any


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("export", help="write a checkpoint as a self-contained repository for the Hub")
    parser.add_argument(
        "folder",
        metavar="DIR",
        nargs="?",
        help="folder of the checkpoint and its processor; --space and --web have a default for it",
    )
    parser.add_argument("output", metavar="OUT", help="new folder of the repository")
    parser.add_argument("--card", metavar="FILE", help="model card for README.md; that of DIR by default")
    parser.add_argument(
        "--onnx",
        action="store_true",
        help="also write OUT/onnx: image tokenizer, heads and the steps of an edit, each file compared with torch",
    )
    parser.add_argument(
        "--space", action="store_true", help="write a Space instead: the page of gptface demo with all that it needs"
    )
    parser.add_argument(
        "--web",
        action="store_true",
        help="write a static page instead that edits faces in the browser alone, by the ONNX files; needs npm",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run_export)


def run_export(options: argparse.Namespace) -> int:
    from transformers.utils import logging as transformers_logging

    from gptface.conversion.hub_export import export_hub
    from gptface.conversion.space_export import export_space
    from gptface.pipelines.pipeline_loading import DEFAULT_CHECKPOINT

    transformers_logging.disable_progress_bar()
    if options.web:
        from gptface.conversion.web_export import export_web

        if options.card is not None or options.space:
            raise ValueError("a page for the browser is neither a Space nor a repository with a card: leave these out")
        files = export_web(options.folder or DEFAULT_CHECKPOINT, options.output)
    elif options.space:
        if options.card is not None or options.onnx:
            raise ValueError("a Space has a card of its own and no ONNX files: leave --card and --onnx out")
        files = export_space(options.folder or DEFAULT_CHECKPOINT, options.output)
    elif options.folder is None:
        raise ValueError("name the folder of the checkpoint too: gptface export DIR OUT")
    else:
        files = export_hub(options.folder, options.output, options.card, options.onnx)
    if options.json:
        print(json.dumps({"output": options.output, "files": files}))
    else:
        print("\n".join([*files, f"written to {options.output}"]))
    return 0
