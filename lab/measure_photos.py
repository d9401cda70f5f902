"""
How the pipelines take photos as they come: turned, in crowds, black-and-white, as JPEG.

    python lab/measure_photos.py FOLDER [--photos 24] [--edits 4]

FOLDER holds portraits, one face each. Prints one line a measurement.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from transformers import pipeline

import gptface
from gptface.processing.alignment import crop_matrix
from gptface.processing.detection import default_detector
from gptface.processing.image_loading import load_image

TURNS = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}
#: Width, height, widths of the narrowest and the widest portrait, width of one large portrait beside them or 0.
CROWDS = [
    (2000, 1500, 64, 300, 0),
    (3000, 2250, 64, 500, 0),
    (4000, 3000, 64, 600, 0),
    (4000, 3000, 64, 300, 1800),
    (6000, 4000, 64, 1000, 0),
    (20_000, 300, 64, 240, 0),
    (300, 20_000, 64, 240, 0),
    (9000, 600, 80, 480, 0),
]


def crowd(
    photos: Sequence[Image.Image], size: tuple[int, int], widths: Sequence[int]
) -> tuple[Image.Image, np.ndarray]:
    """The photos in these widths at random places that do not overlap, and their boxes [N, 4]."""
    generator = np.random.default_rng(0)
    canvas, boxes = Image.new("RGB", size, (120, 130, 140)), np.zeros((0, 4))
    for photo, width in sorted(zip(photos, widths, strict=True), key=lambda pair: -pair[1]):
        height = round(width * photo.height / photo.width)
        while True:
            x, y = generator.integers(0, (size[0] - width + 1, size[1] - height + 1))
            apart = (boxes[:, 2:] <= (x, y)).any(axis=1) | (boxes[:, :2] >= (x + width, y + height)).any(axis=1)
            if apart.all():
                break
        canvas.paste(photo.resize((width, height), Image.Resampling.LANCZOS), (int(x), int(y)))
        boxes = np.vstack([boxes, (x, y, x + width, y + height)])
    return canvas, boxes


def measure_turns(photos: Sequence[Image.Image]) -> None:
    expression = pipeline("facial-expression", model=gptface.DEFAULT_CHECKPOINT)
    labels = [expression(photo, top_k=1)[0]["label"] for photo in photos]
    for angle, turn in TURNS.items():
        turned = [photo.transpose(turn) for photo in photos]
        found = [default_detector().detect(photo) for photo in turned]
        standing = 0
        for faces in found:
            if len(faces) == 1:
                row = crop_matrix(faces[0].landmarks)[0]
                standing += abs((np.degrees(np.arctan2(-row[1], row[0])) - angle + 180) % 360 - 180) < 30
        same = sum(
            expression(photo, top_k=1)[0]["label"] == label for photo, label in zip(turned, labels, strict=True)
        )
        print(f"turned by {angle}°: {standing} of {len(photos)} found as they stand, same expression in {same}")


def measure_crowds(photos: Sequence[Image.Image]) -> None:
    for width, height, low, high, large in CROWDS:
        widths = np.exp(np.random.default_rng(0).uniform(np.log(low), np.log(high), len(photos))).astype(int).tolist()
        people = [*photos, photos[0]] if large else photos
        picture, boxes = crowd(people, (width, height), [*widths, large] if large else widths)
        wall, cpu = time.perf_counter(), time.process_time()
        faces = default_detector().detect(picture, thorough=True)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        centres = np.array([face.landmarks.mean(axis=0) for face in faces]).reshape(-1, 1, 2)
        inside = ((centres > boxes[:, :2]) & (centres < boxes[:, 2:])).all(axis=2)
        print(
            f"{width}×{height}, portraits {low}…{max(high, large)} wide: "
            f"{inside.any(axis=0).sum()} of {len(boxes)} found, {len(faces) - inside.any(axis=0).sum()} more, "
            f"{cpu:.2f} s of CPU, {wall:.2f} s"
        )


def measure_speed(photos: Sequence[Image.Image]) -> None:
    rounds = []
    for _ in range(3):
        start = time.process_time()
        for photo in photos:
            default_detector().detect(photo)
        rounds.append((time.process_time() - start) / len(photos) * 1000)
    print(f"largest face of an upright portrait: {min(rounds):.1f} ms of CPU")


def measure_jpegs(folder: Path) -> None:
    """Pixels that change by saving alone."""
    changed = []
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "saved.jpg"
        for path in sorted(folder.glob("*.jpg")):
            photo = load_image(path)
            gptface.save_picture(photo, target)
            difference = np.abs(np.asarray(Image.open(target), np.int16) - np.asarray(photo)).max(axis=2)
            changed.append([(difference > limit).mean() for limit in (0, 2)])
    by_any, by_more = np.mean(changed, axis=0)
    print(f"saved as JPEG as it is: {by_any:.1%} of the pixels change, {by_more:.1%} by more than 2 of 255")


def measure_edits(photos: Sequence[Image.Image]) -> None:
    """Colours in edits of black-and-white photos."""
    edit = pipeline("guided-face-editing", model=gptface.DEFAULT_CHECKPOINT, force=True)
    for prompt in ("lipstick", "blond hair"):
        results = [edit(photo.convert("L"), prompt=prompt, seed=0)[0]["image"] for photo in photos]
        most = max(int(np.ptp(np.asarray(image, np.int16), axis=2).max()) for image in results)
        print(f"{prompt} in {len(photos)} black-and-white photos: channels differ by {most} at most")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=24)
    parser.add_argument("--edits", type=int, default=4, help="photos that are edited, which takes seconds each")
    options = parser.parse_args()
    photos = [load_image(path).convert("RGB") for path in sorted(options.folder.glob("*.jpg"))[: options.photos]]
    measure_speed(photos)
    measure_turns(photos)
    measure_crowds(photos)
    measure_jpegs(options.folder)
    measure_edits(photos[: options.edits])


if __name__ == "__main__":
    main()
