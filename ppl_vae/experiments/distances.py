"""Distances between images: from each of some to each of others."""

from collections.abc import Callable

import torch
from torch import Tensor

Distance = Callable[[Tensor, Tensor], Tensor]
"""From images (N, C, H, W) and (M, C, H, W) in [0, 1] to distances (N, M)."""

FLOOR = 0.01  # what a decoder that is certain still leaves to the other value of a pixel
WINDOW, BLUR = 11, 1.5  # of SSIM, in pixels (Wang et al. 2004, section III.B)
STABILITY = (0.01**2, 0.03**2)


def squared(x: Tensor, y: Tensor) -> Tensor:
    """Sum of squares: -log p(x) of a Gaussian around y, but for scale and constant."""
    return torch.cdist(x.flatten(1), y.flatten(1)).square()


def absolute(x: Tensor, y: Tensor) -> Tensor:
    """Sum of absolute differences: -log p(x) of a Laplace distribution around y, as above."""
    return torch.cdist(x.flatten(1), y.flatten(1), p=1)


def bernoulli(x: Tensor, y: Tensor) -> Tensor:
    """-log p(x) of Bernoulli variables with means y, kept off 0 and 1 by a hundredth; in nats."""
    x, mean = x.flatten(1), y.flatten(1).clamp(FLOOR, 1 - FLOOR)
    return -(x @ mean.log().T + (1 - x) @ (1 - mean).log().T)


def structural(x: Tensor, y: Tensor) -> Tensor:
    """1 - SSIM (Wang et al. 2004, eq. 13), averaged over the windows inside the image.

    Means and variances of each image are found once, so that a pair takes one blur, not five:
    that is what makes all pairs of 500 and 10,000 images a matter of a minute. Windows are
    Gaussian, and of 11 pixels, or of as many as the image has, less one if that is even.
    """
    height, width = x.shape[-2:]
    rows, columns = _blur(height).to(x), _blur(width).to(x)

    def blur(images: Tensor) -> Tensor:
        return rows @ images @ columns.T

    mean, other = blur(x), blur(y)
    spread, others = blur(x.square()) - mean.square(), blur(y.square()) - other.square()
    c1, c2 = STABILITY
    found = []
    for image, m, s in zip(x, mean, spread, strict=True):
        both = m * other
        covariance = blur(image * y) - both
        likeness = (2 * both + c1) * (2 * covariance + c2)
        likeness /= (m.square() + other.square() + c1) * (s + others + c2)
        found.append(1 - likeness.flatten(1).mean(1))
    return torch.stack(found)


def _blur(size: int) -> Tensor:
    """Weighted means over each window that fits, as a matrix (windows, size)."""
    window = min(WINDOW, size - 1 + size % 2)
    offsets = torch.arange(window) - (window - 1) / 2
    weights = (-0.5 * (offsets / BLUR).square()).exp()
    blur = torch.zeros(size - window + 1, size)
    for row in range(len(blur)):
        blur[row, row : row + window] = weights / weights.sum()
    return blur
