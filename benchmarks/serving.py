"""
Load on `gptface serve` over loopback: `python -m benchmarks.serving` starts it, asks from several clients at once, and
tells how many answers came and how long they took.
"""

import argparse
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np

PHOTO = Path(__file__).parents[1] / "examples" / "serious.jpg"
#: Seconds for the server to start, and for one answer.
START, ANSWER = 300, 600


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument(
        "--edits", type=float, default=0.05, help="share of the requests that edit; others: expression"
    )
    parser.add_argument("--model", help="of the server")
    options = parser.parse_args(arguments)
    port = free_port()
    model = [] if options.model is None else ["--model", options.model]
    command = [sys.executable, "-m", "gptface", "serve", "--port", str(port), *model]
    with subprocess.Popen(command) as server:
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for(address, server)
            begin = time.perf_counter()
            with ThreadPoolExecutor(options.clients) as pool:
                kinds = np.random.default_rng(0).random(options.requests) < options.edits
                answers = list(pool.map(lambda edit: ask(address, bool(edit)), kinds))
            seconds = time.perf_counter() - begin
        finally:
            server.terminate()
    answered = [took for status, took, _ in answers if status == 200]
    print(f"{len(answered)} of {len(answers)} answered in {seconds:.0f} s, {options.clients} clients")
    print(f"sent again after 503: {sum(again for _, _, again in answers)}; exit status {server.returncode}")
    for name, wanted in (("expression", False), ("edit", True)):
        times = [
            took for kind, (status, took, _) in zip(kinds, answers, strict=True) if kind == wanted and status == 200
        ]
        if times:
            middle, late = np.percentile(times, (50, 95))
            print(f"{name}: {len(times)} requests, p50 {middle:.2f} s, p95 {late:.2f} s")
    return int(len(answered) < len(answers))


def ask(address: str, edit: bool) -> tuple[int, float, int]:
    """One request → its status, the seconds until its answer, and how often it was sent again since all was full."""
    data = {"prompt": "smiling", "format": "jpg"} if edit else {}
    begin, again = time.perf_counter(), 0
    while True:
        files = {"image": ("photo.jpg", PHOTO.read_bytes())}
        answer = httpx.post(f"{address}/{'edit' if edit else 'expression'}", files=files, data=data, timeout=ANSWER)
        if answer.status_code != 503:
            return answer.status_code, time.perf_counter() - begin, again
        again += 1
        time.sleep(float(answer.headers.get("Retry-After", 1)))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(address: str, server: subprocess.Popen) -> None:
    end = time.monotonic() + START
    while time.monotonic() < end and server.poll() is None:
        try:
            if httpx.get(f"{address}/health").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise RuntimeError("the server did not start")


if __name__ == "__main__":
    sys.exit(main())
