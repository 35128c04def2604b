"""The weight of the KL term in an objective."""

from collections.abc import Callable
from typing import Any, Self

import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample


class KLWeight(Messenger):
    r"""Weigh the KL term of whatever objective runs inside, for any program.

    .. math:: E_q[\log p(x \mid z)] - \beta \sum_{z} \max(\lambda, \mathrm{KL}_z)

    It scales the latent sites of model and guide, as :func:`pyro.poutine.scale` does for all sites:
    :math:`\beta` grows from 0 to 1 for KL warm-up (Bowman et al. 2016); a site whose KL, in the
    mean over the batch, is below the free bits :math:`\lambda` gets the scale 0, which is the
    gradient of the maximum (Kingma et al. 2016, eq. 15, with one group for each site).

    Arguments:
        free_bits: :math:`\lambda`, in nats per datum and latent site.
        mean: The mean over a batch, of which the data here may be a part.

    Attributes:
        weight: :math:`\beta`, to be set before each step, for compiled steps too.
        kl: The KL of each latent site in the last step, unweighted, in nats per datum.

    Example:
        >>> import pyro
        >>> from ppl_vae.models import VAE
        >>> vae, x = VAE((5,)), torch.ones(7, 5)
        >>> kl_weight = KLWeight()
        >>> kl_weight.weight = 0.5
        >>> with kl_weight:
        ...     loss = pyro.infer.Trace_ELBO().loss(vae.model, vae.guide, x)
        >>> list(kl_weight.kl)
        ['z']
    """

    def __init__(
        self,
        free_bits: float = 0.0,
        mean: Callable[[torch.Tensor], torch.Tensor] = torch.mean,
    ) -> None:
        super().__init__()
        self.free_bits, self._mean = free_bits, mean
        self._weight = torch.ones((), dtype=torch.float64)  # a tensor, which a graph reads anew
        self._kl: dict[str, torch.Tensor] = {}
        self._from_guide: dict[str, tuple[dict, torch.Tensor]] = {}

    @property
    def weight(self) -> float:
        return self._weight.item()

    @weight.setter
    def weight(self, value: float) -> None:
        self._weight.fill_(value)

    @property
    def kl(self) -> dict[str, float]:
        return {name: kl.item() for name, kl in self._kl.items()}

    def __enter__(self) -> Self:
        self._from_guide.clear()
        return super().__enter__()

    @torch.no_grad()
    def _pyro_post_sample(self, msg: Any) -> None:
        # As the outermost handler this one comes after plates have scaled the site, and before
        # the trace that the objective reads has recorded it.
        if msg["is_observed"] or site_is_subsample(msg):
            return
        name, value = msg["name"], msg["value"]
        if name not in self._from_guide:
            # The guide comes first, when the KL is not known yet: leave a tensor to be filled.
            self._weight = self._weight.to(value.device)
            factor = self._weight.clone().to(_real(value))
            self._from_guide[name] = ({**msg}, factor)
            msg["scale"] = factor
            return
        guide, factor = self._from_guide.pop(name)
        kl = self._mean(guide["fn"].log_prob(value) - msg["fn"].log_prob(value))
        weight = self._weight.to(_real(value))
        if self.free_bits > 0:
            weight = weight * (kl > self.free_bits)
        factor.copy_(torch.as_tensor(guide["scale"] * weight))
        msg["scale"] = msg["scale"] * weight
        # In place: a graph changes tensors, and nothing else.
        self._kl.setdefault(name, torch.zeros_like(kl)).copy_(kl)


def _real(value: torch.Tensor) -> torch.dtype:
    return value.dtype if value.is_floating_point() else torch.get_default_dtype()
