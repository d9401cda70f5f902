"""Whatever a user calls a picture loads upright and right, or the error names it and says what would be right."""

import base64
import contextlib
import http.server
import io
import threading
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin

from gptface.processing import image_loading
from gptface.processing.image_loading import ImageInputError, load_image, to_rgb

PORTRAIT = Path(__file__).parents[2] / "examples" / "portrait.jpg"


def gradient(width=7, height=5):
    """A small RGB picture without any symmetry."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 30, y * 50, (x + 2 * y) * 10], axis=2).astype(np.uint8)


def encode(image, format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def test_every_form_of_one_picture_loads_the_same(tmp_path):
    torch = pytest.importorskip("torch")
    array = gradient()
    data = encode(Image.fromarray(array))
    path = tmp_path / "ein bild ü.png"
    path.write_bytes(data)
    sources = [
        Image.fromarray(array),
        str(path),
        path,
        data,
        bytearray(data),
        memoryview(data),
        io.BytesIO(data),
        "data:image/png;base64," + base64.b64encode(data).decode(),
        array,
        array / 255,
        array.astype(np.float32) / 255,
        torch.from_numpy(array).permute(2, 0, 1),
        torch.from_numpy(array).permute(2, 0, 1) / 255,
        (torch.from_numpy(array).permute(2, 0, 1) / 255).requires_grad_(),
    ]
    for source in sources:
        image = load_image(source)
        assert image.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(image), array, err_msg=str(type(source)))


def test_grey_arrays_and_tensors_become_rgb():
    torch = pytest.importorskip("torch")
    grey = gradient()[:, :, 0]
    for source in (grey, grey[:, :, None], torch.from_numpy(grey), torch.from_numpy(grey)[None], grey / 255):
        np.testing.assert_array_equal(np.asarray(load_image(source)), np.stack([grey] * 3, axis=2))


@pytest.mark.report("Photos of phones come out on their side (EXIF orientation)")
@pytest.mark.parametrize("orientation", range(1, 9))
def test_phone_photos_stand_upright(orientation):
    """All eight orientations are loaded upright, and the result is not turned twice."""
    upright = np.asarray(Image.fromarray(gradient()).resize((48, 32), Image.Resampling.NEAREST))
    # How a camera stores a picture that has to be shown with this orientation.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = load_image(encode(Image.fromarray(np.ascontiguousarray(stored)), exif=exif))
    np.testing.assert_array_equal(np.asarray(image), upright)
    assert "exif" not in image.info  # Saved with its old EXIF, the picture would be turned twice.


@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
def test_sixteen_bit_grey_keeps_its_brightness(dtype):
    values = np.array([[0, 128, 32768, 65535]], dtype=np.uint16)
    expected = [[0, 0, 128, 255]]
    for source in (encode(Image.fromarray(values.astype(dtype)), "TIFF"), values):
        np.testing.assert_array_equal(np.asarray(load_image(source))[:, :, 0], expected)
    np.testing.assert_array_equal(np.asarray(load_image(encode(Image.fromarray(values))))[:, :, 1], expected)


def test_thirty_two_bit_grey_by_its_range():
    for values, expected in (
        (np.array([[0, 100, 255]], dtype=np.int32), [0, 100, 255]),
        (np.array([[0, 257 * 90, 65535]], dtype=np.int32), [0, 90, 255]),
        (np.array([[0.0, 0.2, 1.0]], dtype=np.float32), [0, 51, 255]),
        (np.array([[0.0, 51.0, 255.0]], dtype=np.float32), [0, 51, 255]),
    ):
        assert np.asarray(load_image(Image.fromarray(values)))[0, :, 2].tolist() == expected
    with pytest.raises(ImageInputError, match="8 bit"):
        load_image(Image.fromarray(np.array([[-5, 3]], dtype=np.int32)))


def test_transparency_survives_and_the_model_sees_it_over_white():
    palette = Image.fromarray(gradient()).quantize(8)
    palette.info["transparency"] = 0
    for image in (
        Image.new("RGBA", (3, 2), (255, 0, 0, 0)),
        Image.new("LA", (3, 2), (9, 0)),
        load_image(encode(palette)),
    ):
        loaded = load_image(image)
        assert loaded.mode == "RGBA"
        assert np.asarray(loaded)[:, :, 3].min() == 0
        shown = np.asarray(to_rgb(loaded))
        assert (shown[np.asarray(loaded)[:, :, 3] == 0] == 255).all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "HSV"])
def test_unusual_modes_become_rgb(mode):
    assert load_image(Image.fromarray(gradient()).convert(mode)).mode == "RGB"


def test_an_rgb_profile_is_kept_and_another_is_not():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert load_image(encode(Image.fromarray(gradient()), "JPEG", icc_profile=profile)).info["icc_profile"] == profile
    grey = Image.fromarray(gradient()[:, :, 0])
    grey.info["icc_profile"] = profile[:16] + b"GRAY" + profile[20:]
    assert load_image(grey).info == {}


def test_a_broken_cmyk_profile_does_no_harm():
    image = Image.fromarray(gradient()).convert("CMYK")
    image.info["icc_profile"] = b"no profile at all, but long enough"
    assert load_image(image).mode == "RGB"


@pytest.mark.report(
    "Of animated pictures and pages all but the first are dropped in silence; 12-bit data come out dark"
)
def test_first_frame_of_an_animation():
    """The first frame is used, with a warning that there are others."""
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    for format in ("GIF", "PNG", "TIFF"):
        data = encode(frames[0], format, save_all=True, append_images=frames[1:])
        with pytest.warns(UserWarning, match="image 2 .*only the first one is used"):
            assert load_image(data, "image 2").convert("RGB").getpixel((0, 0)) == (255, 0, 0), format


def test_nothing_is_said_of_a_frame_that_the_user_chose_nor_of_a_cameras_second_picture():
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime")]
    animation = Image.open(io.BytesIO(encode(frames[0], "GIF", save_all=True, append_images=frames[1:])))
    animation.seek(1)
    phone = encode(frames[0], "MPO", save_all=True, append_images=frames[1:])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_image(animation).convert("RGB").getpixel((0, 0)) == (0, 255, 0)
        load_image(phone)
        load_image(encode(frames[0]))


@pytest.mark.report(
    "Of animated pictures and pages all but the first are dropped in silence; 12-bit data come out dark"
)
def test_values_of_fewer_bits_are_scaled_by_their_own_maximum():
    """Grey of 10 or 12 bits is as bright as it was; colours, of which Pillow drops half, are refused."""
    values = np.array([[0, 1365, 2730, 4095]], np.uint16)
    for largest in (4095, 4000):  # of what can be, or of what is in the picture
        data = encode(Image.fromarray(values), "TIFF", tiffinfo={281: largest})
        assert np.asarray(load_image(data))[0, :, 0].tolist() == [0, 85, 170, 255]
    assert np.asarray(load_image(encode(Image.fromarray(values // 4), "TIFF", tiffinfo={281: 1023})))[0, 3, 0] == 255
    assert np.asarray(load_image(encode(Image.fromarray(values), "TIFF")))[0, 3, 0] == 16  # says nothing
    colours = encode(Image.new("RGB", (2, 1)), "TIFF", tiffinfo={281: 4095})
    sixteen = Image.open(io.BytesIO(colours))
    sixteen.tag_v2[258] = (16, 16, 16)
    with pytest.raises(ImageInputError, match="12 bits in 16"):
        load_image(sixteen)


def test_the_callers_image_is_neither_changed_nor_shared():
    image = Image.open(PORTRAIT)
    image.load()
    before = np.array(image)
    loaded = load_image(image)
    loaded.paste((0, 0, 0), (0, 0, 50, 50))
    np.testing.assert_array_equal(np.asarray(image), before)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_picture_bomb_is_refused_from_its_header(monkeypatch):
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda self: pytest.fail("decoded"))
    ihdr = b"IHDR" + (20_000).to_bytes(4, "big") + (6_000).to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    data = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + ihdr + zlib.crc32(ihdr).to_bytes(4, "big")
    data += (0).to_bytes(4, "big") + b"IDAT" + zlib.crc32(b"IDAT").to_bytes(4, "big")
    with pytest.raises(ImageInputError, match=r"20000×6000.*64 million"):
        load_image(data)


def test_errors_name_the_input_and_what_would_be_right(tmp_path):
    torch = pytest.importorskip("torch")
    empty = tmp_path / "empty.png"
    empty.touch()
    text = tmp_path / "notes.txt"
    text.write_text("not a picture")
    truncated = tmp_path / "cut.jpg"
    truncated.write_bytes(PORTRAIT.read_bytes()[:9000])
    exhausted = io.BytesIO(b"x")
    exhausted.read()
    nan = np.full((2, 2), np.nan)
    for source, words in (
        (tmp_path / "missing.jpg", "missing.jpg.*does not exist"),
        (tmp_path, "path of a readable image file"),
        (empty, "empty.png.*is empty or not a picture"),
        (text, "notes.txt.*not a picture"),
        (truncated, "cut.jpg.*truncated"),
        ("", "path"),
        ("a\0b", "path"),
        ("x" * 5000, "path"),
        (b"", "bytes of length 0.*empty"),
        (exhausted, "seek"),
        (io.StringIO("text"), '"rb"'),
        ("data:image/png;base64", "comma"),
        ("data:image/png;base64,§§", "base64"),
        (np.zeros((0, 4, 3), np.uint8), r"\(0, 4, 3\).*no pixels"),
        (Image.new("RGB", (0, 3)), "no pixels"),
        (nan, "NaN"),
        (np.full((2, 2, 3), 7.0), "divide"),
        (np.full((2, 2, 3), -1.0), r"\(x \+ 1\) / 2"),
        (np.zeros((3, 8, 9), np.uint8), "channels last"),
        (np.zeros((2, 8, 9, 3), np.uint8), "not one picture"),
        (np.zeros((8, 9, 3), np.int64), "uint8"),
        (np.zeros((8, 9, 3), object), "uint8"),
        (torch.zeros(2, 3, 4, 4), "not one picture"),
        (torch.zeros(5, 4, 3), "channels, H, W"),
        (torch.full((3, 4, 4), float("inf")), "infinite"),
        (None, "NoneType.*pass a PIL image"),
        (["a.png"], "list"),
    ):
        with pytest.raises(ImageInputError, match=words) as caught:
            load_image(source, name="image 3")
        assert str(caught.value).startswith("image 3 (")
        assert len(str(caught.value)) < 600


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@given(st.binary(max_size=200))
@settings(max_examples=60, deadline=None)
def test_random_bytes_only_ever_raise_the_documented_error(data):
    for prefix in (
        b"",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"\xff\xd8\xff\xe0",
        b"RIFF\x20\0\0\0WEBPVP8 ",
        b"II*\0\x08\0\0\0",
    ):
        with pytest.raises(ImageInputError):
            load_image(prefix + data)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@given(st.data())
@settings(max_examples=40, deadline=None)
def test_damaged_files_load_or_raise_the_documented_error(data):
    for format in ("PNG", "GIF", "JPEG", "TIFF", "WEBP"):
        content = bytearray(encode(Image.fromarray(gradient()), format))
        position = data.draw(st.integers(0, len(content) - 1))
        content[position] ^= data.draw(st.integers(1, 255))
        with contextlib.suppress(ImageInputError):
            assert load_image(bytes(content)).mode in ("RGB", "RGBA")


@given(st.integers(1, 12), st.integers(1, 12), st.sampled_from([3, 4]), st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_arrays_of_any_size_come_back_exactly(height, width, channels, random):
    array = np.frombuffer(random.randbytes(height * width * channels), np.uint8).reshape(height, width, channels)
    np.testing.assert_array_equal(np.asarray(load_image(array)), array)
    np.testing.assert_array_equal(np.asarray(load_image(array / 255.0)), array)


@pytest.fixture
def server():
    """A web server on this machine with one picture, one endless answer and one that never comes."""
    picture = encode(Image.fromarray(gradient()))
    release = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path.startswith("/picture"):
                self.send_response(200)
                self.send_header("Content-Length", str(len(picture)))
                self.end_headers()
                self.wfile.write(picture)
            elif self.path == "/endless":
                self.send_response(200)
                self.end_headers()
                try:
                    while not release.is_set():
                        self.wfile.write(bytes(1 << 16))
                except OSError:
                    pass
            elif self.path == "/silent":
                release.wait(5)
            elif self.path == "/drip":
                self.send_response(200)
                self.end_headers()
                try:
                    while not release.wait(0.02):
                        self.wfile.write(b"x")
                        self.wfile.flush()
                except OSError:
                    pass
            else:
                self.send_error(404)

        def log_message(self, *args):
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    release.set()
    httpd.shutdown()
    httpd.server_close()


def test_urls_are_fetched_within_bounds(server, monkeypatch):
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    np.testing.assert_array_equal(np.asarray(load_image(f"{server}/picture.png?x=1")), gradient())
    with pytest.raises(ImageInputError, match="HTTP 404") as caught:
        load_image(f"{server}/nothing.png?token=secret")
    assert "secret" not in str(caught.value)
    monkeypatch.setattr(image_loading, "MAX_ENCODED_BYTES", 1 << 18)
    with pytest.raises(ImageInputError, match="more than 262144 bytes"):
        load_image(f"{server}/endless")
    monkeypatch.setattr(image_loading, "URL_TIMEOUT_SECONDS", 0.3)
    for path in ("silent", "drip"):
        start = time.monotonic()
        with pytest.raises(ImageInputError, match="cannot be fetched"):
            load_image(f"{server}/{path}")
        assert time.monotonic() - start < 3


def test_an_endless_stream_is_cut_off(monkeypatch):
    class Endless(io.RawIOBase):
        def read(self, size=-1):
            assert size >= 0, "reads without a bound"
            return bytes(size)

    monkeypatch.setattr(image_loading, "MAX_ENCODED_BYTES", 1 << 16)
    with pytest.raises(ImageInputError, match="more than 65536 bytes"):
        load_image(Endless())
