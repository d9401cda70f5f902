"""Samples of a tar that may be damaged or hostile, one after another.

The standard library's `tarfile` reads headers and no more; what a member may be is decided here. The `webdataset`
package writes and reads the same format but is made for trusted data: it runs the commands of `pipe:` addresses, holds
a member of any size in memory, and ends at a damaged archive with an exception or passes over it uncounted.
"""

import io
import re
import tarfile
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, groupby
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

import numpy as np

from .refusals import refuse

# `tarfile` reads extended headers (long names, pax records) as a whole.
_MAX_HEADER_BYTES = 2**20


class _Member(NamedTuple):
    name: str
    suffix: str
    start: int
    size: int


def read_groups(
    path: Path, limit: Callable[[str], int], refused: Counter[str]
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """
    Streams the regular files of a tar that share a name as (name up to the first dot of the file name, the rest of
    each name in lower case → bytes). The order is that in which the names begin; members of a name that do not follow
    each other are joined.

    Args:
        path: an uncompressed tar.
        limit: the most bytes to read of a member with this suffix; 0 for a type that is not wanted.
        refused: gains a count for every reason: "unsafe name" (absolute, leaves the archive, or not printable), "not a
            regular file" (links, devices, sparse files), "unused type", "oversized member", "repeated member",
            "damaged file" (the rest of the archive is left out).

    Raises:
        OSError: the file cannot be opened.
    """
    with path.open("rb") as file:
        members: Iterable[_Member] = _read_headers(path, limit, refused)
        if _are_apart(_read_headers(path, limit, None)):
            groups: dict[str, list[_Member]] = {}
            for member in members:
                groups.setdefault(member.name, []).append(member)
            members = chain.from_iterable(groups.values())
        for name, group in groupby(members, lambda member: member.name):
            data: dict[str, bytes] = {}
            for member in group:
                if member.suffix in data:
                    refuse(refused, "repeated member", f"{path}, {name}.{member.suffix}")
                    continue
                file.seek(member.start)
                content = file.read(member.size)
                if len(content) < member.size:  # the headers end here, too, and count that
                    break
                data[member.suffix] = content
            if data:
                yield name, data


def _are_apart(members: Iterable[_Member]) -> bool:
    """Whether a name comes again behind others. Holds 8 bytes for each name, so that a million of them fit."""
    runs = array("q", (hash(name) for name, _ in groupby(members, lambda member: member.name)))
    return len(np.unique(runs)) < len(runs)


def _read_headers(path: Path, limit: Callable[[str], int], refused: Counter[str] | None) -> Iterator[_Member]:
    """The members to read, in the order of the archive; the data are not touched."""
    with path.open("rb") as file:
        try:
            with tarfile.open(fileobj=_BoundedReader(file), mode="r:") as archive:
                end = -1
                while (header := archive.next()) is not None:
                    archive.members.clear()  # type: ignore[attr-defined]  # else it keeps them all
                    if header.offset <= end:  # a negative size would lead round in a circle
                        raise tarfile.ReadError("members overlap")
                    end = header.offset
                    reason = _reason_to_refuse(header, limit)
                    if reason is None:
                        yield _Member(*_split(header.name), header.offset_data, header.size)
                    elif reason:
                        refuse(refused, reason, f"{path}, {header.name:.200}")
                file.seek(archive.offset)  # `tarfile` takes a header that is no header for the end
                if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                    raise tarfile.ReadError("no end mark")
        except Exception as error:  # A damaged header can raise nearly anything.
            refuse(refused, "damaged file", f"the rest of {path}", error)


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


class _BoundedReader(io.RawIOBase):
    """A file that never reads more than `_MAX_HEADER_BYTES` at once, whatever a header claims."""

    def __init__(self, file: BinaryIO):
        self.file = file

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self.file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()
