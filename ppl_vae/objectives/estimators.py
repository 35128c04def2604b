"""What SVI minimizes: Pyro's own estimators, and the weight of the KL term in them."""

from typing import Any

from pyro.infer import RenyiELBO, Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO
from torch import nn

from ..choices import Objective
from ..data.batch import Batch
from ..errors import InputError
from ..programs.protocol import Program
from ..programs.sites import Sites
from .pathwise import PathwiseELBO

IMPORTANCE_WEIGHTED = ("iw", "dreg")
PATHWISE = ("stl", "dreg")


def make_objective(name: Objective, particles: int = 1, enumerated: bool = False) -> Any:
    """Build the estimator of a loss, in nats summed over the batch.

    ``elbo`` is :class:`pyro.infer.Trace_ELBO` (Kingma & Welling 2014, eq. 2), ``analytic-kl``
    :class:`pyro.infer.TraceMeanField_ELBO` (eq. 10), and ``iw`` :class:`pyro.infer.RenyiELBO` at
    alpha = 0, which is the importance-weighted bound (Burda et al. 2015, eq. 8). ``stl`` and
    ``dreg`` are these two with the gradients of :class:`ppl_vae.PathwiseELBO`. Where the guide has
    sites to be enumerated, ``elbo`` is :class:`pyro.infer.TraceEnum_ELBO`, which sums over their
    values.

    Arguments:
        name: One of ``Objective``.
        particles: Draws for each datum; 2 or more for ``iw`` and ``dreg``.
        enumerated: Whether a site of the guide is marked ``infer={"enumerate": ...}``.
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
    if enumerated:
        return TraceEnum_ELBO(**options)
    return {"elbo": Trace_ELBO, "analytic-kl": TraceMeanField_ELBO}[name](**options)


def check_objective(
    objective: Objective, program: Program, batch: Batch, free_bits: float = 0.0
) -> None:
    """Refuse a guide that an estimator would train towards something else, or not at all.

    Arguments:
        objective: One of ``Objective``.
        program: The program; see :class:`ppl_vae.Program`.
        batch: Some data.
        free_bits: KL that a site has for free.

    Raises:
        InputError: Naming the site, and an objective that fits.
    """
    sites = Sites.of(program, batch)
    if sites.enumerated and free_bits:
        raise InputError(
            "free_bits",
            f"was given, but the KL of site {sites.enumerated[0]!r}, whose values are enumerated, "
            "is not known draw by draw",
            "leave it out",
        )
    if objective == "elbo":
        return
    if site := sites.without_path:
        raise InputError(
            f"the guide's site {site!r}",
            f"cannot be reparameterized, and the objective {objective} would not train it",
            "use the objective elbo",
        )
    if objective == "analytic-kl" and list(sites.guide) != list(sites.prior):
        raise InputError(
            "the objective analytic-kl",
            "needs the same sites in the same order, but the guide draws "
            f"{', '.join(sites.guide)} and the model {', '.join(sites.prior)}",
            "use the objective elbo",
        )
    if objective in PATHWISE:
        # A guide whose density at its own draws is not the one it drew them from.
        sites.require_tractable_density()
        noisy = nn.modules.dropout._DropoutNd | nn.modules.batchnorm._NormBase
        if len(sites.guide) > 1 and any(isinstance(module, noisy) for module in program.modules()):
            raise InputError(
                f"the objective {objective}",
                "runs a guide of several sites again at its own draws, and layers such as dropout "
                "would change it",
                "use the objective elbo or iw",
            )
