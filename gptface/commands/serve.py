"""The command `gptface serve`."""

import argparse
from typing import Any

#: Seconds that requests have to end when the server is told to stop.
GRACE = 60


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("serve", help="serve the pipelines over HTTP (extra serve)")
    parser.add_argument("--model", help="folder or Hub name of a checkpoint; the embedded one by default")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; by default this machine alone")
    parser.add_argument("--port", type=int, default=8000, help="to listen at, 8000 by default")
    parser.add_argument(
        "--allow-host",
        action="append",
        help='name by which it may be asked; by default "localhost" and the address, any for an address of a network',
    )
    parser.add_argument("--batch-size", type=int, default=4, help="requests that go through the model at once")
    parser.add_argument("--max-waiting", type=int, default=32, help="requests that may wait; more are answered by 503")
    parser.set_defaults(run=run_serve)


def run_serve(options: argparse.Namespace) -> int:
    try:
        import uvicorn

        from gptface.server.app import LOOPBACK, create_app
    except ModuleNotFoundError as error:
        raise ImportError(f'the server needs FastAPI and uvicorn ({error}): pip install "gptface[serve]"') from error
    local = options.host in ("127.0.0.1", "localhost", "::1")
    hosts = options.allow_host or (LOOPBACK if local else ("*",))
    app = create_app(options.model, batch_size=options.batch_size, max_waiting=options.max_waiting, hosts=hosts)
    uvicorn.run(
        app,
        host=options.host,
        port=options.port,
        log_level="info" if options.verbose else "warning",
        # each holds its upload in memory while it waits
        limit_concurrency=2 * options.max_waiting + options.batch_size,
        timeout_graceful_shutdown=GRACE,
    )
    return 0
