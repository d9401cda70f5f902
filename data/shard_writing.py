"""Face shards on disk: `00000.tar` and `00000_stats.json`, as img2dataset names them, whole or not there at all.

A shard is finished once its statistics exist. They hold all that a stopped run needs to go on behind it.
"""

import io
import tarfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from gptface.processing.whole_files import publish

from .claimed_folder import read_json, write_json
from .sources import file_hash

Position = tuple[int, int]


@dataclass
class ShardStatistics:
    """
    Counts of the pairs that were looked at for one shard.

    Args:
        end: (part of the input, pair in it) to go on with behind this shard.
        samples: "read", "kept" and every reason for which a pair was left out.
        faces: "found", "kept" and every reason for which a face was left out.
        sizes: of kept faces, the shorter side of the box: its power of two from below → faces.
        uncaptioned: kept faces without a text.
        bytes: of the crops.
        seconds: spent on the shard.
        hashes: of the kept faces, in hexadecimals, in order.
        sha256: of the shard, which readers verify.
    """

    end: Position = (0, 0)
    samples: Counter[str] = field(default_factory=Counter)
    faces: Counter[str] = field(default_factory=Counter)
    sizes: Counter[str] = field(default_factory=Counter)
    uncaptioned: int = 0
    bytes: int = 0
    seconds: float = 0.0
    hashes: list[str] = field(default_factory=list)
    sha256: str = ""

    @classmethod
    def load(cls, path: Path) -> "ShardStatistics":
        names = [field.name for field in fields(cls) if field.name != "sha256"]  # the shards of older runs have none
        values = read_json(path, names, "remove it and run it again, which makes its shard and those behind it anew")
        counters = {name: Counter(values[name]) for name in ("samples", "faces", "sizes")}
        return cls(**{**values, **counters, "end": tuple(values["end"])})

    def add(self, other: "ShardStatistics") -> None:
        """Adds the counts of the shard that follows; hashes are not collected."""
        self.end = other.end
        for name in ("samples", "faces", "sizes"):
            getattr(self, name).update(getattr(other, name))
        self.uncaptioned += other.uncaptioned
        self.bytes += other.bytes
        self.seconds += other.seconds


class ShardWriter:
    """
    Writes the shard number `index` of a folder; nothing of it is seen under its name before `finish`.

    The archives hold no times and no user: the same faces give the same bytes.
    """

    def __init__(self, folder: Path, index: int):
        self.path = folder / f"{index:05d}.tar"
        self._unfinished = self.path.with_suffix(".tar.tmp")
        self._archive: tarfile.TarFile | None = None
        self.faces = 0

    def write(self, key: str, members: Mapping[str, bytes]) -> None:
        """Adds one face: `key` and suffix → bytes."""
        if self._archive is None:
            self._archive = tarfile.TarFile(self._unfinished, "w", format=tarfile.USTAR_FORMAT)
        for suffix, data in members.items():
            member = tarfile.TarInfo(f"{key}.{suffix}")
            member.size = len(data)
            self._archive.addfile(member, io.BytesIO(data))
        self.faces += 1

    def finish(self, statistics: ShardStatistics) -> None:
        """
        Closes the shard and makes it appear. A kill in between leaves a shard without statistics: it is made again.
        """
        assert self._archive is not None
        self._archive.close()
        statistics.sha256 = file_hash(self._unfinished)
        publish(self._unfinished, self.path)
        write_json(statistics_path(self.path), vars(statistics))

    def abandon(self) -> None:
        """Removes what was begun."""
        if self._archive is not None:
            self._archive.close()
            self._unfinished.unlink(missing_ok=True)


def statistics_path(shard: Path) -> Path:
    return shard.with_name(f"{shard.stem}_stats.json")


def finished_shards(folder: Path) -> list[ShardStatistics]:
    """The statistics of the finished shards, from the first without a gap."""
    finished: list[ShardStatistics] = []
    while (shard := folder / f"{len(finished):05d}.tar").exists() and statistics_path(shard).exists():
        finished.append(ShardStatistics.load(statistics_path(shard)))
    return finished
