"""Vibration: one figure from three axes."""

import numpy as np

from iiot_platform.analytics.rows import Floats


def total(x: Floats, y: Floats, z: Floats) -> Floats:
    """Root of the sum of squares of the RMS accelerations of three axes, in their unit.

    NaN or infinity in any axis makes the total NaN or infinite: the row is of bad quality.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        result: Floats = np.sqrt(x * x + y * y + z * z)
    return result
