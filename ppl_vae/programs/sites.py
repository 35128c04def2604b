"""The sites of a program: their distributions, draws of them, and what they cannot do."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

from ..choices import Start
from ..data.batch import Batch
from ..data.missing import MASK
from ..errors import InputError
from .per_datum import PerDatum
from .protocol import Program, device_of, dtype_of, evaluation_mode, innermost, is_random
from .supports import fixed_support

PROBED, PROBES = 8, 8  # data points and draws that show what a site is
# What a guide can still do that knows its density at its own draws only.
DRAWS_ALONE = "use the objective elbo, the iw estimator, or annealing from the prior"

Latents = dict[str, Tensor]
"""A value for each latent site, of shape (S draws, N data points, *event shape)."""


def trace_draws(program: Program, batch: Batch, draws: int) -> tuple[Any, Any]:
    """Run guide and model once, inside a plate of ``draws`` at dim -2.

    Returns:
        The traces of guide and model; the batch shape of each site broadcasts to (draws, N).
    """
    with pyro.plate("_draws", draws, dim=-2):
        guide = batch.call(poutine.trace(program.guide).get_trace)
        model = batch.call(poutine.trace(poutine.replay(program.model, trace=guide)).get_trace)
    return poutine.util.prune_subsample_sites(guide), poutine.util.prune_subsample_sites(model)


def draw_latents(program: Program, batch: Batch, draws: int, source: Start) -> Latents:
    """Draw every latent site from the model without its data, or from the guide.

    Arguments:
        program: The program; see :class:`ppl_vae.Program`.
        batch: N data points, on the program's device and of its type.
        draws: Number of draws S for each data point.
        source: Where draws come from, ``"prior"``, ``"guide"``, or half from each: first those
            of the guide, one more of which where S is odd (``"mixture"``).
    """
    if source == "mixture":
        ours = draw_latents(program, batch, draws - draws // 2, "guide")
        if not draws // 2:
            return ours
        others = draw_latents(program, batch, draws // 2, "prior")
        return {site: torch.cat([ours[site], z]) for site, z in others.items()}
    run = program.guide if source == "guide" else poutine.uncondition(program.model)
    with pyro.plate("_draws", draws, dim=-2):
        trace = batch.call(poutine.trace(run).get_trace)
    return {site: node["value"] for site, node in latent_nodes(trace, batch).items()}


def as_template(program: Program, batch: Batch) -> Batch:
    """Data as simulations take their covariates from them.

    A mask that the model draws itself is true throughout: it is drawn given complete data.
    """
    if MASK not in batch or MASK not in Sites.of(program, batch).observed:
        return batch
    return Batch({**batch, MASK: torch.ones_like(batch[MASK])})


def latent_nodes(trace: Any, batch: Batch) -> dict[str, Any]:
    """The latent sites of a trace: random, and not named as something in the batch."""
    return {s: node for s, node in trace.nodes.items() if is_random(node) and s not in batch}


@dataclass(frozen=True)
class Sites:
    """The distributions of a program at its sites, each in its own order, at a few draws.

    They are stripped of ``to_event`` and ``mask``.

    Attributes:
        program: The program.
        guide: The guide's, its auxiliary sites included.
        prior: The model's at its latent sites.
        observed: The model's at its observed sites.
        masked: Whether an observed site is masked, in part or whole.
        event_dims: How many dimensions a value of each latent site has.
        enumerated: The guide's sites whose values are summed over in a fit, not drawn.
    """

    program: Program
    guide: dict[str, Any]
    prior: dict[str, Any]
    observed: dict[str, Any]
    masked: bool
    event_dims: dict[str, int]
    enumerated: tuple[str, ...] = ()

    @classmethod
    def of(cls, program: Program, batch: Batch) -> "Sites":
        """The sites of a program that conforms, on the first of some data."""
        probe = batch.rows(slice(PROBED)).to(device_of(program), dtype_of(program))
        if isinstance(program, PerDatum):
            program = program.rows(slice(PROBED))
        with evaluation_mode(program, seed=0):
            guide, model = trace_draws(program, probe, PROBES)
        latent = {
            name: {s: innermost(n["fn"]) for s, n in latent_nodes(trace, probe).items()}
            for name, trace in (("guide", guide), ("prior", model))
        }
        nodes = {s: n for s, n in model.nodes.items() if is_random(n) and s in probe}
        masked = any(n["mask"] is not None or _is_masked(n["fn"]) for n in nodes.values())
        observed = {s: innermost(n["fn"]) for s, n in nodes.items()}
        dims = {s: n["fn"].event_dim for s, n in latent_nodes(model, probe).items()}
        marked = tuple(
            s for s, n in latent_nodes(guide, probe).items() if n["infer"].get("enumerate")
        )
        return cls(
            program,
            **latent,
            observed=observed,
            masked=masked,
            event_dims=dims,
            enumerated=marked,
        )

    @property
    def is_discrete(self) -> bool:
        """Whether the model gives the data probabilities, not densities."""
        return all(bool(p.support.is_discrete) for p in self.observed.values())

    @cached_property
    def is_point_mass(self) -> bool:
        """Whether the guide has no density: its ELBO is minus infinity, and it has no weights.

        A Delta alone has none. After an auxiliary site, or with a density of its own, it is the
        last step of a flow.
        """
        if self.guide.keys() - self.prior.keys():
            return False
        deltas = [q for q in self.guide.values() if isinstance(q, dist.Delta)]
        return any(not bool(delta.log_density.any()) for delta in deltas)

    @property
    def without_path(self) -> str:
        """A site of the guide whose draws are not differentiable by its parameters, if there is."""
        return next((site for site, q in self.guide.items() if not q.has_rsample), "")

    @cached_property
    def intractable(self) -> str:
        """Why the guide cannot tell its density at values that it has not drawn, if it cannot."""
        if auxiliary := self.guide.keys() - self.prior.keys():
            return (
                f"has an auxiliary site {min(auxiliary)!r}, so its density at a given z is unknown"
            )
        for site, q in self.guide.items():
            try:
                with evaluation_mode(self.program, seed=0):
                    q.log_prob(q.sample().clone())
            except (NotImplementedError, KeyError) as error:
                kind = type(error).__name__
                return f"has a flow at site {site!r} that cannot be inverted ({kind})"
        return ""

    @property
    def has_tractable_density(self) -> bool:
        """Whether the guide can tell its density at values that it has not drawn."""
        return not self.is_point_mass and not self.intractable

    def require_density(self) -> None:
        """Refuse a guide that is a point mass.

        Raises:
            InputError: Saying what can be had instead.
        """
        if self.is_point_mass:
            raise InputError(
                f"the guide of {type(self.program).__name__}",
                "is a point mass: it has no density, so there are no weights and no evidence",
                "score its reconstructions alone",
            )

    def require_tractable_density(self) -> None:
        """Refuse a guide that cannot tell its density at values that it has not drawn.

        Raises:
            InputError: Naming the site.
        """
        self.require_density()
        if self.intractable:
            name = type(self.program).__name__
            raise InputError(f"the guide of {name}", self.intractable, DRAWS_ALONE)

    def supports(self) -> dict[str, Any]:
        """The support of each latent site of the prior, without events and mixtures around it.

        Raises:
            InputError: If one depends on a draw or a data point, such as that of Uniform(0, z).
        """
        return {s: fixed_support(s, p, self.event_dims[s]) for s, p in self.prior.items()}


def _is_masked(distribution: Any) -> bool:
    while not isinstance(distribution, dist.MaskedDistribution):
        if not hasattr(distribution, "base_dist"):
            return False
        distribution = distribution.base_dist
    return True
