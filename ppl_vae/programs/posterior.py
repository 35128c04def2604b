"""The posterior of a program for some data: draws, densities and weights."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from copy import copy
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..choices import Family, Start
from ..data.batch import Batch
from ..errors import check_int
from ..progress import OnProgress, Progress
from .conformance import check_program
from .per_datum import PerDatum
from .protocol import Program, device_of, dtype_of, evaluation_mode
from .scoring import Key, reduce_blocks, rows_at_once, scored_blocks
from .sites import Latents, Sites, draw_latents, trace_draws
from .terms import Terms, concatenate, score_latents

Data = Tensor | Mapping[str, Tensor]


class Posterior:
    r"""The guide q(z | x) for some data, beside the model's p(x, z).

    Program and data are checked once, when it is made. Work goes in blocks of bounded memory.

    Arguments:
        program: The program; see :class:`ppl_vae.Program`.
        data: ``x`` of shape (N, \*data_shape), or a batch of ``x`` and covariates.
        rows: What messages call each data point, of shape (N,); by default its index.

    Attributes:
        batch: The data.
        device, dtype: Those of the program.
        sites: What is known of its sites: distributions, supports, whether there are densities.

    Raises:
        InputError: If the program does not conform, or the data are not what it takes, or lie
            outside the support of its likelihood.

    Example:
        >>> from ppl_vae.models import LinearGaussian
        >>> ppca, x = LinearGaussian((5,), latent_dim=2), torch.randn(7, 5, dtype=torch.float64)
        >>> ppca.set_exact_guide()
        >>> posterior = Posterior(ppca, x)
        >>> posterior.draw(100)["z"].shape  # S draws of N data points
        torch.Size([100, 7, 2])
        >>> torch.allclose(posterior.log_weight(3), ppca.evidence(x).expand(3, 7))  # exact guide
        True
    """

    def __init__(self, program: Program, data: Data, rows: Tensor | None = None) -> None:
        check_program(program, data, rows)
        self.program, self.batch = program, Batch.of(data)
        self.device, self.dtype = device_of(program), dtype_of(program)
        self.rows = torch.arange(self.batch.size) if rows is None else rows
        self.sites = Sites.of(program, self.batch)

    def __repr__(self) -> str:
        return f"Posterior({type(self.program).__name__}, {self.batch!r})"

    def __len__(self) -> int:
        return self.batch.size

    def __getitem__(self, index: slice | Tensor) -> "Posterior":
        """The posterior of some of the data points."""
        part, program = copy(self), self.program
        part.batch, part.rows = self.batch.rows(index), self.rows[index]
        part.program = program.rows(index) if isinstance(program, PerDatum) else program
        vars(part).pop("placed", None)
        return part

    @property
    def has_tractable_density(self) -> bool:
        """Whether log q(z | x) is known at values of z that the guide has not drawn."""
        return self.sites.has_tractable_density

    def draw(self, draws: int, seed: int = 0, source: Start = "guide") -> Latents:
        r"""Draws of each latent site, of shape (S, N, \*event shape), on the CPU."""
        with self.evaluation_mode(seed):
            parts = [part.sample(draws, source) for part in self.blocks(check_int("draws", draws))]
        return {site: torch.cat([p[site].cpu() for p in parts], dim=1) for site in self.sites.prior}

    def log_weight(
        self, draws: int = 100, seed: int = 0, on_progress: OnProgress | None = None
    ) -> Tensor:
        r"""Weigh draws from the guide, data point by data point.

        .. math:: \log w_{sn} = \log p(x_n, z_{sn}) - \log q(z_{sn} | x_n), \quad z_{sn} \sim q

        In nats, of shape (S, N), on the CPU. Their mean over draws estimates the ELBO, their
        log-mean-exp log p(x). ``InputError`` if the guide is a point mass, or one is not finite.
        """
        self.sites.require_density()
        progress = Progress(on_progress, draws * len(self))
        return self.reduce(lambda terms: {"": terms.log_weight.T}, draws, seed, progress)[""].T

    def terms(self, draws: int = 1, seed: int = 0, analytic: bool = False) -> Terms:
        """The log densities of draws from the guide, site by site, on the CPU.

        With ``analytic`` they hold the KL of each latent site in closed form too.
        """
        with self.evaluation_mode(seed):
            parts = [terms for _, terms in scored_blocks(self, draws, analytic, Progress())]
        return concatenate(parts, dim=1)

    def reduce(
        self,
        function: Callable[[Terms], dict[Key, Tensor]],
        draws: int,
        seed: int = 0,
        progress: Progress | None = None,
        analytic: bool = False,
    ) -> dict[Key, Tensor]:
        """Reduce the terms of each data point as soon as they are known.

        Arguments:
            function: From the terms of S draws for n data points to tensors of n rows.
            draws, seed, analytic: As for :meth:`terms`.
            progress: Told of each draw of each data point.

        Raises ``InputError`` if ``draws`` is less than 1, or a log density is not finite.
        """
        with self.evaluation_mode(seed):
            blocks = scored_blocks(self, draws, analytic, progress or Progress())
            return reduce_blocks(function, blocks, self.rows)

    def refine(self, family: Family = "full", steps: int | None = None, **more: Any) -> "Posterior":
        """The same, its guide fitted to each data point: ``ppl_vae.inference.refine.refine``."""
        from ..inference.refine import refine  # which is built on posteriors

        return refine(self, family, steps, **more)

    def evaluation_mode(self, seed: int) -> AbstractContextManager[None]:
        """Where to call :meth:`sample`, :meth:`trace` and :meth:`score`: seeded, no gradients."""
        return evaluation_mode(self.program, seed)

    def of(self, program: Any) -> "Posterior":
        """The same data under another guide for the same model."""
        other = copy(self)
        other.program = program
        other.sites = Sites.of(program, self.batch)
        return other

    @cached_property
    def placed(self) -> Batch:
        """The data on the program's device and of its type."""
        return self.batch.to(self.device, self.dtype)

    def sample(self, draws: int, source: Start = "guide") -> Latents:
        """Draws of all data points at once, on the device, without auxiliary sites."""
        drawn = draw_latents(self.program, self.placed, draws, source)
        return {site: drawn[site] for site in self.sites.prior}

    def trace(self, draws: int) -> tuple[Any, Any]:
        """Traces of guide and model at the same draws, of all data points at once."""
        return trace_draws(self.program, self.placed, draws)

    def score(
        self, latents: Mapping[str, Tensor], with_guide: bool = True, with_model: bool = True
    ) -> Terms:
        """Log densities of given latents of shape (S, N, ...), differentiable by them."""
        return score_latents(self.program, self.placed, latents, with_guide, with_model)

    def blocks(self, draws: int, progress: Progress | None = None) -> "Iterator[Posterior]":
        """Some data points at a time, so that all draws of each fit into memory."""
        size = max(1, rows_at_once(self.program, self.batch.x) // draws)
        for start in range(0, len(self), size):
            yield (part := self[start : start + size])
            if progress is not None:
                progress.advance(len(part) * draws)
