"""Films as files, video (PyAV) and animated GIF and WebP (Pillow): their frames are read, and written anew."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from PIL import Image, UnidentifiedImageError

from .image_loading import MAX_ENCODED_BYTES, MAX_IMAGE_PIXELS
from .provenance import in_words, xmp_packet
from .whole_files import whole_file

#: What a video may be called, with the encoder of its pictures: H.264 plays everywhere, VP9 wherever WebM does.
ENCODERS = {".mp4": "libx264", ".m4v": "libx264", ".mov": "libx264", ".mkv": "libx264", ".webm": "libvpx-vp9"}
#: Of the encoders: hardly to be told from the source, at a size like that of a camera's file.
QUALITY = {
    "libx264": {"crf": "16", "preset": "medium"},
    "libvpx-vp9": {"crf": "20", "b": "0", "cpu-used": "4", "row-mt": "1"},
}
ANIMATIONS = {".gif": "GIF", ".webp": "WEBP"}
#: FFmpeg's names of the containers that are opened. Others are a danger for nothing: a playlist makes it open further
#: files and addresses.
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg"
#: Of one frame, those of 4K cinema; and of a film, ten minutes at 30 a second, for which two cores work two hours.
MAX_FRAME_PIXELS, MAX_FRAMES = 4096 * 2304, 18_000
#: All pixels of an animation, which Pillow holds in memory until it is written: 2 GB.
MAX_ANIMATION_PIXELS = 512_000_000
#: Transfer functions (ITU-T H.273) of high dynamic range, PQ and HLG: read as others they are grey and dull.
HDR = frozenset((16, 18))
#: Metadata that say where a film was taken.
_LOCATION = ("location", "gps", "iso6709", "xyz")
_TURNS = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}


class FilmInputError(ValueError):
    """A file that is not a usable film. The message names it and says what would be right."""


@dataclass(frozen=True, eq=False)
class FilmFrame:
    """
    One frame of a film.

    Args:
        index: from 0.
        time: when it is shown, in seconds.
        decode: makes its picture.
    """

    index: int
    time: float
    decode: Callable[[], Image.Image]

    @functools.cached_property
    def image(self) -> Image.Image:
        """Upright, mode RGB or RGBA."""
        return self.decode()


#: A frame → what it becomes, of its size and mode; None where it stays.
FrameEdit = Callable[[FilmFrame], Image.Image | None]


class Film(Protocol):
    """
    A film that can be read several times.

    Args:
        path: of its file.
        expected_frames: how many it says, or seems, to have.
    """

    path: Path
    expected_frames: int

    def frames(self) -> Iterator[FilmFrame]:
        """Its frames in the order in which they are shown; raises `FilmInputError` where it is damaged or too long."""

    def rewrite(
        self,
        target: str | Path,
        edit: FrameEdit,
        provenance: dict[str, Any] | None = None,
        keep_location: bool = False,
    ) -> None:
        """
        Writes it with other frames; the file appears whole. Times, sound and loops are those of the film.

        Args:
            target: another file of the same kind, see [`check_film_output`].
            edit: what each frame becomes.
            provenance: how it was made, which goes into the file; see `processing/provenance.py`.
            keep_location: whether the file says where the film was taken, if that did.
        """


def is_film(path: str | Path) -> bool:
    """Whether a file has the name of a video, or is an animated GIF or WebP."""
    suffix = Path(path).suffix.lower()
    if suffix in ANIMATIONS:
        with contextlib.suppress(OSError, ValueError, UnidentifiedImageError), Image.open(path) as image:
            return getattr(image, "is_animated", False)
    return suffix in ENCODERS or suffix in (".avi", ".ts", ".mpg", ".mpeg", ".3gp")


def open_film(path: str | Path) -> Film:
    """
    A film of a file.

    Raises:
        FilmInputError: no film, or none that can be edited: too large, too long, of high dynamic range.
        FileNotFoundError: there is no such file.
        ImportError: a video, without PyAV (extra `video`).

    Example:
        ```python
        film = open_film("film.mp4")
        film.rewrite("grey.mp4", lambda frame: frame.image.convert("L").convert("RGB"))
        ```
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    return Animation(path) if path.suffix.lower() in ANIMATIONS else Video(path)


def check_film_output(source: str | Path, target: str | Path) -> None:
    """
    Complains before the work is done, not after it.

    Raises:
        ValueError: a name that is no film's, of another kind than the source, or that of the source or of a link.
        FileNotFoundError: there is no such folder.
    """
    source, target = Path(source), Path(target)
    moving = ANIMATIONS if source.suffix.lower() in ANIMATIONS else ENCODERS
    if target.suffix.lower() not in moving:
        raise ValueError(f"{target}: a film like {source.name} is written as {', '.join(moving)}")
    if target.is_symlink():
        raise ValueError(f"{target} is a link: name the file itself, {target.resolve()}, or another one")
    if target.resolve() == source.resolve():
        raise ValueError(f"{source} would be overwritten by its edit: name another file")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target.parent} is no folder: make it first")


