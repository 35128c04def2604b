"""What SVI minimizes: Pyro's own estimators, and the weight of the KL term in them."""

from typing import Any, Literal, Self

import torch
from pyro.infer import RenyiELBO, Trace_ELBO, TraceMeanField_ELBO
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn

from .errors import InputError
from .pathwise import PathwiseELBO
from .program import Program
from .sites import latent_distributions, require_density_anywhere

Objective = Literal["elbo", "analytic-kl", "stl", "iw", "dreg"]

IMPORTANCE_WEIGHTED = ("iw", "dreg")
PATHWISE = ("stl", "dreg")


def make_objective(name: Objective, particles: int = 1) -> Any:
    """Build the estimator of a loss, in nats summed over the batch.

    ``elbo`` is :class:`pyro.infer.Trace_ELBO` (Kingma & Welling 2014, eq. 2), ``analytic-kl``
    :class:`pyro.infer.TraceMeanField_ELBO` (eq. 10), and ``iw`` :class:`pyro.infer.RenyiELBO` at
    alpha = 0, which is the importance-weighted bound (Burda et al. 2015, eq. 8). ``stl`` and
    ``dreg`` are these two with the gradients of :class:`ppl_vae.PathwiseELBO`.

    Arguments:
        name: One of ``Objective``.
        particles: Draws for each datum; 2 or more for ``iw`` and ``dreg``.
    """
    if name in PATHWISE:
        return PathwiseELBO(particles, importance_weighted=name == "dreg")
    options: dict[str, Any] = {
        "num_particles": particles,
        "vectorize_particles": particles > 1,
        "max_plate_nesting": 1,
    }
    if name == "iw":
        return RenyiELBO(alpha=0.0, **options)
    return {"elbo": Trace_ELBO, "analytic-kl": TraceMeanField_ELBO}[name](**options)


def check_objective(objective: Objective, program: Program, x: Tensor) -> None:
    """Refuse a guide that an estimator would train towards something else, or not at all.

    Arguments:
        objective: One of ``Objective``.
        program: The program; see :class:`ppl_vae.Program`.
        x: Data of shape (N, *data_shape).

    Raises:
        InputError: Naming the site, and an objective that fits.
    """
    guide, prior = latent_distributions(program, x)
    if objective == "elbo":
        return
    for site, distribution in guide.items():
        if not distribution.has_rsample:
            raise InputError(
                f"the guide's site {site!r} cannot be reparameterized, and the objective "
                f"{objective} would not train it: use the objective elbo"
            )
    if objective == "analytic-kl" and list(guide) != list(prior):
        raise InputError(
            f"the guide draws {', '.join(guide)} and the model {', '.join(prior)}: the objective "
            "analytic-kl needs the same sites in the same order; use the objective elbo"
        )
    if objective in PATHWISE:
        # A guide whose density at its own draws is not the one it drew them from.
        require_density_anywhere(program, x)
        noisy = nn.modules.dropout._DropoutNd | nn.modules.batchnorm._NormBase
        if len(guide) > 1 and any(isinstance(module, noisy) for module in program.modules()):
            raise InputError(
                "path gradients run a guide of several sites again at its own draws, and layers "
                "such as dropout would change it: use the objective elbo or iw"
            )


class KLWeight(Messenger):
    r"""Weigh the KL term of whatever objective runs inside, for any program.

    .. math:: E_q[\log p(x \mid z)] - \beta \sum_{z} \max(\lambda, \mathrm{KL}_z)

    It scales the latent sites of model and guide, as :func:`pyro.poutine.scale` does for all sites:
    :math:`\beta` grows from 0 to 1 for KL warm-up (Bowman et al. 2016); a site whose KL, in the
    mean over the batch, is below the free bits :math:`\lambda` gets the scale 0, which is the
    gradient of the maximum (Kingma et al. 2016, eq. 15, with one group for each site).

    Arguments:
        free_bits: :math:`\lambda`, in nats per datum and latent site.

    Attributes:
        weight: :math:`\beta`, to be set before each step, for compiled steps too.
        kl: The KL of each latent site in the last step that ran through Pyro, unweighted, in nats
            per datum.

    Example:
        >>> import pyro
        >>> from ppl_vae.models import VAE
        >>> vae, x = VAE((5,)), torch.ones(7, 5)
        >>> kl_weight = KLWeight()
        >>> kl_weight.weight = 0.5
        >>> with kl_weight:
        ...     loss = Trace_ELBO().loss(vae.model, vae.guide, x)
        >>> list(kl_weight.kl)
        ['z']
    """

    def __init__(self, free_bits: float = 0.0) -> None:
        super().__init__()
        self.free_bits = free_bits
        self._weight = torch.ones((), dtype=torch.float64)  # a tensor, which a graph reads anew
        self.kl: dict[str, float] = {}
        self._from_guide: dict[str, tuple[dict, torch.Tensor]] = {}

    @property
    def weight(self) -> float:
        return self._weight.item()

    @weight.setter
    def weight(self, value: float) -> None:
        self._weight.fill_(value)

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
        kl = (guide["fn"].log_prob(value) - msg["fn"].log_prob(value)).mean()
        weight = self._weight.to(_real(value))
        if self.free_bits > 0:
            weight = weight * (kl > self.free_bits)
        factor.copy_(torch.as_tensor(guide["scale"] * weight))
        msg["scale"] = msg["scale"] * weight
        self.kl[name] = kl.item()


def _real(value: torch.Tensor) -> torch.dtype:
    return value.dtype if value.is_floating_point() else torch.get_default_dtype()
