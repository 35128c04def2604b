"""Do columns vary together in draws as they do in data?"""

from collections.abc import Sequence

import numpy as np
from scipy.stats import norm

from .comparisons import Finding
from .materiality import CAUTION, FAIL

MOST = 500  # columns whose pairs are compared
CLOSEST = 1 - 1e-6  # a correlation, so that Fisher's z is finite
STEPS = 100  # of power iteration


def _standardized(x: np.ndarray) -> np.ndarray:
    spread = x.std(0)
    return np.divide(x - x.mean(0), spread, out=np.zeros_like(x), where=spread > 0)


def fishers_z(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""Fisher's z = artanh r of the correlation of each pair of columns, and its variance.

    The variance is that of the influence :math:`a b - r (a^2 + b^2) / 2` of standardized a and b
    (Devlin et al. 1975), which asks for no normal distribution, and at least 1 / N.

    Arguments:
        x: Of shape (N, columns).

    Returns:
        Two arrays of shape (columns, columns); both are zero and 1 / N of a constant column.

    Example:
        >>> a = np.random.default_rng(0).normal(size=(1000, 1))
        >>> z, variance = fishers_z(np.hstack([a, -a, a**2]))
        >>> bool(abs(z[0, 2]) < 3 * variance[0, 2] ** 0.5), bool(z[0, 1] < -7)
        (True, True)
    """
    size = len(x)
    a = _standardized(x)
    r = (a.T @ a / size).clip(-CLOSEST, CLOSEST)
    squares, cubes = a.T**2 @ a**2 / size, a.T**3 @ a / size
    fourth = (a**4).mean(0)
    variance = squares - r * (cubes + cubes.T)
    variance += r**2 / 4 * (fourth[:, None] + fourth[None] + 2 * squares)
    return np.arctanh(r), np.maximum(variance / (1 - r**2) ** 2, 1.0) / size


def column_name(names: Sequence[str], place: int) -> str:
    """What words call a column: its name in a table, or its place.

    Example:
        >>> column_name(["height"], 0), column_name([], 3)
        ("column 'height'", 'column 3')
    """
    if not names or names[place] == f"column {place}":
        return f"column {place}"
    return f"column {names[place]!r}"


def correlations(
    train: np.ndarray,
    held_out: np.ndarray,
    drawn: np.ndarray,
    generator: np.random.Generator,
    names: Sequence[str] = (),
) -> Finding | None:
    """The difference of correlation between data and draws, of the pair that differs most.

    Training data choose the pair and held-out data measure it, so that the choice biases nothing.
    A quarter of Fisher's z is, of two normals, about the divergence of a mean that is off by a
    quarter of a standard deviation.

    Arguments:
        train, held_out, drawn: Of shapes (N, columns).
        generator: Chooses columns, if there are more than 500.
        names: Of the columns of a table.

    Returns:
        The finding; ``None`` if there is no pair of columns that vary.
    """
    varies = np.flatnonzero((held_out.std(0) > 0) & (drawn.std(0) > 0) & (train.std(0) > 0))
    if len(varies) > MOST:
        varies = np.sort(generator.choice(varies, MOST, replace=False))
    if len(varies) < 2:
        return None
    of_train, of_draws = fishers_z(train[:, varies]), fishers_z(drawn[:, varies])
    score = np.abs(of_train[0] - of_draws[0]) / np.sqrt(of_train[1] + of_draws[1])
    np.fill_diagonal(score, -1)
    pair = varies[list(np.unravel_index(int(score.argmax()), score.shape))]
    (z, variance), (of_draw, draw_variance) = (fishers_z(x[:, pair]) for x in (held_out, drawn))
    apart = abs(float(z[0, 1] - of_draw[0, 1]))
    error = float(variance[0, 1] + draw_variance[0, 1]) ** 0.5
    first, second = (column_name(names, int(place)) for place in pair)
    both = f"{first} and {second.removeprefix('column ')}".replace("column ", "columns ", 1)
    return Finding(
        "correlation",
        f"{both} have a correlation of {np.tanh(z[0, 1]):.2f} in held-out "
        f"data and of {np.tanh(of_draw[0, 1]):.2f} in draws",
        f"difference of Fisher's z, {both}, of held-out data and draws",
        apart,
        error,
        float(2 * norm.sf(apart / error)),
        CAUTION,
        FAIL,
    )


def direction(train: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """The direction in which training data and draws differ most in their second moments.

    Found by power iteration; values beyond four standard deviations of the draws count as four.

    Arguments:
        train, drawn: Columns in standard deviations from the mean of draws, of shape (N, columns).

    Returns:
        A vector of length 1, of shape (columns,).

    Example:
        >>> rng = np.random.default_rng(0)
        >>> found = direction(rng.normal(size=(999, 3)) * [1, 1, 3], rng.normal(size=(999, 3)))
        >>> bool(found[2] > 0.99)
        True
    """
    one, other = train.clip(-4, 4), drawn.clip(-4, 4)
    vector = np.ones(one.shape[1]) / one.shape[1] ** 0.5
    for _ in range(STEPS):
        moved = one.T @ (one @ vector) / len(one) - other.T @ (other @ vector) / len(other)
        length = float(np.linalg.norm(moved))
        if length == 0:
            break
        vector = moved / length
    return vector * np.sign(vector[np.abs(vector).argmax()])
