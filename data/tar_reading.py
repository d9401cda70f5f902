"""Members of a tar that may be damaged or hostile, one after another.

The standard library's `tarfile` reads headers and no more; what a member may be is decided here. The `webdataset` package writes
and reads the same format but is made for trusted data: it runs the commands of `pipe:` addresses, holds a member of any size in
memory, and ends at a damaged archive with an exception or passes over it uncounted.
"""

import io
import logging
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

logger = logging.getLogger(__name__)

# `tarfile` reads extended headers (long names, pax records) as a whole.
_MAX_HEADER_BYTES = 2**20


def read_members(path: Path, limit: Callable[[str], int], refused: Counter[str]) -> Iterator[tuple[str, str, bytes]]:
    """
    Streams the regular files of a tar as (name up to the first dot of the file name, rest of the name in lower case, bytes).

    Args:
        path: an uncompressed tar.
        limit: the most bytes to read of a member with this suffix; 0 for a type that is not wanted.
        refused: gains a count for every reason: "unsafe name" (absolute, leaves the archive, or not printable), "not a regular
            file" (links, devices, sparse files), "unused type", "oversized member", "damaged file" (the rest of the archive is
            left out).

    Raises:
        OSError: the file cannot be opened.
    """
    with path.open("rb") as file:
        reader = _BoundedReader(file)
        try:
            with tarfile.open(fileobj=reader, mode="r:") as archive:
                end = -1
                while (member := archive.next()) is not None:
                    archive.members.clear()  # type: ignore[attr-defined]  # else it keeps them all
                    if member.offset <= end:  # a negative size would lead round in a circle
                        raise tarfile.ReadError("members overlap")
                    end = member.offset
                    reason = _reason_to_refuse(member, limit)
                    if reason is None:
                        name, suffix = _split(member.name)
                        yield name, suffix, _read(archive, member, reader)
                    elif reason:
                        refused[reason] += 1
                        logger.info("%s: member %.200r left out: %s", path, member.name, reason)
                file.seek(archive.offset)  # `tarfile` takes a header that is no header for the end
                if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                    raise tarfile.ReadError("no end mark")
        except Exception as error:  # A damaged header can raise nearly anything.
            refused["damaged file"] += 1
            logger.info("%s: damaged, the rest is left out: %s", path, error)


def _reason_to_refuse(member: tarfile.TarInfo, limit: Callable[[str], int]) -> str | None:
    """`None` for a member to read, an empty string for one that is passed over in silence."""
    if member.isdir():
        return ""
    if not member.isreg() or member.issparse():
        return "not a regular file"
    if not _is_safe(member.name):
        return "unsafe name"
    most = limit(_split(member.name)[1])
    if not most:
        return "unused type"
    return "oversized member" if member.size > most else None


def _is_safe(name: str) -> bool:
    parts = PurePosixPath(name).parts
    is_absolute = name.startswith("/") or re.match(r"[A-Za-z]:", name) is not None
    return bool(parts) and not is_absolute and ".." not in parts and "\\" not in name and name.isprintable()


def _split(name: str) -> tuple[str, str]:
    """`"a/b.c.JPG"` → (`"a/b"`, `"c.jpg"`), as webdataset splits names."""
    path = PurePosixPath(name)
    stem, _, suffix = path.name.partition(".")
    return str(path.with_name(stem)) if stem else "", suffix.lower()


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo, reader: "_BoundedReader") -> bytes:
    file = archive.extractfile(member)
    reader.limit = max(_MAX_HEADER_BYTES, member.size)
    data = b"" if file is None else file.read(member.size)
    reader.limit = _MAX_HEADER_BYTES
    if len(data) != member.size:
        raise tarfile.ReadError("unexpected end of data")
    return data


class _BoundedReader(io.RawIOBase):
    """A file that never reads more than `limit` bytes at once, whatever a header claims."""

    def __init__(self, file: BinaryIO):
        self.file = file
        self.limit = _MAX_HEADER_BYTES

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self.limit:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self.file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()
