"""
Expressions and shapes of brows and lips that move what a photo shows. Which way points move was measured on faces with
and without a label (`lab/measure_shapes.py`); how far, was set by eye, since a mean over weak labels shows little.
"""

from .warping import Warp

_Move = tuple[float, float]

#: What is seen of the upper teeth where a mouth opens without a smile: lips hide the rest.
UPPER_EDGE = 0.055


def _brows(inner: _Move, middle: _Move, outer: _Move) -> dict[str, _Move]:
    return {
        "brow_inner": inner,
        "brow_middle": middle,
        "brow_upper": middle,
        "brow_lower": middle,
        "brow_outer": outer,
    }


# In the mean corners of smiles are 0.07 farther outwards and 0.08 higher, lids 0.01; less than here is no smile to
# a judge of photos.
SMILING = Warp(
    {"cheek": (0.045, -0.145), "lid_lower": (0.0, -0.045), "nose_side": (0.03, -0.01)},
    smile=(0.51, 0.12),
    apart=0.14,
    thin=0.3,
    teeth=0.14,
    fold=1.5,
)
NEUTRAL = Warp({"cheek": (-0.01, 0.03)}, corners=(0.41, 0.0), close=1.0, smooth=1.0)
# Lower corners than those of a face at rest: else half of the faces still smile to a judge of photos.
SERIOUS = Warp({"cheek": (-0.01, 0.07), "nose_side": (-0.02, 0.01)}, corners=(0.40, 0.03), close=1.0, smooth=1.0)
SAD = Warp(
    _brows((-0.03, -0.11), (0.0, -0.02), (0.0, 0.05)) | {"lid_upper": (0.0, 0.03), "lip_lower": (0.0, -0.02)},
    corners=(0.42, 0.07),
    close=1.0,
    smooth=0.6,
)
ANGRY = Warp(
    _brows((-0.05, 0.11), (-0.02, 0.05), (0.0, -0.02))
    | {"lid_upper": (0.0, 0.02), "lid_lower": (0.0, -0.02)}
    | {"lip_upper": (0.0, 0.02), "lip_side_upper": (0.0, 0.02)}
    | {"lip_lower": (0.0, -0.02), "lip_side_lower": (0.0, -0.02)},
    corners=(0.43, 0.03),
    close=1.0,
    smooth=0.6,
)
SURPRISED = Warp(
    _brows((0.0, -0.09), (0.0, -0.11), (0.0, -0.08)) | {"lid_upper": (0.0, -0.015), "lid_lower": (0.0, 0.005)},
    corners=(0.41, 0.0),
    part=0.18,
    teeth=UPPER_EDGE,
)
AFRAID = Warp(
    _brows((-0.04, -0.11), (-0.01, -0.06), (0.0, -0.01)) | {"lid_upper": (0.0, -0.015), "lid_lower": (0.0, 0.005)},
    corners=(0.46, 0.05),
    part=0.08,
    teeth=UPPER_EDGE,
)
DISGUSTED = Warp(
    _brows((-0.02, 0.06), (0.0, 0.05), (0.0, 0.03))
    | {"lid_upper": (0.0, 0.01), "lid_lower": (0.0, -0.03)}
    | {"nose_side": (0.01, -0.04), "nose_base": (0.0, -0.02)}
    | {"lip_upper": (0.0, -0.05), "lip_side_upper": (0.0, -0.04)},
    corners=(0.44, 0.05),
    close=1.0,
)
MOUTH_OPEN = Warp({}, part=0.1, teeth=UPPER_EDGE)
MOUTH_CLOSED = Warp({}, close=1.0)
ARCHED_BROWS = Warp(_brows((0.0, 0.015), (0.0, -0.075), (0.0, -0.005)))
BUSHY_BROWS = Warp(
    {
        "brow_upper": (0.0, -0.05),
        "brow_lower": (0.0, 0.03),
        "brow_middle": (0.0, -0.01),
        "brow_outer": (0.03, 0.0),
    }
)
