"""What inference finds of each data point: draws, moments, the step that was taken, log p(x)."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..labels import latent_variables, variable
from ..programs.sites import Latents
from ..storage.arviz_io import as_inference_data

if TYPE_CHECKING:
    import xarray  # an extra, which inference itself does without

METHODS = ("guide", "refined diagonal", "refined full", "annealed", "NUTS")
"""The steps, in order; a data point's ``method`` is a place in it."""

STATISTICS = {
    "method": ("the step that was taken", "1"),
    "certified": ("whether that step passed", "1"),
    "k_hat": ("Pareto k-hat of the weights (Vehtari et al. 2024)", "1"),
    "ess": ("effective sample size of the weights; of chains, the least", "draws"),
    "r_hat": ("largest R-hat of the units (Vehtari et al. 2021)", "1"),
    "log_evidence": ("log p(x), by importance weighting or annealing", "nats"),
    "log_evidence_error": ("standard error of log_evidence, from its draws", "nats"),
}


@dataclass
class Codes:
    """What was found for N data points.

    Attributes:
        latents: Equally weighted draws, of shape (S, N, *event shape) by site.
        mean, sd: Of the posterior of each latent, of shape (N, *event shape) by site.
        method: The place in :data:`METHODS` of the last step that was taken, of shape (N,).
        certified: Whether that step passed.
        k_hat, ess, r_hat: What it passed or failed by; NaN where it has no such statistic.
        log_evidence, log_evidence_error: log p(x) in nats, from the last step that has weights.
        left_out: Why steps were left out, by their names.
    """

    latents: Latents
    mean: Latents
    sd: Latents
    method: Tensor
    certified: Tensor
    k_hat: Tensor
    ess: Tensor
    r_hat: Tensor
    log_evidence: Tensor
    log_evidence_error: Tensor
    left_out: dict[str, str] = field(default_factory=dict)

    @classmethod
    def blank(cls, size: int, latents: Latents) -> "Codes":
        """Of N data points, of which nothing is known but what latents look like."""

        def moments() -> Latents:
            return {s: torch.full((size, *z.shape[2:]), torch.nan).double() for s, z in shapes}

        shapes = latents.items()
        names = ("k_hat", "ess", "r_hat", "log_evidence", "log_evidence_error")
        statistics: dict[str, Any] = {
            name: torch.full((size,), torch.nan).double() for name in names
        }
        return cls(
            latents={s: z.new_zeros(len(z), size, *z.shape[2:]) for s, z in shapes},
            mean=moments(),
            sd=moments(),
            method=torch.zeros(size, dtype=torch.long),
            certified=torch.zeros(size, dtype=torch.bool),
            **statistics,
        )

    @classmethod
    def joined(cls, parts: "Sequence[Codes]") -> "Codes":
        """The codes of the data points of all parts."""

        def together(name: str) -> Any:
            tables = [getattr(part, name) for part in parts]
            if isinstance(tables[0], Tensor):
                return torch.cat(tables)
            dim = 1 if name == "latents" else 0
            return {s: torch.cat([table[s] for table in tables], dim=dim) for s in tables[0]}

        left_out = {name: why for part in parts for name, why in part.left_out.items()}
        names = [f.name for f in fields(cls) if f.name != "left_out"]
        return cls(**{name: together(name) for name in names}, left_out=left_out)

    def counts(self) -> dict[str, dict[str, int]]:
        """Of each method that was taken: how many data points, and how many passed by it."""
        found = {}
        for place, name in enumerate(METHODS):
            if (taken := self.method == place).any():
                passed = int((taken & self.certified).sum())
                found[name] = {"data_points": int(taken.sum()), "certified": passed}
        return found

    def dataset(self) -> "xarray.Dataset":
        """All that has one value for each data point, or one for each of its units."""
        import xarray

        found = {n: variable("datum", getattr(self, n), *about) for n, about in STATISTICS.items()}
        names = np.array(METHODS)[self.method.numpy()]
        found["method"] = variable("datum", names, *STATISTICS["method"])
        for name, meaning, values in (
            ("mean", "posterior mean", self.mean),
            ("sd", "posterior standard deviation", self.sd),
        ):
            moments = latent_variables(values, ["datum"], meaning)
            found |= {f"{site}_{name}": variable for site, variable in moments.items()}
        return xarray.Dataset(found, attrs=self.left_out)

    def inference_data(self, rows: Tensor, about: dict[str, Any], with_draws: bool = True) -> Any:
        """``arviz.InferenceData`` with a group ``inference``, and the draws as ``posterior``."""
        import xarray

        groups = {"inference": self.dataset()}
        if with_draws:
            draws = {site: z[None] for site, z in self.latents.items()}
            dims = ("chain", "draw", "datum")
            posterior = latent_variables(draws, dims, "draws from p(z|x)")
            groups = {"posterior": xarray.Dataset(posterior), **groups}
        groups = {n: group.assign_coords(datum=rows.numpy()) for n, group in groups.items()}
        return as_inference_data(groups, about)

    def arrays(self, rows: Tensor) -> dict[str, np.ndarray]:
        """One array for each statistic, with one row a data point."""
        return {"row": rows.numpy(), **{str(n): v.values for n, v in self.dataset().items()}}

    def columns(self, rows: Tensor) -> dict[str, np.ndarray]:
        """One column for each statistic and unit, one row for each data point."""
        found = {}
        for name, array in self.arrays(rows).items():
            if array.ndim == 1:
                found[name] = array
                continue
            site, _, moment = name.rpartition("_")
            for index in np.ndindex(*array.shape[1:]):
                place = ",".join(map(str, index))
                found[f"{site}[{place}]_{moment}"] = array[(slice(None), *index)]
        return found
