"""Encoders and decoders: multi-layer perceptrons, and convolutions for images."""

import math
from collections.abc import Sequence
from itertools import pairwise
from numbers import Integral

import torch.nn.functional as F
from torch import Tensor, nn

SCALE_FLOOR = 1e-4
MAX_LAYERS = 1000  # of one kind: far more than can be trained, and soon built


def positive(raw: Tensor) -> Tensor:
    r"""Map reals to scales, :math:`\log(1 + e^r) + 10^{-4}`.

    Unlike ``exp`` it neither overflows nor reaches zero, so log densities stay finite.
    """
    return F.softplus(raw) + SCALE_FLOOR


def inverse_positive(scale: Tensor) -> Tensor:
    """The inverse of :func:`positive`, for scales above its floor of 1e-4."""
    shifted = scale - SCALE_FLOOR
    return shifted + (-(-shifted).expm1()).log()


class Tanh(nn.Module):
    r"""The hyperbolic tangent as :math:`2 \sigma(2 x) - 1`, which takes a fifth of the time."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * (2 * x).sigmoid() - 1


ACTIVATIONS: dict[str, type[nn.Module]] = {"silu": nn.SiLU, "tanh": Tanh, "relu": nn.ReLU}


class MLP(nn.Sequential):
    r"""A multi-layer perceptron, :math:`(*, F) \to (*, F')`.

    Arguments:
        in_features: Number of input features :math:`F`.
        out_features: Number of output features :math:`F'`.
        hidden: Widths of the hidden layers; empty for a linear map.
        activation: A name from ``ACTIVATIONS``. For ``"tanh"`` weights are initialized as in
            Glorot & Bengio (2010, eq. 16) and biases to zero; for others as torch does.

    Example:
        >>> import torch
        >>> MLP(64, 10, hidden=(32, 32))(torch.zeros(5, 64)).shape
        torch.Size([5, 10])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        hidden: Sequence[int] = (),
        activation: str = "silu",
    ) -> None:
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise([in_features, *hidden]):
            layers += [nn.Linear(fan_in, fan_out), ACTIVATIONS[activation]()]
        layers.append(nn.Linear([in_features, *hidden][-1], out_features))
        super().__init__(*layers)
        if activation == "tanh":
            for layer in layers:
                if isinstance(layer, nn.Linear):
                    nn.init.xavier_uniform_(layer.weight)
                    nn.init.zeros_(layer.bias)


class Encoder(nn.Module):
    r"""A network from data to features, :math:`(*, \text{data shape}) \to (*, F)`.

    Arguments:
        data_shape: Shape of one datum, such as ``(1, 28, 28)`` or ``(17,)``.
        features: Number of output features :math:`F`.
        hidden: Widths of the fully connected hidden layers.
        channels: Channels of the convolutions in front of them (kernel 3, stride 2: each halves
            the image); empty for none.
        activation: A name from ``ACTIVATIONS``.
    """

    def __init__(
        self,
        data_shape: Sequence[int],
        features: int,
        hidden: Sequence[int],
        channels: Sequence[int] = (),
        activation: str = "silu",
    ) -> None:
        super().__init__()
        self.data_shape = tuple(data_shape)
        stages = _convolution_stages(self.data_shape, channels)
        layers: list[nn.Module] = []
        for (c_in, _, _), (c_out, _, _) in pairwise(stages):
            layers += [nn.Conv2d(c_in, c_out, kernel_size=3, stride=2, padding=1)]
            layers += [ACTIVATIONS[activation]()]
        self.convolutions = nn.Sequential(*layers)
        self.mlp = MLP(math.prod(stages[-1]), features, hidden, activation)

    def forward(self, x: Tensor) -> Tensor:
        batch_shape = x.shape[: x.dim() - len(self.data_shape)]
        if len(self.convolutions):
            x = self.convolutions(x.reshape(-1, *self.data_shape))
        return self.mlp(x.reshape(*batch_shape, -1))


class Decoder(nn.Module):
    r"""A network from latents to the shape of the data, :math:`(*, L) \to (*, \text{data shape})`.

    The mirror image of :class:`Encoder`: the same ``hidden`` and ``channels``, in reverse.

    Arguments:
        latent_dim: Number of latent variables :math:`L`.
        data_shape: Shape of one datum.
        hidden: The encoder's widths.
        channels: The encoder's channels.
        activation: A name from ``ACTIVATIONS``.
    """

    def __init__(
        self,
        latent_dim: int,
        data_shape: Sequence[int],
        hidden: Sequence[int],
        channels: Sequence[int] = (),
        activation: str = "silu",
    ) -> None:
        super().__init__()
        stages = _convolution_stages(tuple(data_shape), channels)[::-1]
        self.smallest, self.data_shape = stages[0], stages[-1]
        self.mlp = MLP(latent_dim, math.prod(self.smallest), hidden[::-1], activation)
        layers: list[nn.Module] = []
        for (c_in, _, _), (c_out, height, width) in pairwise(stages):
            # A stride of 2 maps sizes 2n and 2n - 1 to n: the parity says which one to return to.
            parity = (1 - height % 2, 1 - width % 2)
            layers += [
                ACTIVATIONS[activation](),
                nn.ConvTranspose2d(
                    c_in, c_out, kernel_size=3, stride=2, padding=1, output_padding=parity
                ),
            ]
        self.convolutions = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        output = self.mlp(z)
        if len(self.convolutions):
            output = self.convolutions(output.reshape(-1, *self.smallest))
        return output.reshape(*z.shape[:-1], *self.data_shape)


def check_architecture(
    data_shape: Sequence[int],
    latent_dim: int,
    hidden: Sequence[int],
    channels: Sequence[int],
    activation: str = "silu",
    encoder_hidden: Sequence[int] = (),
    components: int | None = None,
) -> None:
    """Check the arguments of an encoder and a decoder, and of what stands between them.

    Raises:
        ValueError: In one line that begins with the name of the argument.
    """
    for name, sizes in {
        "data_shape": data_shape,
        "latent_dim": (latent_dim,),
        "hidden": hidden,
        "channels": channels,
        "encoder_hidden": encoder_hidden,
        "components": () if components is None else (components,),
    }.items():
        listed = isinstance(sizes, Sequence) and not isinstance(sizes, str)
        if listed and len(sizes) > MAX_LAYERS:
            raise ValueError(f"{name} must hold {MAX_LAYERS} sizes at most, got {len(sizes)}")
        if not listed or any(not _is_integer(size) or size < 1 for size in sizes):
            raise ValueError(f"{name} must hold integers of at least 1, got {sizes!r}")
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise ValueError(f"activation must be one of {known}, got {activation!r}")
    if not len(data_shape):
        raise ValueError("data_shape must have at least one dimension, such as (17,), got ()")
    if channels and len(data_shape) != 3:
        raise ValueError(
            "channels must be left out, since convolutions need images of shape (channels, height, "
            f"width), but a datum has shape {tuple(data_shape)}"
        )


def _is_integer(size: object) -> bool:
    return isinstance(size, Integral) and not isinstance(size, bool)


def _convolution_stages(
    data_shape: tuple[int, ...], channels: Sequence[int]
) -> list[tuple[int, ...]]:
    """Shapes before and after each convolution, the data's own first."""
    stages = [data_shape]
    for channel in channels:
        _, height, width = stages[-1]
        stages.append((channel, (height + 1) // 2, (width + 1) // 2))
    return stages
