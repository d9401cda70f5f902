"""The photos of a command: what a user calls so, a line for each, and where a stopped run goes on."""

import argparse
import contextlib
import glob
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .common import plain

#: What is wrong with one photo, or with the place that its result goes to: no reason to end the run.
PHOTO_ERRORS = (ValueError, OSError, FloatingPointError)
#: Characters of a list of photos: names of a million files. It need not end (`yes photo.jpg | gptface edit - …`).
MAX_LIST = 2**26


@dataclass(frozen=True)
class Photo:
    """
    One photo of a command.

    Args:
        source: its path or address, as the user would write it.
        name: what its result is called: the file's name, with the folders on the way from the folder that was given.
    """

    source: str
    name: str

    @property
    def modified(self) -> int | None:
        """When the file changed last, in nanoseconds; None of an address, or where there is no such file."""
        try:
            return os.stat(self.source).st_mtime_ns
        except (OSError, ValueError):
            return None


def add_photo_options(parser: argparse.ArgumentParser) -> None:
    """The photos of a command, and how they are read. [`find_photos`] and [`each_photo`] take them."""
    parser.add_argument(
        "photos",
        nargs="+",
        metavar="INPUT",
        help='photos: files, addresses, folders, patterns ("*.jpg"), or lists (.txt, or - for stdin) of one a line',
    )
    parser.add_argument("--recursive", action="store_true", help="look into the folders of folders too")
    parser.add_argument("--batch-size", type=int, default=1, help="photos that go through the model at once")


def add_log_option(parser: argparse.ArgumentParser) -> None:
    """`-o FILE` of commands that print; [`open_log`] reads it."""
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        help="also write a JSON line a photo to this file, behind which a stopped run goes on",
    )


def open_log(options: argparse.Namespace, settings: Mapping[str, Any]) -> "PhotoLog":
    """The log of a command that prints. Raises `FileNotFoundError` where its folder is missing."""
    if options.output is not None and not options.output.parent.is_dir():
        raise FileNotFoundError(f"{options.output.parent} is no folder: make it first")
    return PhotoLog(options.output, {"command": options.command, "model": options.model, **settings})


def find_photos(inputs: Iterable[str], recursive: bool = False, results: Path | None = None) -> list[Photo]:
    """
    What a user calls photos → the photos, in order.

    Args:
        inputs: a file or address stands for itself; a folder for the pictures in it; a pattern for the files that it
            fits (`**` for any folders); a `.txt` file, or `-` for standard input, for the files or addresses that its
            lines name.
        recursive: whether pictures in folders of a folder count.
        results: folder of the results; pictures in it are not found in a folder around it.

    Raises:
        ValueError: a folder, pattern or list without a photo; names it.
        OSError: a list or folder cannot be read.
    """
    return [photo for each in inputs for photo in _expand(each, recursive, results)]


def _expand(given: str, recursive: bool, results: Path | None) -> list[Photo]:
    path = Path(given)
    if given == "-" or (path.suffix.lower() == ".txt" and os.path.isfile(given)):
        text = _read_list(None if given == "-" else path)
        found = [Photo(line, _name(line)) for line in map(str.strip, text.splitlines()) if line]
        missing = f"{'standard input' if given == '-' else given} names no photo: write one a line"
    elif os.path.isdir(given):  # Path.is_dir raises of a name that is too long, such as a data URL
        files = sorted(path.rglob("*") if recursive else path.iterdir())
        found = _below(path, [file for file in files if _is_picture(file, path)], results)
        missing = f"{given} has no picture in it" + ("" if recursive else "; --recursive looks into its folders too")
    elif glob.has_magic(given) and "://" not in given and not os.path.exists(given):
        root = Path(*_until_magic(path))
        # not by the module glob: its ** follows links, and two that lead back make more paths than anybody can walk
        files = sorted(root.glob(str(path.relative_to(root))))
        found = _below(root, [file for file in files if file.is_file() and not _is_hidden(file, root)], results)
        missing = f"no file fits {given}"
    else:
        return [Photo(given, _name(given))]
    if not found:
        raise ValueError(missing)
    return found


def _is_picture(file: Path, folder: Path) -> bool:
    """Whether a file of a folder has the name of a picture; hidden ones, such as half-written ones, do not count."""
    from gptface.processing.image_loading import picture_suffixes

    return file.suffix.lower() in picture_suffixes() and not _is_hidden(file, folder) and file.is_file()


def _is_hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _read_list(path: Path | None) -> str:
    """A list of photos, from standard input where `path` is None."""
    if path is None:
        text = sys.stdin.read(MAX_LIST + 1)
    else:
        with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:  # names of files are bytes
            text = file.read(MAX_LIST + 1)
    if len(text) > MAX_LIST:
        raise ValueError(f"{path or 'standard input'} holds more than {MAX_LIST} characters: split the list")
    return text


def _below(folder: Path, files: Sequence[Path], results: Path | None) -> list[Photo]:
    """The photos of a folder, without the results of this command where their folder lies in it."""
    if results is not None and results.resolve() != folder.resolve():
        files = [file for file in files if results.resolve() not in file.resolve().parents]
    return [Photo(str(file), file.relative_to(folder).as_posix()) for file in files]


def _until_magic(pattern: Path) -> Iterator[str]:
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            return
        yield part


def _name(source: str) -> str:
    """The name of a file, or of what an address leads to."""
    if source[:5].lower() == "data:":
        return "photo"
    return Path(urlsplit(source).path if "://" in source else source).name or "photo"


