"""Whatever people call a picture goes through the pipelines, or is refused by a message that names it."""

import base64
import io
import zlib

import hostile
import numpy as np
import pytest
import torch
from PIL import Image, ImageCms


def encode(picture, format, **options):
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def png_that_claims(width, height):
    """A PNG of a few bytes whose header announces a picture of this size."""
    header = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    chunks = [header, b"IDAT" + zlib.compress(b"\0"), b"IEND"]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (len(chunk) - 4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big") for chunk in chunks
    )


def png_with_swollen_text():
    """A small PNG with a compressed comment of 64 MiB."""
    plain = encode(Image.new("RGB", (32, 32)), "PNG")
    chunk = b"zTXtComment\0\0" + zlib.compress(bytes(64 * 2**20), 1)
    position = plain.index(b"IDAT") - 4
    swollen = (len(chunk) - 4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    return plain[:position] + swollen + plain[position:]


def rotated(face):
    """A JPEG that is stored lying and turned upright by its EXIF orientation, as phones write it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(face.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif, quality=95)


def animation(face, format):
    return encode(
        face, format, save_all=True, append_images=[Image.new("RGB", face.size, "red")], duration=100, loop=0
    )


FORMS = {
    "grey": lambda face: face.convert("L"),
    "black and white": lambda face: face.convert("1"),
    "palette": lambda face: face.convert("P", palette=Image.Palette.ADAPTIVE),
    "CMYK JPEG": lambda face: encode(face.convert("CMYK"), "JPEG"),
    "16-bit PNG": lambda face: encode(Image.fromarray(np.asarray(face.convert("L"), np.uint16) * 257), "PNG"),
    "16-bit TIFF": lambda face: encode(Image.fromarray(np.asarray(face.convert("L"), np.uint16) * 257), "TIFF"),
    "EXIF-rotated JPEG": rotated,
    "animated GIF": lambda face: animation(face, "GIF"),
    "animated WebP": lambda face: animation(face, "WEBP"),
    "numpy uint8": np.asarray,
    "numpy float": lambda face: np.asarray(face, np.float32) / 255,
    "torch": lambda face: torch.from_numpy(np.array(face)).permute(2, 0, 1),
    "bytes": lambda face: encode(face, "PNG"),
    "file object": lambda face: io.BytesIO(encode(face, "PNG")),
    "data URL": lambda face: "data:image/png;base64," + base64.b64encode(encode(face, "PNG")).decode(),
}


@pytest.mark.report("Grey, palette, CMYK, 16-bit and transparent pictures fail or change colour")
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_edited_at_its_size_and_classified(edit, classify, face, form):
    """Each form is edited at its size and classified; what is not edited keeps its colours.

    A user whose scanner, phone or program writes this form would get an exception, or a turned or red picture.
    """
    result = edit(FORMS[form](face), prompt="smiling", region="mouth")[0]["image"]
    assert result.size == face.size and result.mode == "RGB"
    kept = np.asarray(result, np.int16)[:20]  # the mouth is far below
    expected = face.convert("L") if form in ("grey", "16-bit PNG", "16-bit TIFF") else face
    if form != "black and white":
        assert np.abs(kept - np.asarray(expected.convert("RGB"), np.int16)[:20]).mean() < 12
    assert all(0 <= entry["score"] <= 1 for entry in classify(FORMS[form](face)))


@pytest.mark.report("Grey, palette, CMYK, 16-bit and transparent pictures fail or change colour")
def test_transparency_stays_as_it_was(edit, classify, face):
    """The alpha of the result is that of the picture.

    A cut-out portrait would lose its cut-out.
    """
    alpha = np.tile(np.arange(80, dtype=np.uint8) * 3, (96, 1))
    picture = face.copy()
    picture.putalpha(Image.fromarray(alpha))
    result = edit(picture, prompt="smiling", region="mouth")[0]["image"]
    assert result.mode == "RGBA" and np.array_equal(np.asarray(result)[:, :, 3], alpha)
    assert classify(picture)


@pytest.mark.report("Colours of wide-gamut photos shift")
def test_the_colour_profile_stays(edit, face):
    """The result has the colour profile of the photo.

    Without its profile a wide-gamut photo shows pale colours after the edit.
    """
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    result = edit(encode(face, "PNG", icc_profile=profile), prompt="smiling", region="mouth")[0]["image"]
    assert result.info["icc_profile"] == profile


def test_heic_from_a_phone(edit, face):
    """iPhones write HEIC; who has a reader installed and registered can edit it."""
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    result = edit(encode(face, "HEIF"), prompt="smiling", region="mouth")[0]["image"]
    assert result.size == face.size


DAMAGED = {
    "truncated.jpg": (lambda face: encode(face, "JPEG", quality=95)[:1500], "truncated or damaged"),
    "empty.png": (lambda face: b"", "empty or not a picture"),
    "notes.jpg": (lambda face: b"this is a text file", "not a picture"),
    "dot.png": (lambda face: encode(Image.new("RGB", (1, 1)), "PNG"), "1×1 pixels: a face needs at least"),
    "huge.png": (lambda face: png_that_claims(20_000, 20_000), "too large"),
    "large.png": (lambda face: png_that_claims(8_500, 8_500), "more than 64 million"),
    "scans.jpg": (lambda face: hostile.jpeg_of_many_scans(300), "more than 32 scans"),
    "page.eps": (lambda face: encode(face, "EPS"), "not a picture that can be read"),
    "bomb.png": (lambda face: png_with_swollen_text(), "pass a complete"),
}


@pytest.fixture(scope="module")
def folder_of_damaged(tmp_path_factory, face_picture):
    folder = tmp_path_factory.mktemp("damaged")
    for name, (make, _) in DAMAGED.items():
        (folder / name).write_bytes(make(face_picture))
    return folder


@pytest.mark.report("Truncated, empty and huge files crash, or give a half picture")
@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_refused_by_name(edit, classify, folder_of_damaged, name):
    """They are refused by name in one line.

    Among a thousand photos the user must see which one is broken, and no plausible picture may come of it.
    """
    path = folder_of_damaged / name
    for call in (lambda: edit(path, prompt="smiling"), lambda: classify(str(path))):
        with pytest.raises(ValueError, match=f"{name}.*{DAMAGED[name][1]}") as caught:
            call()
        assert len(str(caught.value)) < 500


@pytest.mark.report("One bad picture stops the whole batch")
def test_the_rest_of_a_batch_goes_on(edit, classify, face, folder_of_damaged):
    """With on_error="return" it has its error, and the others their results.

    One broken file in a folder would cost the work on all others.
    """
    paths = [folder_of_damaged / name for name in DAMAGED]
    pictures = [face, *paths, face]
    edited = edit(pictures, prompt="smiling", region="mouth", on_error="return")
    scores = classify(pictures, on_error="return")
    for results in (edited, scores):
        assert len(results) == len(pictures)
        for index, (path, result) in enumerate(zip(paths, results[1:-1], strict=True), start=1):
            assert result["error"].startswith(f"image {index} (") and path.name in result["error"]
    assert np.array_equal(np.asarray(edited[0][0]["image"]), np.asarray(edited[-1][0]["image"]))
    assert scores[0] == scores[-1]
    with pytest.raises(ValueError, match=r"image 1 .*truncated\.jpg"):
        edit(pictures, prompt="smiling")


@pytest.mark.parametrize(
    "source", [None, 7, {"image": 1}, np.zeros((0, 5, 3)), np.full((32, 32, 3), np.nan), torch.zeros(2, 3, 32, 32)]
)
def test_what_is_no_picture_is_refused_as_such(edit, classify, source):
    """A variable that was mixed up must not end in an error from the depths of a tensor library."""
    for call in (lambda: edit([source], prompt="smiling"), lambda: classify([source])):
        with pytest.raises(ValueError, match="image 0"):
            call()


def phone_picture(face):
    """
    A progressive JPEG whose thumbnail is another JPEG, with a video behind it in which the bytes of a scan's marker
    stand.
    """
    thumbnail = encode(face.resize((16, 16)), "JPEG", progressive=True)
    exif = b"Exif\0\0" + thumbnail * 5
    return encode(face, "JPEG", progressive=True, exif=exif) + b"\xff\xda\0\x08" * 100


@pytest.mark.parametrize("open_first", [False, True])
def test_scans_are_counted_of_the_picture_alone(classify, face, open_first):
    """Phones put thumbnails into their pictures and films behind them: these are no bombs."""
    data = phone_picture(face)
    assert data.count(b"\xff\xda") > 100
    assert classify(Image.open(io.BytesIO(data)) if open_first else data)


def test_a_picture_that_is_open_already_is_no_way_round(classify):
    """Web servers open uploads before they hand them on."""
    with pytest.raises(ValueError, match="more than 32 scans"):
        classify(Image.open(io.BytesIO(hostile.jpeg_of_many_scans(300))))
