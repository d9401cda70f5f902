"""Folders that a long run fills and a stopped run goes on with: what they are made of is written down, and one run at
a time writes.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gptface.processing.whole_files import write_text

MANIFEST = "manifest.json"


@contextmanager
def claimed_folder(folder: Path, made_of: Mapping[str, Any], writer: int = 0) -> Iterator[None]:
    """
    Makes a folder, or goes on with one that was made of the same, and keeps other runs out of it while the block
    lasts.

    Args:
        made_of: name of an option → its value, as JSON can hold it; `"input"`: [name, hash] of each file. Written to
            `manifest.json`.
        writer: of several processes that fill the folder together, each has its number.

    Raises:
        ValueError: the folder was made of something else, says which; or it holds what no such run made.
        OSError: another run is writing into it.
    """
    from filelock import FileLock, Timeout

    manifest = folder / MANIFEST
    if not manifest.exists() and folder.exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise ValueError(
            f"{folder} is not empty and does not say what it was made of (it has no {MANIFEST}): choose another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f".lock-{writer}")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise OSError(f"another run is writing into {folder}: wait for its end, or choose another folder") from None
    try:
        if manifest.exists():
            _compare(folder, read_json(manifest, ["input"], "remove the folder and run it again"), made_of)
        else:
            write_json(manifest, made_of)
        yield
    finally:
        lock.release()


def _compare(folder: Path, before: Mapping[str, Any], made_of: Mapping[str, Any]) -> None:
    now = json.loads(json.dumps(made_of))
    different = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if "input" in different:
        files = [[name for name, _ in values.get("input", ())] for values in (before, now)]
        changed = (
            f"{', '.join(files[0])[:200]} with other content" if files[0] == files[1] else ", ".join(files[0])[:200]
        )
        different[different.index("input")] = f"input ({changed})"
    if different:
        raise ValueError(
            f"{folder} was made with another {', another '.join(different)}: choose another folder, remove this one, "
            "or repeat what it was made with to go on"
        )


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file that appears whole."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path, names: Collection[str], remedy: str) -> dict[str, Any]:
    """
    What a JSON file of ours holds.

    Args:
        names: of the fields that it must have.
        remedy: what to do where it is empty, cut or damaged.

    Raises:
        ValueError: it is.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or not content.keys() >= set(names):
            raise ValueError(f"it lacks {', '.join(names)}")
        return content
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): {remedy}") from error
