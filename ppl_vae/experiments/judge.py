"""A judge of images that knows the classes: a small convolutional classifier."""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..choices import SplitName
from ..data.dataset import DataSet
from ..errors import InputError
from ..plots.figures import is_image
from ..runtime import derived_seed, isolated

BATCH, RATE = 128, 2e-3
FEATURES, BLOCKS = 64, 10
SMALLEST = 8  # pixels


@dataclass(frozen=True)
class Judge:
    """A classifier, and what it makes of images.

    Attributes:
        network: From images (N, channels, height, width) to features (N, F).
        head: From features to the logits of the classes.
        accuracy: On the test data.
    """

    network: nn.Module
    head: nn.Module
    accuracy: float

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """The last hidden layer, of shape (N, F)."""
        return torch.cat([self.network(part) for part in images.split(1000)])

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """Of each class, of shape (N, classes)."""
        return self.head(self.features(images)).softmax(-1)

    def confidence(self, images: Tensor) -> Tensor:
        """The probability of the likeliest class of each image, of shape (N,)."""
        return self.probabilities(images).max(-1).values


def frechet(features: Tensor, reference: Tensor) -> tuple[float, float]:
    r"""Distance of two sets of features: of the normal distributions of their moments.

    .. math:: |m - m'|^2 + \operatorname{tr}(C + C' - 2 (C C')^{1/2})

    (Heusel et al. 2017, eq. 6). It sees both what is unlike the reference and what is missing.

    Arguments:
        features: Of shape (N, F).
        reference: Of shape (M, F).

    Returns:
        The distance, and its standard error by the jackknife over blocks of ``features``.

    Example:
        >>> same = torch.randn(500, 3, dtype=torch.float64)
        >>> frechet(same, same)[0] < 1e-6
        True
    """
    parts = features.chunk(BLOCKS)
    without = [
        _frechet(torch.cat([*parts[:i], *parts[i + 1 :]]), reference) for i in range(len(parts))
    ]
    return _frechet(features, reference), jackknife_error(without)


def jackknife_error(without: list[float]) -> float:
    """The standard error of a statistic, from its values without each block (Tukey 1958)."""
    values = torch.tensor(without, dtype=torch.float64)
    spread = (values - values.mean()).square().sum() * (len(values) - 1) / len(values)
    return spread.sqrt().item()


def _frechet(features: Tensor, reference: Tensor) -> float:
    (mean, covariance), (other, others) = (
        (t.double().mean(0), t.double().T.cov()) for t in (features, reference)
    )
    # The product of two covariances has the eigenvalues of a covariance.
    values, vectors = torch.linalg.eigh(covariance)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ others @ root).clamp(min=0).sqrt().sum()
    apart = (mean - other).square().sum()
    return (apart + covariance.trace() + others.trace() - 2 * cross).item()


def train_judge(data: DataSet, epochs: int, seed: int) -> Judge:
    """Train a classifier on the grey values of the training data.

    Arguments:
        data: Images with labels.
        epochs: Passes over them.
        seed: Seed of weights and order.

    Raises:
        InputError: If the data are not images, or have no labels.
    """
    if not is_image(data.shape):
        raise InputError(data.source, f"has data points of shape {data.shape}, not images")
    if min(data.shape[1:]) < SMALLEST:
        raise InputError(
            data.source,
            f"has images of {data.shape[1]} x {data.shape[2]} pixels, and this experiment needs at "
            f"least {SMALLEST} x {SMALLEST}",
        )
    x, labels = grey(data, "train"), require_labels(data, "train")
    if min(len(labels.unique()), len(require_labels(data, "test").unique())) < 2:
        raise InputError(data.source, "has a single class, and this experiment needs two")
    generator = torch.Generator().manual_seed(derived_seed(seed, "judge"))
    with isolated(derived_seed(seed, "judge's weights")):
        network, head = _build(data.shape, len(data.label_names))
        optimizer = torch.optim.Adam([*network.parameters(), *head.parameters()], RATE)
        for _ in range(epochs):
            for rows in torch.randperm(len(x), generator=generator).split(BATCH):
                optimizer.zero_grad()
                F.cross_entropy(head(network(x[rows])), labels[rows]).backward()
                optimizer.step()
    judge = Judge(network, head, 0.0)
    found = judge.probabilities(grey(data, "test")).argmax(-1)
    right = torch.eq(found, require_labels(data, "test"))
    return replace(judge, accuracy=right.double().mean().item())


def require_labels(data: DataSet, split: SplitName) -> Tensor:
    """The classes of a split, of shape (N,).

    Raises:
        InputError: If there are none.
    """
    labels: Tensor | None = getattr(data, split).labels
    if labels is None:
        raise InputError(data.source, f"has no labels in {split}, which a classifier needs")
    return labels


def grey(data: DataSet, split: SplitName) -> Tensor:
    """The grey values of a split, from which binary data are drawn, of shape (N, *data_shape)."""
    stored = getattr(data, split).x
    return stored.float() / (data.levels or 1)


def _build(shape: tuple[int, ...], classes: int) -> tuple[nn.Module, nn.Module]:
    channels, height, width = shape
    size = -(-height // 4) * -(-width // 4)  # after two strides of 2
    network = nn.Sequential(
        nn.Conv2d(channels, 16, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * size, FEATURES),
        nn.ReLU(),
    )
    return network, nn.Linear(FEATURES, classes)