class Video:
    """A file with a video stream; see [`Film`]."""

    def __init__(self, path: Path):
        self.path, self._av = path, require_av()
        with self._opened() as container:
            video = container.streams.video[0]
            pixels = video.width * video.height
            if not pixels or pixels > MAX_FRAME_PIXELS:
                raise FilmInputError(
                    f"{path} has frames of {video.width}×{video.height} pixels: at most {MAX_FRAME_PIXELS / 1e6:.1f} "
                    "million are edited, scale it down first"
                )
            if video.codec_context.color_trc in HDR:
                raise FilmInputError(f"{path} has a high dynamic range: convert it to SDR first")
            seconds = (container.duration or 0) / self._av.time_base
            self.expected_frames = video.frames or round(seconds * float(video.average_rate or 25))
        if self.expected_frames > MAX_FRAMES:
            raise FilmInputError(_too_long(path))

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Any]:
        """The container; what FFmpeg complains of, names the file."""
        try:
            options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
            # the whole path: FFmpeg takes a name with a colon for an address
            with self._av.open(f"file:{self.path.resolve()}", options=options) as container:
                if not container.streams.video:
                    raise FilmInputError(f"{self.path} has no pictures in it: pass a film")
                yield container
        except self._av.error.FFmpegError as error:
            raise FilmInputError(f"{self.path} is no film that can be read, or damaged ({error.strerror})") from error

    def frames(self) -> Iterator[FilmFrame]:
        with self._opened() as container:
            for index, frame in enumerate(container.decode(video=0)):
                yield self._frame(index, frame)

    def _frame(self, index: int, frame: Any) -> FilmFrame:
        if index >= MAX_FRAMES:
            raise FilmInputError(_too_long(self.path))
        return FilmFrame(index, float(frame.time or 0), functools.partial(_upright, frame))

    def rewrite(
        self,
        target: str | Path,
        edit: FrameEdit,
        provenance: dict[str, Any] | None = None,
        keep_location: bool = False,
    ) -> None:
        target = Path(target)
        encoder = ENCODERS[target.suffix.lower()]
        faststart = {"movflags": "+faststart"} if encoder == "libx264" and target.suffix.lower() != ".mkv" else {}
        with (
            self._opened() as source,
            whole_file(target) as scratch,
            self._av.open(str(scratch), "w", container_options=faststart) as container,
        ):
            video, sounds = source.streams.video[0], source.streams.audio
            metadata = {name: text for name, text in source.metadata.items() if keep_location or not _is_place(name)}
            container.metadata.update(metadata)
            if provenance is not None:
                container.metadata["comment"] = in_words(provenance)
            # in the order of the first frame: what is turned has other sides than its stream
            writer, copies, last = None, {}, None
            waiting: list[Any] = []
            for packet in source.demux([video, *sounds]):
                if packet.stream is not video:
                    if packet.dts is not None:
                        waiting.append(packet)
                else:
                    for frame in packet.decode():
                        index = 0 if last is None else last[0] + 1
                        shown = self._frame(index, frame)
                        edited = edit(shown)
                        picture = self._encodable(frame, shown, edited)
                        if writer is None:
                            writer = self._add_video(container, encoder, video, picture)
                            copies = {each.index: self._add_sound(container, each, target) for each in sounds}
                        pts = picture.pts if picture.pts is not None else index
                        picture.pts = pts if last is None else max(pts, last[1] + 1)
                        last = (index, picture.pts)
                        container.mux(writer.encode(picture))
                if writer is not None:
                    for each in waiting:
                        each.stream = copies[each.stream.index]
                        container.mux(each)
                    waiting.clear()
            if writer is None:
                raise FilmInputError(f"{self.path} has no frame that can be read")
            container.mux(writer.encode(None))

    def _encodable(self, frame: Any, shown: FilmFrame, edited: Image.Image | None) -> Any:
        """A frame for the encoder, in the colours and at the time of the one that was decoded."""
        pixel_format = "yuv420p" if frame.width % 2 == frame.height % 2 == 0 else "yuv444p"
        if edited is None and not frame.rotation:
            picture = frame.reformat(format=pixel_format)
        else:
            rgb = self._av.VideoFrame.from_image((edited or shown.image).convert("RGB"))
            limits = self._av.video.reformatter.ColorRange
            wide = frame.color_range == limits.JPEG
            picture = rgb.reformat(
                format=pixel_format,
                src_colorspace=frame.colorspace,
                dst_colorspace=frame.colorspace,
                src_color_range=limits.JPEG,
                dst_color_range=limits.JPEG if wide else limits.MPEG,
            )
        for name in ("colorspace", "color_range", "color_primaries", "color_trc"):
            setattr(picture, name, getattr(frame, name))
        picture.pts, picture.time_base, picture.duration = frame.pts, frame.time_base, frame.duration
        picture.pict_type = 0  # the encoder chooses, not the source
        return picture

    @staticmethod
    def _add_video(container: Any, encoder: str, video: Any, first: Any) -> Any:
        writer = container.add_stream(encoder, rate=video.average_rate or 25, options=QUALITY[encoder])
        context = writer.codec_context
        writer.width, writer.height, writer.pix_fmt = first.width, first.height, first.format.name
        context.time_base = video.time_base
        if video.sample_aspect_ratio and (first.width, first.height) == (video.width, video.height):
            context.sample_aspect_ratio = video.sample_aspect_ratio
        for name in ("colorspace", "color_range", "color_primaries", "color_trc"):
            setattr(context, name, getattr(first, name))
        return writer

    @staticmethod
    def _add_sound(container: Any, sound: Any, target: Path) -> Any:
        try:
            return container.add_stream_from_template(sound)
        except ValueError as error:
            name = sound.codec_context.name
            raise ValueError(f"{target.suffix} takes no sound in {name}: write .mkv, which takes all") from error


