"""How large a fault must be to matter: one table for all questions, in one unit.

The yardstick is a guide whose mean is off by a quarter (caution) or a half (fail) of a posterior
standard deviation in a unit. For normals that are off by d standard deviations in each of L units,

.. math:: TV = 2 \\Phi(\\sqrt{L} d / 2) - 1, \\quad KL = L d^2 / 2, \\quad J = L d^2

are the total variation, either divergence, and their sum. So one table serves whatever a question
measures: the total variation of ranks or of a classifier (accuracy (1 + TV) / 2), the gap, which is
a KL divergence, or the Jeffreys divergence.

=========  ====  =============  ============  ==============  ===================
grade      d     TV, one unit   TV, ten       KL, each unit   Jeffreys, each unit
=========  ====  =============  ============  ==============  ===================
caution    1/4   0.10           0.31          1/32 nats       1/16 nats
fail       1/2   0.20           0.57          1/8 nats        1/4 nats
=========  ====  =============  ============  ==============  ===================
"""

from statistics import NormalDist

from ..errors import check_int

CAUTION, FAIL = 0.25, 0.5
"""Standard deviations by which the mean of every unit is off, where caution and failure begin."""


def total_variation(units: int = 1) -> tuple[float, float]:
    """The total variation of all units together where caution and failure begin.

    Arguments:
        units: Latent units L that are judged together.

    Raises:
        InputError: If there are none.

    Example:
        >>> [round(bound, 2) for bound in total_variation(10)]
        [0.31, 0.57]
    """
    root = check_int("units", units) ** 0.5
    caution, fail = (2 * NormalDist().cdf(root * off / 2) - 1 for off in (CAUTION, FAIL))
    return caution, fail


def divergence(units: int = 1) -> tuple[float, float]:
    """The KL divergence, in nats per datum, where caution and failure begin.

    The Jeffreys divergence KL(q||p) + KL(p||q) is twice that.

    Arguments:
        units: Latent units L that are judged together.

    Raises:
        InputError: If there are none.

    Example:
        >>> divergence(), divergence(8)
        ((0.03125, 0.125), (0.25, 1.0))
    """
    count = check_int("units", units)
    return count * CAUTION**2 / 2, count * FAIL**2 / 2
