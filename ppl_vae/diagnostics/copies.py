"""Are draws from the model copies of training data?"""

import numpy as np
import torch
from scipy.stats import hypergeom
from torch import Tensor

from .comparisons import Finding, beyond
from .materiality import total_variation
from .verdicts import share

CLOSE = 0.01  # the share of held-out data that count as close to a training data point
COPYING = ("copies", "near copies")  # the names of the findings
ROWS = 256  # data points compared with all training data at once


def two_nearest(x: Tensor, others: Tensor) -> np.ndarray:
    """The Euclidean distances to the two nearest of others that differ, and to their mean.

    Arguments:
        x: Of shape (N, *data_shape).
        others: Of shape (M, *data_shape); several that are equal count once.

    Returns:
        Of shape (N, 3); the second is infinite where all others are equal.

    Example:
        >>> others = torch.tensor([[3.0, 4.0], [6.0, 8.0], [3.0, 4.0]])
        >>> two_nearest(torch.zeros(1, 2), others).round(1)
        array([[ 5. , 10. ,  6.7]])
    """
    to = others.flatten(1).double()
    to = to - (centre := to.mean(0))  # distances lose their digits far from zero
    rows = np.ascontiguousarray(to.numpy() + 0.0)  # no -0.0, for rows are compared as bytes
    whole = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    to = to[np.unique(whole, return_index=True)[1]]
    found = []
    for part in (x.flatten(1).double() - centre).split(ROWS):
        index = torch.cdist(part, to).topk(min(2, len(to)), largest=False).indices
        # Again, as a difference: a product of matrices does not give zero for a copy.
        near = (part[:, None] - to[index]).square().sum(-1).sqrt().sort(-1).values
        alone = near.new_full((len(part), 2 - near.shape[1]), torch.inf)
        found.append(torch.cat([near, alone, part.norm(dim=1, keepdim=True)], dim=1))
    return torch.cat(found).numpy()


def nearness(distances: np.ndarray) -> np.ndarray:
    """The distance to the nearest training data point over that to the next, or to their mean.

    The lesser of both is the unit. The ratio is near 1 but for copies, in many dimensions; and
    where training data are dense, both distances are short. So a model whose draws are too near
    the mean does not seem to copy.

    Arguments:
        distances: Of :func:`two_nearest`, of shape (N, 3).

    Example:
        >>> nearness(np.array([[0.0, 2.0, 9.0], [1.0, 2.0, 9.0], [3.0, 4.0, 1.0], [0.0, 0.0, 0.0]]))
        array([0. , 0.5, 3. , 0. ])
    """
    return distances[:, 0] / np.maximum(distances[:, 1:].min(1), np.finfo(float).tiny)


def copies(held_out: np.ndarray, drawn: np.ndarray) -> list[Finding]:
    """How many more draws than held-out data are copies, or nearly, of training data.

    A draw is nearer than it should be if it is, by the ratio of its distances, nearer than any
    held-out data point; and close if it is as near as one held-out data point in a hundred. Where
    data repeat, as in a table of few classes, held-out data are copies too, at a rate of their own.

    Arguments:
        held_out, drawn: Distances of :func:`two_nearest`, of shapes (N, 3) and (M, 3).
    """
    of_data, of_draws = nearness(held_out), nearness(drawn)
    exact, natural = (float((d[:, 0] == 0).mean()) for d in (drawn, held_out))
    beside = f"({exact:.1%} of draws are exact copies, and {natural:.1%} of held-out data)"
    statistic = "nearer to a training data point, in units of the distance to the next, than any"
    value, error, p, *thresholds = beyond(-of_draws, -of_data)
    nearest = Finding(
        COPYING[0],
        f"{value:.1%} of draws are {statistic} held-out data point {beside}",
        f"share of draws {statistic} held-out data point",
        value,
        error,
        p,
        *thresholds,
    )
    edge = np.sort(of_data)[int(np.ceil(CLOSE * len(of_data))) - 1]
    (p_draw, draw_error), (p_data, data_error) = share(of_draws <= edge), share(of_data <= edge)
    near_data, near = int((of_data <= edge).sum()), int((of_draws <= edge).sum())
    total = len(of_data) + len(of_draws)
    # Fisher's test of whether a data point that is close is a draw.
    p = float(hypergeom.cdf(near_data, total, len(of_data), near + near_data))
    close = Finding(
        COPYING[1],
        f"{p_draw:.1%} of draws are as near to a training data point as {p_data:.1%} of held-out "
        f"data {beside}",
        "share of draws close to a training data point, less that of held-out data",
        p_draw - p_data,
        float(np.hypot(draw_error, data_error)),
        p,
        *total_variation(),
    )
    return [nearest, close]
