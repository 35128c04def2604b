r"""The ELBO, its terms, and importance-weighted bounds, each with a standard error."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

from torch import Tensor

from .errors import InputError
from .program import Program, check_program
from .weights import Terms, is_point_mass, latent_distributions, log_terms


@dataclass(frozen=True)
class Estimate:
    """A mean over data, with the standard error that their spread gives it.

    Attributes:
        mean: The mean over data, in nats per datum.
        stderr: Its standard error; NaN for a single datum.
        n: The number of data.
    """

    mean: float
    stderr: float
    n: int

    @classmethod
    def of(cls, values: Tensor) -> "Estimate":
        """Summarize one value for each datum, of shape (N,).

        Example:
            >>> import torch
            >>> Estimate.of(torch.tensor([1.0, 2.0, 3.0]))
            Estimate(mean=2.0, stderr=0.5773502691896258, n=3)
        """
        values = values.double()
        stderr = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else math.nan
        return cls(values.mean().item(), stderr, len(values))

    def as_dict(self) -> dict[str, float | int]:
        """The three figures, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± {self.stderr:.2f}"


def evaluate(
    program: Program,
    x: Tensor,
    draws: int = 100,
    seed: int = 0,
    on_block: Callable[[int], None] | None = None,
) -> dict[str, Estimate]:
    r"""Estimate the ELBO, its two terms and an importance-weighted bound on the evidence.

    .. math::
        \mathrm{ELBO} = E_q[\log p(x \mid z)] - \mathrm{KL}(q(z \mid x) \| p(z))
        \le E \log \frac1S \sum_s \frac{p(x, z_s)}{q(z_s \mid x)} \le \log p(x)

    (Kingma & Welling 2014, eq. 3; Burda et al. 2015, eq. 8.) All four come from the same draws.
    A guide that is a point mass has no ELBO: only ``reconstruction`` is returned for it.

    Arguments:
        program: The program; see :class:`ppl_vae.Program`.
        x: Data of shape (N, \*data_shape).
        draws: Number of draws S for each datum.
        seed: Seed of the draws.
        on_block: Called with the number of draws x data done, for progress bars.

    Returns:
        ``elbo``, ``reconstruction``, ``kl`` and ``iw_bound``, in nats per datum. Their standard
        errors are over data; the draws' share in them is included, since draws are independent.

    Raises:
        InputError: If the program does not conform, the data lie outside its likelihood's
            support, or a weight is not finite.

    Example:
        >>> import torch
        >>> from ppl_vae.models import LinearGaussian
        >>> ppca, x = LinearGaussian((5,)), torch.randn(50, 5, dtype=torch.float64)
        >>> ppca.set_exact_guide()
        >>> gap = evaluate(ppca, x)["elbo"].mean - ppca.evidence(x).mean().item()
        >>> abs(gap) < 1e-9
        True
    """
    check_program(program, x)
    terms = log_terms(program, x, draws, seed, on_block)
    if not (finite := terms.log_weight.isfinite().all(0)).all():
        datum = int((~finite).nonzero()[0])
        tables = {**terms.guide, **terms.model}
        sites = [site for site, table in tables.items() if not table[:, datum].isfinite().all()]
        raise InputError(
            f"the log weight of datum {datum} is not finite, because of site {sites[0]!r}: "
            "check that datum, or train longer at a lower rate"
        )
    return summarize(terms, is_point_mass(latent_distributions(program, x)[0]))


def summarize(terms: Terms, point_mass: bool = False) -> dict[str, Estimate]:
    """Means over data of the ELBO, its terms and the importance-weighted bound.

    Arguments:
        terms: Log densities of S draws for each of N data.
        point_mass: Whether the guide has no density; then only ``reconstruction`` is returned.
    """
    reconstruction = Estimate.of(terms.reconstruction.double().mean(0))
    if point_mass:
        return {"reconstruction": reconstruction}
    log_weight = terms.log_weight.double()
    return {
        "elbo": Estimate.of(log_weight.mean(0)),
        "reconstruction": reconstruction,
        "kl": Estimate.of(terms.kl.double().mean(0)),
        "iw_bound": Estimate.of(log_weight.logsumexp(0) - math.log(len(log_weight))),
    }
