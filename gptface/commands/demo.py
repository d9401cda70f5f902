"""The command `gptface demo`."""

import argparse
from typing import Any


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("demo", help="serve a page to edit faces on (extra demo)")
    parser.add_argument("--model", help="folder or Hub name of a checkpoint; the embedded one by default")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; by default this machine alone")
    parser.add_argument("--port", type=int, help="by default the first free one from 7860 on")
    parser.add_argument(
        "--share", action="store_true", help="make it reachable from anywhere, through Gradio's servers"
    )
    parser.add_argument("--open", action="store_true", help="open it in the browser")
    parser.set_defaults(run=run_demo)


def run_demo(options: argparse.Namespace) -> int:
    from gptface.demo.app import PhotoEditor, launch, require_gradio

    require_gradio()  # before the model is loaded
    launch(PhotoEditor(options.model), options.host, options.port, options.share, options.open)
    return 0
