"""What age does to a face: `python lab/measure_age.py DATA_DIR LANDMARKS_DIR OUTPUT.npz`.

Young and old faces of UTKFace, aligned: by how much the lightness and the colour of each place of the face differ from
the mean of its skin, and how much of them there is in each band of frequencies. Of every sex and origin there are as
many young faces as old ones, and all count the same, so that the difference is that of age. LANDMARKS_DIR is that of
`lab/pack_faces.py`. Printed are the bells of `AGED_SKIN` in `processing/ageing.py`, fitted to the difference of
lightness.
"""

import argparse
import itertools
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from scipy.ndimage import gaussian_filter
from scipy.optimize import least_squares
from transformers import pipeline

import gptface
from gptface.processing.alignment import align, crop_matrix
from gptface.processing.image_loading import load_image
from gptface.processing.part_colour import to_oklab

SETS = ("utkface128", "utkface128_more")
AGES = {"young": (20, 29), "old": (62, 85)}
ORIGINS = ("White", "Black", "Asian", "Indian")
SIZE = 128
#: Standard deviations, in pixels of the crop, between which a band lies.
SCALES = (0.0, 1.0, 2.0, 4.0, 8.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("landmarks", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--faces", type=int, default=60, help="of each sex, origin and age, at most")
    options = parser.parse_args()
    parse = pipeline("face-parsing", model=gptface.DEFAULT_CHECKPOINT)
    rows: dict[tuple[str, str, str], list[tuple[bytes, np.ndarray]]] = {}
    for name in SETS:
        table = pq.read_table(options.data / "train" / f"{name}.parquet")
        points = np.load(options.landmarks / f"{name}.npy")
        columns = [table[column].to_pylist() for column in ("image", "age", "gender", "race")]
        for image, age, gender, race, landmarks in zip(*columns, points, strict=True):
            for stage, (low, high) in AGES.items():
                if low <= age <= high and race in ORIGINS and np.isfinite(landmarks).all():
                    rows.setdefault((stage, gender, race), []).append((image["bytes"], landmarks))
    found: dict[str, list[dict[str, np.ndarray]]] = {stage: [] for stage in AGES}
    for gender in ("female", "male"):
        for race in ORIGINS:
            count = min(options.faces, *(len(rows[stage, gender, race]) for stage in AGES))
            for stage in AGES:
                faces = rows[stage, gender, race]
                chosen = np.linspace(0, len(faces) - 1, count).astype(int)
                group = [measure(parse, *faces[index]) for index in chosen]
                known = [each for each in group if each is not None]
                found[stage].append({key: np.nanmean([each[key] for each in known], 0) for key in known[0]})
                told = {key: found[stage][-1][key].round(4).tolist() for key in ("skin", "hair", "lips")}
                print(stage, gender, race, len(known), told, flush=True)
    means = {
        f"{stage}_{key}": np.mean([group[key] for group in groups], 0).astype(np.float32)
        for stage, groups in found.items()
        for key in groups[0]
    }
    np.savez_compressed(options.output, **means)
    share = np.minimum(means["young_share"], means["old_share"])
    print_bells(means["old_relative"][..., 0] - means["young_relative"][..., 0], share)


#: Where the fit starts: (x, y, deviation along and across, angle, height), as `AGED_SKIN`.
STARTS = (
    (47, 82, 3, 8, 0.4, -0.05),
    (42, 62, 8, 3, 0, -0.03),
    (30, 75, 6, 12, 0, 0.03),
    (50, 96, 5, 3, 0, 0.03),
    (48, 106, 4, 4, 0, -0.03),
    (64, 112, 8, 6, 0, 0),
    (60, 60, 4, 8, 0, 0),
    (38, 80, 8, 8, 0, -0.02),
)


def print_bells(difference: np.ndarray, share: np.ndarray) -> None:
    """Fits bells, mirrored, to a difference [S, S] where enough faces show skin, `share` [S, S]."""
    half = np.s_[:, : SIZE // 2]
    y, x = (np.mgrid[0:SIZE, 0:SIZE] + 0.5)[:, :, : SIZE // 2]
    weights = np.where(share > 0.45, share, 0)
    weights[:36], weights[112:] = 0, 0  # beyond many of the pictures
    target = gaussian_filter(difference, 0.7)[half]
    weights = weights[half]
    target = target - (target * weights).sum() / weights.sum()

    def bells(values: np.ndarray) -> np.ndarray:
        total = np.full_like(target, values[-1])
        for middle, row, along, across, angle, height in values[:-1].reshape(-1, 6):
            for places in (x, SIZE - x):
                u = (np.cos(angle) * (places - middle) + np.sin(angle) * (y - row)) / along
                v = (np.cos(angle) * (y - row) - np.sin(angle) * (places - middle)) / across
                total = total + height * np.exp(-(u * u + v * v) / 2)
        return total

    low = [bound for start in STARTS for bound in (start[0] - 9, start[1] - 9, 1.5, 1.5, -3.3, -0.3)]
    high = [bound for start in STARTS for bound in (start[0] + 9, start[1] + 9, 25, 25, 3.3, 0.3)]
    first = np.append(np.array(STARTS, float).ravel(), 0)
    fitted = least_squares(
        lambda values: ((bells(values) - target) * np.sqrt(weights)).ravel(),
        first,
        bounds=([*low, -0.2], [*high, 0.2]),
        max_nfev=400,
    ).x
    left = ((bells(fitted) - target) ** 2 * weights).sum() / (target**2 * weights).sum()
    print(f"explained {1 - left:.3f}, mean {fitted[-1]:.4f}")
    for bell in fitted[:-1].reshape(-1, 6):
        print(tuple(bell.round(3).tolist()))


def measure(parse, picture: bytes, landmarks: np.ndarray) -> dict[str, np.ndarray] | None:
    """Of one face: its colours relative to the mean of its skin, bands of them; None where too little skin is seen."""
    photo = load_image(picture)
    matrix = crop_matrix(landmarks, SIZE)
    lab = to_oklab(np.asarray(align(photo, matrix, SIZE), np.float64) / 255)
    parsing = parse.parse_face(photo, matrix)
    skin = parsing.crop_mask("facial_skin", SIZE)
    if (skin > 0.5).mean() < 0.15:
        return None
    mean = (lab * skin[..., None]).sum((0, 1)) / skin.sum()
    relative = lab - mean
    relative = (relative + relative[:, ::-1]) / 2  # faces are symmetric, and light is from either side
    smooth = [gaussian_filter(lab[..., 0], scale) if scale else lab[..., 0] for scale in SCALES]
    bands = [np.abs(fine - coarse) for fine, coarse in itertools.pairwise(smooth)]
    bands = [(band + band[:, ::-1]) / 2 for band in bands]

    def part(name: str) -> np.ndarray:
        weights = parsing.crop_mask(name, SIZE)
        weights = weights * (weights > 0.5)
        return (lab * weights[..., None]).sum((0, 1)) / weights.sum() if weights.sum() > 30 else np.full(3, np.nan)

    return {
        "relative": relative,
        "bands": np.stack(bands),
        "share": (skin + skin[:, ::-1]) / 2,
        "skin": mean,
        "hair": part("hair"),
        "lips": part("lips") - mean,
        "brows": part("brows") - mean,
    }


if __name__ == "__main__":
    main()
