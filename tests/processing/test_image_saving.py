"""An edited photo keeps what its file said of it, and of its pixels what the format can keep."""

import io

import numpy as np
import pytest
from PIL import ExifTags, Image

from gptface import save_picture
from gptface.processing.image_loading import load_image

REPORT = "EXIF is dropped; pixels far from an edit change in a JPEG; transparency turns black"
CAMERA, DAY, OWNER = "Camera 3", "2019:06:01 12:30:00", "(c) Ada"


def picture(width=64, height=48):
    """Smooth colours with a fine coloured pattern."""
    y, x = np.mgrid[:height, :width]
    pattern = 40 * ((x // 2 + y // 2) % 2)
    return Image.fromarray(np.stack([x * 2 + pattern, y * 3, 180 - x + pattern], axis=2).astype(np.uint8))


def photo_file(image=None, **options):
    """A JPEG as a phone writes it: lying, with date, owner, place and a thumbnail."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.Model], exif[ExifTags.Base.Copyright] = 6, CAMERA, OWNER
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = DAY
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.MakerNote] = b"thumbnail" * 20
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    stream = io.BytesIO()
    (image or picture()).save(stream, "JPEG", exif=exif, dpi=(300, 300), **options)
    return stream.getvalue()


@pytest.mark.report(REPORT)
@pytest.mark.parametrize("name", ["edit.jpg", "edit.png", "edit.webp", "edit.tif"])
@pytest.mark.parametrize("keep_location", [False, True])
def test_date_owner_and_resolution_go_along_and_the_place_only_if_wanted(tmp_path, name, keep_location):
    """
    Date, author, camera and dpi are kept, orientation and thumbnail are not, the place only with keep_location=True.
    """
    edited = load_image(photo_file())
    save_picture(edited.copy(), tmp_path / name, keep_location=keep_location)
    saved = Image.open(tmp_path / name)
    exif = saved.getexif()
    assert exif[ExifTags.Base.Model] == CAMERA
    assert exif[ExifTags.Base.Copyright] == OWNER
    details = exif.get_ifd(ExifTags.IFD.Exif)
    assert details[ExifTags.Base.DateTimeOriginal] == DAY and ExifTags.Base.MakerNote not in details
    assert exif.get(ExifTags.Base.Orientation, 1) == 1 and saved.size == (48, 64)
    assert bool(exif.get_ifd(ExifTags.IFD.GPSInfo)) == keep_location
    if not name.endswith("webp"):  # has no place for it
        assert [round(float(each)) for each in saved.info["dpi"]] == [300, 300]


def test_a_picture_saved_by_pillow_itself_does_not_tell_the_place(tmp_path):
    for name in ("plain.jpg", "plain.png", "plain.webp"):
        load_image(photo_file()).save(tmp_path / name)
        assert not Image.open(tmp_path / name).getexif().get_ifd(ExifTags.IFD.GPSInfo)


@pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b""])
def test_damaged_metadata_do_no_harm(tmp_path, exif):
    image = picture()
    image.info["exif"] = exif
    save_picture(load_image(image), tmp_path / "edit.jpg")
    assert Image.open(tmp_path / "edit.jpg").size == image.size


@pytest.mark.report(REPORT)
@pytest.mark.parametrize("quality", [60, 90])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_a_jpeg_is_saved_as_finely_as_the_photo_was(tmp_path, quality, subsampling):
    """
    A JPEG is 4:4:4 with the photo's own tables: hardly a pixel outside of the edit changes, in a lossless file none.
    """
    photo = load_image(photo_file(quality=quality, subsampling=subsampling))
    edited = photo.copy()
    edited.paste("red", (8, 8, 16, 24))
    for name in ("edit.jpg", "edit.png"):
        save_picture(edited, tmp_path / name)
    saved = Image.open(tmp_path / "edit.jpg")
    assert [layer[1:3] for layer in saved.layer] == [(1, 1)] * 3
    tables = Image.open(io.BytesIO(photo_file(quality=quality))).quantization
    assert saved.quantization == {key: np.reshape(table, (8, 8)).T.ravel().tolist() for key, table in tables.items()}
    outside = np.ones((64, 48), bool)
    outside[8:24, 8:16] = False  # whole blocks of 8×8
    change = np.abs(np.asarray(saved, np.int16) - np.asarray(photo))[outside]
    assert change.mean() < (0.5 if subsampling == 0 else 4), change.mean()
    assert np.array_equal(np.asarray(Image.open(tmp_path / "edit.png"))[outside], np.asarray(photo)[outside])


def test_another_picture_is_saved_as_a_jpeg_of_quality_95(tmp_path):
    save_picture(load_image(picture()), tmp_path / "edit.jpg")
    saved, expected = Image.open(tmp_path / "edit.jpg"), io.BytesIO()
    picture().save(expected, "JPEG", quality=95)
    assert saved.quantization == Image.open(expected).quantization and saved.layer[0][1:3] == (1, 1)


@pytest.mark.report(REPORT)
@pytest.mark.parametrize("name", ["cut.jpg", "cut.bmp", "cut.png", "cut.webp"])
def test_cut_outs_stand_before_white_where_the_format_has_no_transparency(tmp_path, name):
    """They lie over white in JPEG and BMP and stay transparent in PNG and WebP."""
    cut = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    cut.paste((40, 90, 160, 255), (8, 8, 24, 24))
    save_picture(load_image(cut), tmp_path / name)
    saved = Image.open(tmp_path / name)
    if name.endswith(("jpg", "bmp")):
        assert saved.mode == "RGB" and min(saved.getpixel((1, 1))) > 250
    else:
        assert saved.mode == "RGBA" and saved.getpixel((1, 1))[3] == 0