class PhotoLog:
    """
    A file of JSON lines, one for each photo that is done: a run that was stopped goes on behind it.

    Args:
        path: of the file; None for none.
        settings: what makes the results: done is what was done under the same ones.
    """

    def __init__(self, path: Path | None, settings: Mapping[str, Any]):
        import gptface

        text = json.dumps({"version": gptface.__version__, **settings}, sort_keys=True, default=str)
        self.path, self._settings = path, hashlib.sha256(text.encode()).hexdigest()[:16]
        self._done: dict[tuple[str, ...], str | None] = {}
        self._lock: Any = None
        self._read()

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """
        Keeps other runs out while the block lasts: two that write the same files would leave some of each.

        Raises:
            OSError: another run is writing.
        """
        if self.path is None:
            yield
            return
        from filelock import FileLock, Timeout

        # one object, which its holder may acquire again
        self._lock = self._lock or FileLock(self.path.with_name(f".{self.path.name}.lock"))
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            raise OSError(f"another run is writing {self.path}: wait for its end, or choose another place") from None
        try:
            self._read()  # what another run has done meanwhile
            yield
        finally:
            self._lock.release()

    def _read(self) -> None:
        self._done = {}
        for line in self._lines():
            output = line.get("output")
            if "error" in line:
                self._done.pop(self._key(line), None)
            elif output is None or isinstance(output, str):
                self._done[self._key(line)] = output

    def _lines(self) -> Iterator[dict[str, Any]]:
        if self.path is None or not self.path.exists():
            return
        lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines() if self.path.is_file() else [""]
        for number, line in enumerate(lines):
            try:
                content = json.loads(line)
            except ValueError:
                # cut off where a run was; but of a file that is no log nothing must be lost
                if number == 0 and not (line.startswith("{") and len(lines) == 1):
                    raise ValueError(f"{self.path} is no log of an earlier run: name another file") from None
                continue
            if isinstance(content, dict):
                yield content

    @staticmethod
    def _key(line: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(repr(line.get(name)) for name in ("photo", "modified", "settings"))

    def _entry(self, photo: Photo) -> dict[str, Any]:
        return {"photo": photo.source, "modified": photo.modified, "settings": self._settings}

    def has(self, photo: Photo) -> bool:
        """Whether a photo is done under these settings and as it is now, and the file that it became is there."""
        key = self._key(self._entry(photo))
        if key not in self._done:
            return False
        output = self._done[key]
        return output is None or os.path.isfile(output)

    def add(self, photo: Photo, report: Mapping[str, Any]) -> None:
        """Notes what became of a photo."""
        if self.path is None:
            return
        cut = self.path.is_file() and _last_byte(self.path) not in (b"", b"\n")
        with self.path.open("a", encoding="utf-8") as file:
            file.write("\n" * cut + json.dumps({**self._entry(photo), **report}) + "\n")


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
        return file.read()


def each_photo(
    pipe: Any,
    photos: Sequence[Photo],
    options: argparse.Namespace,
    tell: Callable[[Photo, Any], tuple[dict[str, Any], Sequence[str]]],
    log: PhotoLog,
    write: Callable[[Photo, Any], None] | None = None,
    **parameters: Any,
) -> int:
    """
    Runs a pipeline over photos as a stream and prints what became of each; an error of one is a line as well.

    Args:
        photos: those that the log has are left out.
        options: `json` for one JSON object a line, `batch_size`.
        tell: a photo and its result → what is reported of it, and the lines for people.
        write: writes the files of a result. The log has a photo before its files appear: what a run leaves that was
            stopped in between is done again, and no file is there that the log does not know.
        parameters: of the pipeline's call.

    Returns:
        The exit status: 0, or 2 where a photo failed.

    Raises:
        OSError: another run is writing into the log.
    """
    with log.claimed():
        return _each_photo(pipe, photos, options, tell, log, write, parameters)


def _each_photo(
    pipe: Any,
    photos: Sequence[Photo],
    options: argparse.Namespace,
    tell: Callable[[Photo, Any], tuple[dict[str, Any], Sequence[str]]],
    log: PhotoLog,
    write: Callable[[Photo, Any], None] | None,
    parameters: Mapping[str, Any],
) -> int:
    from tqdm import tqdm

    waiting = [photo for photo in photos if not log.has(photo)]
    if len(waiting) < len(photos):
        print(f"{len(photos) - len(waiting)} of {len(photos)} photos are done already", file=sys.stderr)
    results = pipe((photo.source for photo in waiting), on_error="return", batch_size=options.batch_size, **parameters)
    status = 0
    hidden = len(waiting) < 2 or not sys.stderr.isatty()
    with tqdm(total=len(waiting), unit="photo", disable=hidden) as bar:
        for photo, result in zip(waiting, results, strict=True):
            error = result.get("error") if isinstance(result, dict) else None
            lines: Sequence[str] = ()
            report: dict[str, Any] = {}
            if error is None:
                try:
                    report, lines = tell(photo, result)
                    log.add(photo, report)
                    if write is not None:
                        write(photo, result)
                except PHOTO_ERRORS as raised:
                    error = str(raised)
            if error is not None:
                status, report = 2, {"error": error}
                log.add(photo, report)
            if options.json:
                lines = [json.dumps({"photo": photo.source, **report})]
            elif error is not None:
                bar.write(plain(f"{photo.source}: {error}"), file=sys.stderr)
            for line in lines:
                bar.write(plain(line), file=sys.stdout)
            bar.update()
    return status