class Animation:
    """An animated GIF or WebP; see [`Film`]."""

    def __init__(self, path: Path):
        self.path = path
        if path.stat().st_size > MAX_ENCODED_BYTES:
            raise FilmInputError(f"{path} holds more than {MAX_ENCODED_BYTES} bytes: make it shorter or smaller first")
        with self._opened() as image:
            self.expected_frames = getattr(image, "n_frames", 1)
            pixels = image.width * image.height
        if pixels > MAX_IMAGE_PIXELS or pixels * self.expected_frames > MAX_ANIMATION_PIXELS:
            raise FilmInputError(
                f"{path} has {self.expected_frames} frames of {pixels / 1e6:.1f} million pixels, at most "
                f"{MAX_ANIMATION_PIXELS / 1e6:.0f} million in all are edited: make it shorter or smaller first"
            )

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Image.Image]:
        try:
            with Image.open(self.path, formats=list(ANIMATIONS.values())) as image:
                yield image
        except (OSError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise FilmInputError(f"{self.path} is no animation that can be read, or damaged ({error})") from error

    def frames(self) -> Iterator[FilmFrame]:
        with self._opened() as image:
            for frame, _ in self._timed(image):
                yield frame

    @staticmethod
    def _timed(image: Image.Image) -> Iterator[tuple[FilmFrame, float]]:
        """Frames, each with how long it is shown, in milliseconds."""
        shown = 0.0
        for index in range(getattr(image, "n_frames", 1)):
            image.seek(index)
            image.load()  # before it, what a WebP says of this frame is what it said of the last
            picture = image.convert("RGBA" if image.has_transparency_data else "RGB")
            milliseconds = float(image.info.get("duration") or 0)
            yield FilmFrame(index, shown / 1000, functools.partial(_given, picture)), milliseconds
            shown += milliseconds

    def rewrite(
        self,
        target: str | Path,
        edit: FrameEdit,
        provenance: dict[str, Any] | None = None,
        keep_location: bool = False,
    ) -> None:
        target = Path(target)
        kind = ANIMATIONS[target.suffix.lower()]
        pictures, durations = [], []
        with self._opened() as image:
            loop = image.info.get("loop")
            for frame, milliseconds in self._timed(image):
                edited = edit(frame)
                pictures.append(frame.image if edited is None else edited)
                durations.append(round(milliseconds))
        if any(picture.mode == "RGBA" for picture in pictures):
            pictures = [picture.convert("RGBA") for picture in pictures]
        options: dict[str, Any] = {"duration": durations}
        if loop is not None:  # without it a GIF plays once
            options["loop"] = loop
        if kind == "WEBP":
            options |= {"quality": 95}
        elif pictures[0].mode == "RGBA":
            options["disposal"] = 2  # else what was opaque once would stay
        if provenance is not None:
            options |= (
                {"xmp": xmp_packet(provenance)} if kind == "WEBP" else {"comment": in_words(provenance).encode()}
            )
        with whole_file(target) as scratch:
            pictures[0].save(scratch, kind, save_all=True, append_images=pictures[1:], **options)


def require_av() -> Any:
    """PyAV; raises `ImportError` that says what to install."""
    try:
        import av
    except ImportError as error:
        raise ImportError('films need PyAV: pip install "gptface[video]" (animated GIF and WebP do not)') from error
    return av


def _given(picture: Image.Image) -> Image.Image:
    return picture


def _upright(frame: Any) -> Image.Image:
    image = frame.to_image()
    turn = frame.rotation % 360
    return image.transpose(_TURNS[turn]) if turn in _TURNS else image


def _is_place(name: str) -> bool:
    return any(word in name.lower() for word in _LOCATION)


def _too_long(path: Path) -> str:
    return f"{path} has more than {MAX_FRAMES} frames: cut it into parts first"
