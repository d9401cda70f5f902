"""How much an edited film flickers."""

import numpy as np

#: Levels of 255 below which the difference of two frames is nobody's flicker but that of rounding.
ROUNDING = 0.5


class Flicker:
    """
    Mean difference of consecutive frames inside of what was edited, as a share of that of the source there: 1 is as
    calm as the source, 2 twice as restless.

    ```python
    flicker = Flicker()
    still = np.zeros((8, 8, 3), np.uint8)
    for level in (0, 40, 0):
        flicker.add(still, np.full_like(still, level), np.ones((8, 8), bool))
    assert flicker.ratio == 81.0
    ```
    """

    def __init__(self) -> None:
        self._before: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
        self._edited = self._source = 0.0
        self._pixels = 0

    def add(self, source: np.ndarray, edited: np.ndarray, area: np.ndarray) -> None:
        """
        Counts the next frame.

        Args:
            source, edited: uint8 [H, W, 3], the frame before and after the edit.
            area: bool [H, W], where it was edited; what counts was edited in the frame before as well.
        """
        frame = np.asarray(source, np.int16), np.asarray(edited, np.int16), np.asarray(area)
        if self._before is not None and self._before[2].shape == frame[2].shape:
            both = self._before[2] & frame[2]
            self._pixels += int(both.sum())
            self._source += float(np.abs(frame[0][both] - self._before[0][both]).sum()) / 3
            self._edited += float(np.abs(frame[1][both] - self._before[1][both]).sum()) / 3
        self._before = frame

    def cut(self) -> None:
        """The next frame is compared with none: another scene begins."""
        self._before = None

    @property
    def ratio(self) -> float | None:
        """The share; None where no two frames that follow each other were edited at one place."""
        floor = ROUNDING * self._pixels
        return (self._edited + floor) / (self._source + floor) if self._pixels else None
