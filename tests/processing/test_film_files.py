"""Films as files: times, sound, turns, loops and transparency of what people have on their phones and pages."""

from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from gptface.processing import film_files
from gptface.processing.film_files import FilmInputError, check_film_output, is_film, open_film
from gptface.processing.image_loading import MAX_IMAGE_PIXELS

av = pytest.importorskip("av")
SIZE = (64, 48)


def pictures(count=6):
    """A bright square that walks to the right over a dim ground."""
    made = []
    for index in range(count):
        pixels = np.full((SIZE[1], SIZE[0], 3), 60, np.uint8)
        pixels[4:20, 4 + 6 * index : 20 + 6 * index] = (200, 120, 40)
        made.append(Image.fromarray(pixels))
    return made


def write_video(path, frames, times, turn=0, sound=True, **metadata):
    """Frames at times in 1/600 of a second."""
    with av.open(str(path), "w") as container:
        container.metadata.update(metadata)
        video = container.add_stream("libx264", rate=30, options={"crf": "4"})
        video.width, video.height = frames[0].size
        video.pix_fmt, video.codec_context.time_base = "yuv420p", Fraction(1, 600)
        if turn:
            video.set_display_rotation(turn)
        audio = container.add_stream("aac", rate=8000, layout="mono") if sound else None
        for image, time in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_image(image)
            frame.pts, frame.time_base = time, Fraction(1, 600)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            tone = np.sin(np.arange(4096) * 0.3).astype(np.float32)[None]
            for start in range(0, 4096, 1024):
                block = av.AudioFrame.from_ndarray(tone[:, start : start + 1024], format="fltp", layout="mono")
                block.sample_rate, block.pts, block.time_base = 8000, start, Fraction(1, 8000)
                container.mux(audio.encode(block))
            container.mux(audio.encode(None))


def packets(path, kind):
    with av.open(str(path)) as container:
        stream = next(iter(getattr(container.streams, kind)))
        return [(packet.pts, bytes(packet)) for packet in container.demux(stream) if packet.size]


def difference(first, second):
    return float(np.abs(np.asarray(first, float) - np.asarray(second, float)).mean())


def inverted(frame):
    return Image.fromarray(255 - np.asarray(frame.image))


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "film.mp4"
    write_video(path, pictures(), [0, 20, 60, 80, 200, 220], title="holiday", location="+52.5+013.4/")
    return path


def test_times_and_sound_stay_and_frames_are_edited(video, tmp_path):
    target = tmp_path / "edited.mp4"
    open_film(video).rewrite(target, lambda frame: inverted(frame) if frame.index == 2 else None)
    before, after = list(open_film(video).frames()), list(open_film(target).frames())
    times = [0, 20 / 600, 60 / 600, 80 / 600, 200 / 600, 220 / 600]
    assert [frame.time for frame in after] == pytest.approx(times, abs=1e-4)
    assert packets(target, "audio") == packets(video, "audio")  # not encoded anew
    for was, becomes in zip(before, after, strict=True):
        assert difference(inverted(was) if was.index == 2 else was.image, becomes.image) < 4


def test_a_film_held_upright_by_its_metadata_is_edited_and_written_upright(tmp_path):
    turned = tmp_path / "turned.mov"
    write_video(
        turned, [each.transpose(Image.Transpose.ROTATE_90) for each in pictures()], range(0, 120, 20), turn=-90
    )
    with av.open(str(turned)) as container:
        assert container.streams.video[0].width == SIZE[1]  # it does lie
    assert all(
        difference(each.image, shown) < 4 for each, shown in zip(open_film(turned).frames(), pictures(), strict=True)
    )
    target = tmp_path / "upright.mp4"
    open_film(turned).rewrite(target, lambda frame: None)
    with av.open(str(target)) as container:
        frame = next(container.decode(video=0))
        assert (frame.width, frame.height) == SIZE and not frame.rotation
        assert difference(frame.to_image(), pictures()[0]) < 4


