"""The command `gptface push`."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("push", help="upload a folder to the Hub, in one commit")
    parser.add_argument("folder", metavar="DIR", type=Path, help="what `gptface export` wrote")
    parser.add_argument("repository", metavar="USER/NAME", help="on the Hub; made where it does not exist")
    parser.add_argument(
        "--private", action="store_true", help="make a new repository a private one; stop where it is a public one"
    )
    parser.add_argument("--revision", help="branch to commit to; made where it does not exist")
    parser.add_argument("--message", default="Upload GPTFace checkpoint", help="commit message")
    parser.add_argument(
        "--keep", action="store_true", help="leave files on the Hub that DIR has not; else they are deleted"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run_push)


def run_push(options: argparse.Namespace) -> int:
    from gptface.conversion.hub_push import push_folder

    if not (options.folder / "README.md").is_file():
        print(f"{options.folder} is no export (no README.md): others need gptface to open it", file=sys.stderr)
    push = push_folder(
        options.folder, options.repository, options.private, options.revision, options.message, options.keep
    )
    if options.json:
        print(json.dumps({"repository": options.repository, "commit": push.commit, "deleted": push.deleted}))
    else:
        print(
            "\n".join([*(f"deleted {name}" for name in push.deleted), f"{options.repository}: commit {push.commit}"])
        )
    return 0
