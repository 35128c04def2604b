"""The conditional variational autoencoder of Sohn et al. (2015)."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from .conditioning import ConditionalEncoder, beside, check_classes, one_hot
from .guides import GUIDES
from .likelihoods import Columns, data_distribution, encoder_inputs, make_likelihood
from .networks import Decoder, check_architecture
from .parts import make_part, refuse_components
from .priors import PRIORS
from .registration import register


class ConditionalVAE(nn.Module):
    r"""A variational autoencoder of x given what is known of it (Sohn et al. 2015, section 4).

    .. math::
        z &\sim p(z) \\
        x \mid z, c &\sim p(x \mid \mathrm{decoder}(z, c)) \\
        q(z \mid x, c) &= q(z \mid \mathrm{encoder}(x, c))

    where c holds the class y, one-hot, and real covariates, standardized; p(z) does not depend on
    it. Everything that is scored is a density of x given c.

    Arguments:
        data_shape: Shape of one datum, such as ``(1, 28, 28)``.
        classes: Number of classes K of ``y``; ``None`` where there is no ``y``.
        covariates: Mean and standard deviation of each real covariate, by its name; lists of them
            for a covariate of several columns.
        latent_dim: Number of latent variables L.
        hidden: Widths of the encoder's hidden layers; the decoder has them in reverse.
        channels: Channels of the convolutions in front of them, for images; empty for none.
        activation: ``"silu"``, ``"tanh"`` or ``"relu"``, between layers.
        likelihood: A name from ``LIKELIHOODS``, or a module; as of :class:`ppl_vae.models.VAE`.
        likelihood_scale: Scale of a Gaussian likelihood, or one like it; ``None`` learns it.
        guide: The family of q(z|x, c): a name from ``GUIDES``, or a module like those there.
        prior: A name from ``PRIORS``, or a module like those there.
        encoder_hidden: Widths of the encoder's hidden layers, where not those of ``hidden``.
        components: Number of components of a mixture guide, and of a mixture or vamp prior (10).
        columns: What is known of each column of a table; as of :class:`ppl_vae.models.VAE`.
        levels: The highest level of an image, for likelihoods of levels (255).

    Raises:
        ValueError: If an argument is out of its range, a name is unknown, or nothing is given.

    Example:
        >>> cvae = ConditionalVAE((1, 28, 28), classes=10, covariates={"age": (40.0, 12.0)})
        >>> y, age = torch.tensor([3, 3, 7]), torch.tensor([20.0, 60.0, 60.0])
        >>> cvae.model(y=y, age=age).shape  # one draw for each row of the covariates
        torch.Size([3, 1, 28, 28])
    """

    def __init__(
        self,
        data_shape: Sequence[int],
        latent_dim: int = 50,
        hidden: Sequence[int] = (500, 500),
        channels: Sequence[int] = (),
        activation: str = "silu",
        likelihood: str | nn.Module | None = None,
        likelihood_scale: float | None = None,
        guide: str | nn.Module = "diagonal",
        prior: str | nn.Module = "standard",
        encoder_hidden: Sequence[int] | None = None,
        components: int | None = None,
        columns: Columns | None = None,
        levels: int | None = None,
        classes: int | None = None,
        covariates: Mapping[str, Sequence[Any]] | None = None,
    ) -> None:
        super().__init__()
        wide = hidden if encoder_hidden is None else encoder_hidden
        check_architecture(data_shape, latent_dim, hidden, channels, activation, wide, components)
        self.data_shape = tuple(data_shape)
        self.condition = Condition(classes, covariates or {})
        given = self.condition.length
        p = make_likelihood(likelihood, data_shape, likelihood_scale, columns, levels)
        read, out = (getattr(p, f"{way}_shape", data_shape) for way in ("input", "output"))
        sizes = {"latent_dim": latent_dim, "data_shape": read, "components": components}
        self.family = make_part("guide", guide, GUIDES, **sizes)
        self.encoder = ConditionalEncoder(
            read, given, self.family.features, wide, channels, activation
        )
        self.decoder = Decoder(latent_dim + given, out, hidden, channels, activation)
        self.likelihood = p
        self.prior = make_part("prior", prior, PRIORS, **sizes)
        refuse_components(components, self.family, self.prior)

    def encode(self, x: Tensor, given: Tensor, mask: Tensor | None = None) -> Any:
        """q(z | x, c), of batch shape (N,) and event shape (L,)."""
        return self.encode_inputs(encoder_inputs(self.likelihood, x, mask), given)

    def encode_inputs(self, inputs: Tensor, given: Tensor | None = None) -> Any:
        """q(z | x, c), from what the encoder reads of x; the pseudo-inputs of a prior have no c."""
        return self.family(self.encoder(inputs, given))

    def model(
        self,
        x: Tensor | None = None,
        *,
        y: Tensor | None = None,
        mask: Tensor | None = None,
        exposure: Tensor | None = None,
        **covariates: Tensor,
    ) -> Tensor:
        r"""p(x, z | c). Observes ``x`` of shape (N, \*data_shape), or draws one for each c.

        ``mask`` and ``exposure`` are as of :class:`ppl_vae.models.VAE`.
        """
        register(self)
        given = self.condition(y, covariates)
        with pyro.plate("data", len(given)):
            z = pyro.sample("z", self.prior(self.encode_inputs))
            output = self.decoder(beside(z, given))
            p = data_distribution(self.likelihood, output, mask, exposure)
            return pyro.sample("x", p.to_event(len(self.data_shape)), obs=x)

    def guide(
        self,
        x: Tensor,
        *,
        y: Tensor | None = None,
        mask: Tensor | None = None,
        exposure: Tensor | None = None,
        **covariates: Tensor,
    ) -> Tensor:
        """q(z | x, c). Draws z of shape (N, L)."""
        register(self)
        with pyro.plate("data", len(x)):
            return pyro.sample("z", self.encode(x, self.condition(y, covariates), mask))


class Condition(nn.Module):
    r"""The vector c of each datum: its class, one-hot, and its covariates, standardized.

    Arguments:
        classes: Number of classes, or ``None``.
        covariates: Mean and standard deviation by name.

    Example:
        >>> condition = Condition(2, {"age": (40.0, 10.0)})
        >>> condition(torch.tensor([1]), {"age": torch.tensor([60.0])})
        tensor([[0., 1., 2.]])
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, classes: int | None, covariates: Mapping[str, Sequence[Any]]) -> None:
        super().__init__()
        if classes is not None:
            check_classes(classes)
        self.classes = classes
        moments = {name: _moments(name, pair) for name, pair in covariates.items()}
        self.widths = {name: len(loc) for name, (loc, _) in moments.items()}
        self.length = (classes or 0) + sum(self.widths.values())
        if not self.length:
            raise ValueError("classes or covariates must be given: without them use VAE")
        for place, name in enumerate(("loc", "scale")):
            numbers = [number for moment in moments.values() for number in moment[place]]
            self.register_buffer(name, torch.tensor(numbers), persistent=False)

    def forward(self, y: Tensor | None, covariates: Mapping[str, Tensor]) -> Tensor:
        """c of shape (N, G).

        Raises:
            ValueError: If a covariate is missing, or stray, or of another shape; or a class is not
                one of those that there are.
        """
        if stray := covariates.keys() ^ self.widths.keys():
            name = min(stray)
            raise ValueError(
                f"covariate {name!r} is missing"
                if name in self.widths
                else f"covariate {name!r} was given, but the program takes "
                f"{', '.join(self.widths) or 'y alone'}"
            )
        parts = []
        if self.classes is not None:
            if y is None:
                raise ValueError("y is missing: the class of each data point")
            parts.append(one_hot(y, self.classes, self.loc))
        if self.widths:
            columns = [self._columns(name, covariates[name]) for name in self.widths]
            parts.append((torch.cat(columns, -1) - self.loc) / self.scale)
        return torch.cat(parts, -1)

    def _columns(self, name: str, values: Tensor) -> Tensor:
        columns = values.reshape(len(values), -1).to(self.loc)
        if columns.shape[1] != self.widths[name]:
            raise ValueError(
                f"covariate {name!r} has {columns.shape[1]} columns, not {self.widths[name]}"
            )
        return columns


def _moments(name: str, pair: Any) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each column of a covariate, as lists of one length."""
    try:
        loc, scale = ([float(v) for v in (p if isinstance(p, Sequence) else [p])] for p in pair)
        if len(loc) != len(scale) or not loc or not min(scale) > 0:
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(
            f"covariates must hold mean and positive standard deviation by name, got "
            f"{name!r}: {pair!r}"
        ) from None
    return loc, scale