def test_the_file_says_that_it_is_edited_and_not_where_it_was_taken(video, tmp_path):
    about = {
        "software": "GPTFace",
        "model": "assets",
        "revision": "0",
        "prompt": "smiling",
        "digital_source_type": "compositeWithTrainedAlgorithmicMedia",
        "seed": 3,
    }
    open_film(video).rewrite(tmp_path / "edited.mp4", lambda frame: None, about)
    open_film(video).rewrite(tmp_path / "placed.mp4", lambda frame: None, keep_location=True)
    with av.open(str(tmp_path / "edited.mp4")) as container:
        assert container.metadata["title"] == "holiday" and "location" not in container.metadata
        assert "compositeWithTrained" in container.metadata["comment"] and "smiling" in container.metadata["comment"]
    with av.open(str(tmp_path / "placed.mp4")) as container:
        assert "location" in container.metadata and "comment" not in container.metadata
    pictures()[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures()[1:], duration=40)
    open_film(tmp_path / "a.gif").rewrite(tmp_path / "b.webp", lambda frame: None, about)
    open_film(tmp_path / "a.gif").rewrite(tmp_path / "b.gif", lambda frame: None, about)
    assert b"compositeWithTrained" in Image.open(tmp_path / "b.webp").info["xmp"]
    assert b"compositeWithTrained" in Image.open(tmp_path / "b.gif").info["comment"]


@pytest.mark.parametrize(("suffix", "loop"), [(".gif", None), (".gif", 3), (".webp", 0)])
def test_animations_keep_durations_loops_and_transparency(tmp_path, suffix, loop):
    source, target = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    frames = [image.convert("RGBA") for image in pictures()]
    for image in frames:
        image.paste((0, 0, 0, 0), (0, 30, 64, 48))
    options = {} if loop is None else {"loop": loop}
    durations = [40, 100, 40, 200, 60, 40]
    frames[0].save(
        source, save_all=True, append_images=frames[1:], duration=durations, disposal=2, lossless=True, **options
    )
    assert is_film(source)

    def edit(frame):
        assert frame.image.mode == "RGBA"
        return frame.image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if frame.index == 1 else None

    open_film(source).rewrite(target, edit)
    with Image.open(target) as image:
        assert image.info.get("loop") == loop and image.n_frames == 6
        for index, expected in enumerate(frames):
            image.seek(index)
            shown = image.convert("RGBA")
            if index == 1:
                expected = expected.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            assert image.info["duration"] == durations[index]
            alpha = np.asarray(expected)[:, :, 3]
            assert np.array_equal(np.asarray(shown)[:, :, 3], alpha)
            assert difference(np.asarray(shown)[alpha > 0], np.asarray(expected)[alpha > 0]) < 6


def test_webm_and_odd_sizes_are_written_too(tmp_path):
    write_video(tmp_path / "film.mkv", pictures(), range(0, 120, 20), sound=False)
    open_film(tmp_path / "film.mkv").rewrite(tmp_path / "film.webm", inverted)
    assert len(list(open_film(tmp_path / "film.webm").frames())) == 6


def test_what_is_wrong_with_a_film_is_said(video, tmp_path, monkeypatch):
    (tmp_path / "text.mp4").write_text("no film")
    (tmp_path / "list.mp4").write_text("#EXTM3U\n#EXTINF:1,\nfilm.mp4\n")
    (tmp_path / "cut.mp4").write_bytes(video.read_bytes()[:900])
    (tmp_path / "cut.gif").write_bytes(b"GIF89a")
    for name in ("text.mp4", "list.mp4", "cut.mp4", "cut.gif"):
        with pytest.raises(FilmInputError, match=name):
            list(open_film(tmp_path / name).frames())
    with pytest.raises(FileNotFoundError, match=r"none\.mp4"):
        open_film(tmp_path / "none.mp4")
    for name, message in (("out.png", "written as .mp4"), ("out.gif", "written as"), ("film.mp4", "overwritten")):
        with pytest.raises(ValueError, match=message):
            check_film_output(video, tmp_path / name)
    monkeypatch.setattr(film_files, "MAX_FRAMES", 3)
    with pytest.raises(FilmInputError, match="more than 3 frames"):
        open_film(video)
    monkeypatch.setattr(film_files, "MAX_FRAME_PIXELS", 100)
    with pytest.raises(FilmInputError, match="64×48"):
        open_film(video)
    pictures()[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures()[1:])
    monkeypatch.setattr(film_files, "MAX_ANIMATION_PIXELS", 5 * SIZE[0] * SIZE[1])
    with pytest.raises(FilmInputError, match="6 frames"):
        open_film(tmp_path / "a.gif")
    assert film_files.MAX_FRAME_PIXELS < MAX_IMAGE_PIXELS


def test_nothing_is_left_of_a_film_that_failed(video, tmp_path):
    before = sorted(tmp_path.iterdir())

    def fail(frame):
        if frame.index == 3:
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        open_film(video).rewrite(tmp_path / "edited.mp4", fail)
    assert sorted(tmp_path.iterdir()) == before


def test_without_pyav_it_says_what_to_install(video, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(ImportError, match=r"gptface\[video\]"):
        open_film(video)
