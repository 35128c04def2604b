"""The sites of a program: their distributions, draws of them, and what they cannot do."""

from typing import Any, Literal

import pyro
import pyro.distributions as dist
from pyro import poutine
from torch import Tensor

from ..errors import InputError
from .protocol import OBSERVED, Program, device_of, dtype_of, evaluation_mode, innermost, is_random

# What a guide can still do that knows its density at its own draws only.
DRAWS_ALONE = "use the objective elbo, the iw estimator, or annealing from the prior"


def trace_draws(program: Program, batch: Tensor, draws: int) -> tuple[Any, Any]:
    """Run guide and model once, inside a plate of ``draws`` at dim -2.

    Returns:
        The traces of guide and model; the batch shape of each site broadcasts to (draws, N).
    """
    with pyro.plate("_draws", draws, dim=-2):
        guide = poutine.trace(program.guide).get_trace(batch)
        model = poutine.trace(poutine.replay(program.model, trace=guide)).get_trace(batch)
    return poutine.util.prune_subsample_sites(guide), poutine.util.prune_subsample_sites(model)


def draw_latents(
    program: Program, batch: Tensor, draws: int, source: Literal["prior", "guide"]
) -> dict[str, Tensor]:
    """Draw every latent site from the model without its data, or from the guide.

    Arguments:
        program: The program; see :class:`ppl_vae.Program`.
        batch: Data of shape (N, *data_shape), on the program's device and of its type.
        draws: Number of draws S for each datum.
        source: Where draws come from.

    Returns:
        Values by site, each of shape (S, N, *event shape).
    """
    run = program.guide if source == "guide" else poutine.uncondition(program.model)
    with pyro.plate("_draws", draws, dim=-2):
        trace = poutine.trace(run).get_trace(batch)
    nodes: dict[str, Any] = {s: n for s, n in trace.nodes.items() if is_random(n) and s != OBSERVED}
    return {site: node["value"] for site, node in nodes.items()}


def latent_distributions(program: Program, x: Tensor) -> tuple[dict[str, Any], dict[str, Any]]:
    """The distributions of guide and prior at their latent sites, each in its own order.

    They are stripped of ``to_event`` and ``mask``; auxiliary sites of the guide are among them.
    """
    batch = x[:1].to(device_of(program), dtype_of(program))
    with evaluation_mode(program, seed=0):
        traces = trace_draws(program, batch, 1)
    guide, prior = (
        {
            site: innermost(node["fn"])
            for site, node in trace.nodes.items()
            if is_random(node) and site != OBSERVED
        }
        for trace in traces
    )
    return guide, prior


def is_discrete(program: Program, x: Tensor) -> bool:
    """Whether the likelihood gives probabilities, not densities."""
    batch = x[:1].to(device_of(program), dtype_of(program))
    with evaluation_mode(program, seed=0):
        likelihood = trace_draws(program, batch, 1)[1].nodes[OBSERVED]["fn"]
    return bool(likelihood.support.is_discrete)


def is_point_mass(guide: dict[str, Any], prior: dict[str, Any]) -> bool:
    """Whether a guide has no density: its ELBO is minus infinity, and no weight can be formed.

    A Delta alone has none. After an auxiliary site, or with a density of its own, it is the last
    step of a flow.

    Arguments:
        guide: The guide's distributions, as :func:`latent_distributions` gives them.
        prior: The prior's.
    """
    if guide.keys() - prior.keys():
        return False
    deltas = [q for q in guide.values() if isinstance(q, dist.Delta)]
    return any(not bool(delta.log_density.any()) for delta in deltas)


def require_density(program: Program, x: Tensor) -> None:
    """Refuse a guide that is a point mass.

    Raises:
        InputError: Saying what can be had instead.
    """
    if is_point_mass(*latent_distributions(program, x)):
        raise InputError(
            f"the guide of {type(program).__name__} is a point mass: it has no density, so there "
            "are no weights and no evidence; only its reconstructions can be scored"
        )


def require_density_anywhere(program: Program, x: Tensor) -> None:
    """Refuse a guide that cannot say its density at values it has not drawn itself.

    Raises:
        InputError: Naming the site.
    """
    require_density(program, x)
    guide, prior = latent_distributions(program, x)
    if auxiliary := guide.keys() - prior.keys():
        raise InputError(
            "the guide's density of a given z is not known, because of its auxiliary site "
            f"{min(auxiliary)!r}: {DRAWS_ALONE}"
        )
    for site, q in guide.items():
        try:
            with evaluation_mode(program, seed=0):
                q.log_prob(q.sample().clone())
        except (NotImplementedError, KeyError) as error:
            raise InputError(
                f"the guide's site {site!r} has a flow that cannot be inverted "
                f"({type(error).__name__}): {DRAWS_ALONE}"
            ) from None


def supports(program: Program, x: Tensor) -> dict[str, Any]:
    """The support of each latent site of the prior.

    Raises:
        InputError: If one depends on a draw or a datum, such as that of Uniform(0, z).
    """
    batch = x[:8].to(device_of(program), dtype_of(program))
    with evaluation_mode(program, seed=0):
        _, model = trace_draws(program, batch, 8)
    found = {}
    for site, node in model.nodes.items():
        if not is_random(node) or site == OBSERVED:
            continue
        found[site] = constraint = innermost(node["fn"]).support
        edges = [edge for edge in vars(constraint).values() if isinstance(edge, Tensor)]
        if any(not bool((edge == edge.flatten()[0]).all()) for edge in edges):
            raise InputError(
                f"the support of the latent site {site!r} depends on a draw or a datum: give it a "
                "fixed support, and scale its value"
            )
    return found
