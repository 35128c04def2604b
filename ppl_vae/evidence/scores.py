r"""The ELBO, its terms site by site, and bounds on log p(x), each with a standard error."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from ..errors import InputError, check_type
from ..programs.posterior import Data, Posterior
from ..programs.protocol import Program
from ..programs.scoring import log_mean
from ..programs.terms import Terms
from ..progress import OnProgress, Progress

UNITS = {"acceptance": "1", "k_hat": "1", "bits_per_dim": "bits"}  # all others are in nats


@dataclass(frozen=True)
class Estimate:
    """A mean over data, with the standard error that their spread gives it.

    Attributes:
        mean: The mean over data.
        stderr: Its standard error; NaN for a single datum.
        n: The number of data.
        unit: Of mean and error, where it is known.
    """

    mean: float
    stderr: float
    n: int
    unit: str = field(default="", repr=False, compare=False)

    @classmethod
    def of(cls, values: Tensor, unit: str = "") -> "Estimate":
        """Summarize one value for each data point, of shape (N,).

        Raises:
            InputError: If the values are not of that shape.

        Example:
            >>> import torch
            >>> Estimate.of(torch.tensor([1.0, 2.0, 3.0]))
            Estimate(mean=2.0, stderr=0.5773502691896258, n=3)
        """
        check_type("values", values, Tensor)
        if values.dim() != 1 or not len(values):
            raise InputError(
                "values", f"have shape {tuple(values.shape)}, not (N,), of N data points"
            )
        values = values.double()
        stderr = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else math.nan
        return cls(values.mean().item(), stderr, len(values), unit)

    def as_dict(self) -> dict[str, float | int]:
        """Mean, standard error and count, for JSON."""
        return {"mean": self.mean, "stderr": self.stderr, "n": self.n}

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± {self.stderr:.2f}"


@dataclass(frozen=True, repr=False)
class Scores:
    """What is known of each data point, every value of shape (N,) in nats.

    Attributes:
        per_datum: ``elbo`` = ``reconstruction`` - ``kl`` <= ``iw_bound`` <= log p(x), and what
            follows from them; see :func:`score`. Names that end in ``_error`` are the standard
            errors that draws leave.
        likelihood: E_q log p of each observed site of the model.
        prior: E_q log p of each latent site of the model.
        guide: E_q log q of each site of the guide.
        analytic_kl: The KL of each latent site in closed form, where there is one.
    """

    per_datum: dict[str, Tensor]
    likelihood: dict[str, Tensor] = field(default_factory=dict)
    prior: dict[str, Tensor] = field(default_factory=dict)
    guide: dict[str, Tensor] = field(default_factory=dict)
    analytic_kl: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def joined(cls, parts: "Sequence[Scores]") -> "Scores":
        """The scores of the data points of all parts."""

        def together(table: str) -> dict[str, Tensor]:
            tables = [getattr(part, table) for part in parts]
            return {name: torch.cat([t[name] for t in tables]) for name in tables[0]}

        return cls(**{f.name: together(f.name) for f in fields(cls)})

    def __repr__(self) -> str:
        means = (f"{name} {estimate}" for name, estimate in self.estimates().items())
        return f"Scores({', '.join(means)})"

    def estimates(self) -> dict[str, Estimate]:
        """Means over data, with their units."""
        return {
            name: Estimate.of(values, UNITS.get(name, "nats"))
            for name, values in self.per_datum.items()
            if not name.endswith("_error")
        }

    def ledger(self) -> "Ledger":
        """The ELBO as a sum over Pyro's sites.

        Raises:
            InputError: If there is no ELBO.
        """
        if not self.likelihood:
            raise InputError("the guide", "is a point mass: it has no ELBO, and so no ledger")
        given, data = ", ".join(self.prior), ", ".join(self.likelihood)
        entries = [(s, f"E_q[log p({s}|{given})]", v) for s, v in self.likelihood.items()]
        condition = "" if len(self.prior) == 1 else "|..."
        entries += [(s, f"E_q[log p({s}{condition})]", v) for s, v in self.prior.items()]
        condition = f"|{data}" if len(self.guide) == 1 else "|..."
        entries += [(s, f"-E_q[log q({s}{condition})]", -v) for s, v in self.guide.items()]
        kl = {
            site: (Estimate.of(self.guide[site] - self.prior[site]), Estimate.of(exact))
            for site, exact in self.analytic_kl.items()
        }
        rows = tuple(LedgerRow(site, term, Estimate.of(v)) for site, term, v in entries)
        elbo = torch.stack([values for _, _, values in entries]).sum(0)
        return Ledger(rows, Estimate.of(elbo), kl)


@dataclass(frozen=True)
class LedgerRow:
    """One site's share of the ELBO.

    Attributes:
        site: The name of the Pyro site.
        term: What it is in the equation.
        estimate: What it adds to the ELBO, its sign included.
    """

    site: str
    term: str
    estimate: Estimate


@dataclass(frozen=True)
class Ledger:
    """The ELBO as a sum over Pyro's sites.

    Attributes:
        rows: One for each site of model and guide.
        elbo: Their sum.
        kl: For each latent site whose KL has a closed form, the Monte Carlo estimate of its KL
            beside the closed form.
    """

    rows: tuple[LedgerRow, ...]
    elbo: Estimate
    kl: dict[str, tuple[Estimate, Estimate]]


def score(
    program: Program,
    data: Data,
    draws: int = 100,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Scores:
    r"""Estimate every symbol of the ELBO's derivation, for each data point.

    .. math::
        F = E_q[\log p(x \mid z)] - \mathrm{KL}(q(z \mid x) \| p(z))
        \le E \log \frac1S \sum_s w_s \le \log p(x) = F + \mathrm{KL}(q(z \mid x) \| p(z \mid x))

    (Kingma & Welling 2014, eq. 3; Burda et al. 2015, eq. 8), all from the same draws: ``elbo``,
    ``reconstruction``, ``kl``, ``iw_bound``, and

    - ``iw_jackknife``: the bound with its bias of order 1/S taken away (Nowozin 2018, eq. 13);
      closer to log p(x), but not a bound;
    - ``kl_to_posterior``: ``iw_bound`` - ``elbo``, which KL(q(z|x) || p(z|x)) is at least (for more
      than one draw, as the one before);
    - ``bits_per_dim``: - ``iw_bound`` / (D log 2), for data that are discrete.

    A guide that is a point mass has no density: only ``reconstruction`` is known for it.

    Arguments:
        program: The program; see :class:`ppl_vae.Program`.
        data: ``x`` of shape (N, \*data_shape), or a batch of ``x`` and covariates.
        draws: Number of draws S for each data point.
        seed: Seed of the draws.
        on_progress: Told of the share of the work that has been done; see ``ppl_vae.progress``.

    Raises:
        InputError: If ``draws`` is less than 1, the program does not conform, the data lie outside
            its likelihood's support, or a weight is not finite.

    Example:
        >>> from ppl_vae.models import LinearGaussian
        >>> ppca, x = LinearGaussian((5,)), torch.randn(50, 5, dtype=torch.float64)
        >>> scores = score(ppca, x, draws=1000)
        >>> exact = torch.distributions.kl_divergence(
        ...     torch.distributions.MultivariateNormal(ppca.encoder(x), scale_tril=ppca.guide_tril),
        ...     ppca.posterior(x),
        ... )
        >>> error = scores.per_datum["iw_error"].square().mean().sqrt() / 50**0.5
        >>> (scores.per_datum["kl_to_posterior"] - exact).mean().abs().item() < 10 * error.item()
        True
        >>> [row.term for row in scores.ledger().rows]
        ['E_q[log p(x|z)]', 'E_q[log p(z)]', '-E_q[log q(z|x)]']
    """
    posterior = Posterior(program, data)
    progress = Progress(on_progress, draws * len(posterior))
    return score_posterior(posterior, draws, seed, progress)


def score_posterior(posterior: Posterior, draws: int, seed: int, progress: Progress) -> Scores:
    """:func:`score`, of a posterior; progress is told of each draw of each data point."""
    if posterior.sites.is_point_mass:
        found = posterior.reduce(_score_point_mass, draws, seed, progress)
    else:
        found = posterior.reduce(_score_terms, draws, seed, progress, analytic=True)
    tables: dict[str, dict[str, Tensor]] = {}
    for (table, name), values in found.items():
        tables.setdefault(table, {})[name] = values
    if "iw_bound" in tables["per_datum"]:
        add_bits(tables["per_datum"], "iw_bound", posterior)
    return Scores(**tables)


def evaluate(
    program: Program,
    data: Data,
    draws: int = 100,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> dict[str, Estimate]:
    r"""Means over data of what :func:`score` finds for each.

    Arguments:
        program: The program; see :class:`ppl_vae.Program`.
        data: ``x`` of shape (N, \*data_shape), or a batch of ``x`` and covariates.
        draws: Number of draws S for each data point.
        seed: Seed of the draws.
        on_progress: Told of the share of the work that has been done; see ``ppl_vae.progress``.

    Returns:
        ``elbo``, ``reconstruction``, ``kl``, ``iw_bound`` and so on, in nats per datum. Their
        standard errors are over data; the draws' share in them is included, since draws are
        independent.

    Raises:
        InputError: As :func:`score` does.

    Example:
        >>> from ppl_vae.models import LinearGaussian
        >>> ppca, x = LinearGaussian((5,)), torch.randn(50, 5, dtype=torch.float64)
        >>> ppca.set_exact_guide()
        >>> gap = evaluate(ppca, x)["elbo"].mean - ppca.evidence(x).mean().item()
        >>> abs(gap) < 1e-9
        True
    """
    return score(program, data, draws, seed, on_progress).estimates()


def bounds(log_weight: Tensor) -> dict[str, Tensor]:
    """What the log weights of each data point say about its log p(x).

    Arguments:
        log_weight: Of shape (S, N).

    Returns:
        ``iw_bound`` and its ``iw_error``; from 2 draws on ``iw_jackknife`` too. Each of shape (N,).

    Example:
        >>> bounds(torch.tensor([[0.0], [0.0]]))["iw_jackknife"]
        tensor([0.], dtype=torch.float64)
    """
    count = len(log_weight)
    bound, error = log_mean(log_weight)
    found = {"iw_bound": bound, "iw_error": error}
    if count > 1:
        others = _log_mean_of_others(log_weight.double()).mean(0)
        found["iw_jackknife"] = count * bound - (count - 1) * others
    return found


def _log_mean_of_others(log_weight: Tensor) -> Tensor:
    """For each draw, the bound that all other draws give, of shape (S, N)."""
    total = log_weight.logsumexp(0)
    top = log_weight.argmax(0, keepdim=True)
    # At most 1/2, but for the largest; where weights are tiny their sum is rounded to one of them.
    share = (log_weight - total).exp().clamp(max=0.5).scatter(0, top, 0.0)
    others = total + torch.log1p(-share)
    without_top = log_weight.scatter(0, top, -math.inf).logsumexp(0, keepdim=True)
    return others.scatter(0, top, without_top) - math.log(len(log_weight) - 1)


def add_bits(per_datum: dict[str, Tensor], bound: str, posterior: Posterior) -> None:
    """Add a bound on log p(x) in bits per dimension, where all of x, and nothing else, is observed
    and x is discrete.

    Arguments:
        per_datum: The table to add ``bits_per_dim`` to.
        bound: The name of the bound in it.
        posterior: The posterior of the data.
    """
    sites, x = posterior.sites, posterior.batch.x
    if sites.is_discrete and not sites.masked and len(sites.observed) == 1:
        per_datum["bits_per_dim"] = -per_datum[bound] / (x[0].numel() * math.log(2))


def summarize(terms: Terms, point_mass: bool = False) -> dict[str, Estimate]:
    """Means over data of the ELBO, its terms and the bound, for terms that are at hand.

    Arguments:
        terms: Log densities of S draws for each of N data.
        point_mass: Whether the guide has no density; then only ``reconstruction`` is returned.
    """
    reduced = _score_point_mass(terms) if point_mass else _score_terms(terms)
    found = {name: values for (table, name), values in reduced.items() if table == "per_datum"}
    return Scores(found).estimates()


def _score_point_mass(terms: Terms) -> dict[tuple[str, str], Tensor]:
    return {("per_datum", "reconstruction"): terms.reconstruction.double().mean(0)}


def _score_terms(terms: Terms) -> dict[tuple[str, str], Tensor]:
    """Everything that the draws for some data say about each of them."""
    log_weight = terms.log_weight.double()
    elbo = log_weight.mean(0)
    per_datum = {
        "elbo": elbo,
        "reconstruction": terms.reconstruction.double().mean(0),
        "kl": terms.kl.double().mean(0),
        **bounds(log_weight),
    }
    if len(log_weight) > 1:  # with one draw the bound is the ELBO
        per_datum["kl_to_posterior"] = per_datum["iw_bound"] - elbo
    found = {("per_datum", name): values for name, values in per_datum.items()}
    for table in ("likelihood", "prior", "guide", "analytic_kl"):
        for site, values in getattr(terms, table).items():
            found[table, site] = values.double().mean(0)
    return found
