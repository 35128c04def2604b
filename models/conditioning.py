"""What networks read beside x: class labels and real covariates, as one vector of each datum."""

from collections.abc import Sequence

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .networks import ACTIVATIONS, MLP, Encoder


class ConditionalEncoder(nn.Module):
    r"""A network from data, and what is given beside them, to features.

    .. math:: f(x, c) = \mathrm{MLP}(W x + V c)

    Only the first layer reads x, so that it is computed once for all classes that are enumerated.

    Arguments:
        data_shape: Shape of one datum.
        given: Length G of the vector c.
        features: Number of output features F.
        hidden: Widths of the fully connected hidden layers.
        channels: Channels of the convolutions of x in front of them.
        activation: A name from ``ACTIVATIONS``.

    Example:
        >>> encoder = ConditionalEncoder((1, 8, 8), 10, features=4, hidden=(32,))
        >>> encoder(torch.zeros(5, 1, 8, 8), torch.eye(10)[:, None]).shape  # 10 classes of 5 data
        torch.Size([10, 5, 4])
    """

    def __init__(
        self,
        data_shape: Sequence[int],
        given: int,
        features: int,
        hidden: Sequence[int],
        channels: Sequence[int] = (),
        activation: str = "silu",
    ) -> None:
        super().__init__()
        width = hidden[0] if hidden else features
        self.first = Encoder(data_shape, width, (), channels, activation)
        self.given = nn.Linear(given, width, bias=False)
        layers = [ACTIVATIONS[activation](), MLP(width, features, hidden[1:], activation)]
        self.rest = nn.Sequential(*(layers if hidden else ()))

    def forward(self, x: Tensor, given: Tensor | None = None) -> Tensor:
        r"""Features (\*, F) of data (\*, data shape); without ``given``, as where it is zero."""
        first = self.first(x)
        return self.rest(first if given is None else first + self.given(given))


def beside(z: Tensor, given: Tensor) -> Tensor:
    r"""Latents (\*, L), and what is given (\*, G), as one vector (\*, L + G)."""
    shape = torch.broadcast_shapes(z.shape[:-1], given.shape[:-1])
    return torch.cat([z.expand(*shape, -1), given.expand(*shape, -1)], -1)


def one_hot(labels: Tensor, classes: int, like: Tensor) -> Tensor:
    r"""Class indices (\*) as unit vectors (\*, K), of the type of another tensor.

    Raises:
        ValueError: Where Pyro validates, as it does by default, if one is not in 0 ... K-1.

    Example:
        >>> one_hot(torch.tensor([2, 0]), 3, like=torch.zeros(1))
        tensor([[0., 0., 1.],
                [1., 0., 0.]])
    """
    try:
        dist.Categorical(logits=like.new_zeros(classes)).log_prob(labels)
    except ValueError:
        outlier = labels[(labels < 0) | (labels >= classes)].flatten()[0].item()
        raise ValueError(
            f"y holds {outlier}, but must be a class in 0 ... {classes - 1}: leave out data whose "
            "label is missing, or use semi-supervised-vae"
        ) from None
    return F.one_hot(labels, classes).to(like)


def check_classes(classes: object) -> int:
    """Return a number of classes that is an integer of at least 2.

    Raises:
        ValueError: In one line, if it is not.
    """
    if not isinstance(classes, int) or isinstance(classes, bool) or classes < 2:
        raise ValueError(f"classes must be an integer of at least 2, got {classes!r}")
    return classes
