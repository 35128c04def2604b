"""The semi-supervised variational autoencoder M2 of Kingma et al. (2014)."""

from collections.abc import Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .conditioning import ConditionalEncoder, beside, check_classes
from .distributions import Revealed
from .guides import GUIDES
from .likelihoods import Columns, data_distribution, encoder_inputs, make_likelihood
from .networks import Decoder, Encoder, check_architecture
from .parts import make_part, refuse_components
from .priors import PRIORS
from .registration import register

ALPHA = 50.0  # nats for each label, unless said otherwise


class SemiSupervisedVAE(nn.Module):
    r"""A variational autoencoder whose classes are known for some data (Kingma et al. 2014, M2).

    .. math::
        k &\sim \mathrm{Cat}(1 / K), \quad z \sim p(z) \\
        x \mid z, k &\sim p(x \mid \mathrm{decoder}(z, k)) \\
        q(k, z \mid x) &= \mathrm{Cat}(k \mid \mathrm{classifier}(x)) \, q(z \mid x, k)

    The class k is the latent site ``label`` of every datum. ``y`` is what is seen of it: k itself
    where it is known, where the guide takes it from there, and -1 elsewhere. With
    :class:`pyro.infer.TraceEnum_ELBO` the guide's classes are enumerated: the loss is then minus
    eq. 6 of the paper where y is known, and minus eq. 7 elsewhere.

    While in training mode, the loss has :math:`-\alpha \log q(y \mid x)` besides (eq. 9), without
    which labels would not train the classifier. It is no part of the ELBO: ``eval()`` leaves it
    out, as do all functions of this package that score a program.

    Arguments:
        data_shape: Shape of one datum, such as ``(1, 28, 28)``.
        classes: Number of classes K.
        alpha: Weight of the term for each label. For n labels of N data, the paper's is 0.1 N / n;
            N / n finds the classes sooner, and is what the command line chooses.
        classifier: A module from what an encoder reads of data to the K logits of q(k|x), in place
            of an encoder.
        latent_dim: Number of latent variables L.
        hidden: Widths of the encoder's hidden layers; the decoder has them in reverse.
        channels: Channels of the convolutions in front of them, for images; empty for none.
        activation: ``"silu"``, ``"tanh"`` or ``"relu"``, between layers.
        likelihood: A name from ``LIKELIHOODS``, or a module; as of :class:`ppl_vae.models.VAE`.
        likelihood_scale: Scale of a Gaussian likelihood, or one like it; ``None`` learns it.
        guide: The family of q(z|x, k): a name from ``GUIDES``, or a module like those there.
        prior: A name from ``PRIORS``, or a module like those there.
        encoder_hidden: Widths of the encoder's hidden layers, where not those of ``hidden``.
        components: Number of components of a mixture guide, and of a mixture or vamp prior (10).
        columns: What is known of each column of a table; as of :class:`ppl_vae.models.VAE`.
        levels: The highest level of an image, for likelihoods of levels (255).

    Raises:
        ValueError: If an argument is out of its range, or a name is unknown.

    Example:
        >>> from pyro.infer import SVI, TraceEnum_ELBO
        >>> m2 = SemiSupervisedVAE((1, 8, 8), latent_dim=2, hidden=(32,), classes=3)
        >>> adam, loss = pyro.optim.Adam({"lr": 1e-3}), TraceEnum_ELBO(max_plate_nesting=1)
        >>> x, y = torch.rand(4, 1, 8, 8).round(), torch.tensor([0, -1, 2, -1])
        >>> loss = SVI(m2.model, m2.guide, adam, loss).step(x, y=y)
    """

    class_logits: Tensor

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
        alpha: float = ALPHA,
        classifier: nn.Module | None = None,
    ) -> None:
        super().__init__()
        wide = hidden if encoder_hidden is None else encoder_hidden
        check_architecture(data_shape, latent_dim, hidden, channels, activation, wide, components)
        classes = check_classes(classes)
        if not isinstance(alpha, int | float) or not alpha >= 0:
            raise ValueError(f"alpha must be a number of at least 0, got {alpha!r}")
        self.data_shape, self.classes, self.alpha = tuple(data_shape), classes, float(alpha)
        p = make_likelihood(likelihood, data_shape, likelihood_scale, columns, levels)
        read, out = (getattr(p, f"{way}_shape", data_shape) for way in ("input", "output"))
        sizes = {"latent_dim": latent_dim, "data_shape": read, "components": components}
        self.family = make_part("guide", guide, GUIDES, **sizes)
        self.classifier = classifier or Encoder(read, classes, wide, channels, activation)
        self.encoder = ConditionalEncoder(
            read, classes, self.family.features, wide, channels, activation
        )
        self.decoder = Decoder(latent_dim + classes, out, hidden, channels, activation)
        self.likelihood = p
        self.prior = make_part("prior", prior, PRIORS, **sizes)
        refuse_components(components, self.family, self.prior)
        self.register_buffer("class_logits", torch.zeros(classes), persistent=False)

    def encode_inputs(self, inputs: Tensor, label: Tensor | None = None) -> Any:
        """q(z | x, k), from what the encoder reads of x; pseudo-inputs of a prior have no k."""
        return self.family(self.encoder(inputs, None if label is None else self._one_hot(label)))

    def model(
        self,
        x: Tensor | None = None,
        size: int = 1,
        *,
        y: Tensor | None = None,
        mask: Tensor | None = None,
        exposure: Tensor | None = None,
    ) -> Tensor:
        r"""p(x, y, k, z). Observes ``x`` and ``y``, or draws ``size`` data points.

        ``mask`` and ``exposure`` are as of :class:`ppl_vae.models.VAE`.
        """
        register(self)
        with pyro.plate("data", next((len(t) for t in (x, y) if t is not None), size)):
            label = pyro.sample("label", dist.Categorical(logits=self.class_logits))
            if y is not None:
                pyro.sample("y", Revealed(label, y >= 0, self.class_logits), obs=y)
            z = pyro.sample("z", self.prior(self.encode_inputs))
            output = self.decoder(beside(z, self._one_hot(label)))
            p = data_distribution(self.likelihood, output, mask, exposure)
            return pyro.sample("x", p.to_event(len(self.data_shape)), obs=x)

    def guide(
        self,
        x: Tensor,
        *,
        y: Tensor | None = None,
        mask: Tensor | None = None,
        exposure: Tensor | None = None,
    ) -> Tensor:
        """q(k, z | x, y). Draws k of shape (N,), and z of shape (N, L)."""
        register(self)
        with pyro.plate("data", len(x)):
            inputs = encoder_inputs(self.likelihood, x, mask)
            logits = self.classifier(inputs)
            if y is not None:
                seen = self._one_hot(y.clamp(0, self.classes - 1))
                if self.training:
                    # What the guide has more, the loss has more.
                    cost = -self.alpha * (seen * logits.log_softmax(-1)).sum(-1)
                    pyro.factor("classification", cost * (y >= 0), has_rsample=True)
                logits = torch.where((y >= 0)[..., None], seen.log(), logits)
            q = dist.Categorical(logits=logits)
            label = pyro.sample("label", q, infer={"enumerate": "parallel"})
            return pyro.sample("z", self.encode_inputs(inputs, label))

    def _one_hot(self, label: Tensor) -> Tensor:
        return F.one_hot(label, self.classes).to(self.class_logits)
