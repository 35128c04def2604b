"""The check that a program conforms, and that data suit it."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from ..choices import SplitName
from ..data.batch import OBSERVED, Batch
from ..data.classes import LABELS
from ..data.dataset import DataSet, Split
from ..errors import InputError, first_line, user_code_errors
from .batches import check_batch
from .protocol import (
    DATA_PLATE,
    Program,
    device_of,
    dtype_of,
    evaluation_mode,
    is_random,
)
from .values import check_labels, check_support

SUPPORT_DRAWS = 64  # of the guide, compared with the prior's support
PIECE = 2**20  # numbers compared with the likelihood's support at once


def check_program(
    program: Program, data: Tensor | Mapping[str, Tensor], rows: Tensor | None = None
) -> None:
    """Refuse a program that does not conform, or data that its likelihood does not support.

    Model and guide run on one data point and on two, by themselves and inside a plate of draws;
    then every data point is compared with the support of the likelihood.

    Arguments:
        program: The program; see :class:`Program`.
        data: ``x`` of shape (N, *data_shape), or a batch of ``x`` and covariates.
        rows: What messages call each data point, of shape (N,); by default its index.

    Raises:
        InputError: In one line that names the site, plate, parameter, covariate or data point.

    Example:
        >>> from ppl_vae.models import VAE
        >>> check_program(VAE((3,)), torch.tensor([[0.0, 1.0, 0.5]]))
        Traceback (most recent call last):
        ppl_vae.errors.InputError: datum 0: 0.5 lies outside the support of the Bernoulli ...
    """
    everything = check_batch(program, data)
    _check(program, everything, lambda: _pieces(everything), rows)


def check_split(program: Program, data: DataSet, split: SplitName) -> None:
    """:func:`check_program` of a split of a data set, which need not be in memory as numbers.

    Raises:
        InputError: As :func:`check_program` does.
    """
    part: Split = getattr(data, split)
    check_batch(program, {OBSERVED: part.x, **part.covariates})
    _check(program, next(data.pieces(split)), lambda: data.pieces(split), part.rows)


def _pieces(batch: Batch) -> Iterator[Batch]:
    return batch.split(max(2, PIECE // batch.x[0].numel()))


def _check(
    program: Program,
    first: Batch,
    pieces: Callable[[], Iterator[Batch]],
    rows: Tensor | None,
) -> None:
    """Check a program on the first data points, and all of them, some at a time."""
    check_structure(program, first)
    batch = first.rows(slice(2)).to(device_of(program), dtype_of(program))
    with evaluation_mode(program, seed=0), pyro.validation_enabled(True):
        # The support may depend on parameters of each data point: those of one broadcast over all.
        model = _trace(program, batch)[1]
        single = _trace(program, batch.rows(slice(1)))[1]
        drawn = {site: n["fn"].sample() for site, n in _samples(single).items() if site in batch}
    for site, inside in drawn.items():
        likelihood = single.nodes[site]["fn"]
        check_support(site, likelihood, inside, batch[site], pieces(), rows)
    if LABELS not in _samples(single):
        check_labels(type(program).__name__, pieces(), rows)
    model.compute_log_prob()
    for site, node in _samples(model).items():
        if not node["log_prob"].isfinite().all():
            raise InputError(
                type(program).__name__,
                f"has a log p at site {site!r} that is not finite on the first data",
                "rescale the data",
            )


def check_structure(program: Program, data: Tensor | Mapping[str, Tensor]) -> Batch:
    """Refuse a program that does not conform, whatever the values of the data.

    Arguments:
        program: The program; see :class:`Program`.
        data: ``x`` of shape (N, *data_shape), or a batch of ``x`` and covariates.

    Returns:
        The data as a batch.

    Raises:
        InputError: In one line that names the site, plate, parameter or covariate.
    """
    everything = check_batch(program, data)
    name = type(program).__name__
    for site, parameter in program.named_parameters():
        if not parameter.isfinite().all():
            raise InputError(
                name,
                f"has a parameter {site!r} that holds NaN or infinity: its fit diverged",
                "fit again at a lower learning rate",
            )
    few = everything.rows(slice(SUPPORT_DRAWS)).to(device_of(program), dtype_of(program))
    batch = few.rows(slice(2))
    check_shapes(program, batch)
    with evaluation_mode(program, seed=0), pyro.validation_enabled(True):
        _check_guide_support(name, program, few)
        guide, model = _trace(program, batch)
        _check_sites(name, guide, model, batch)
        for site, node in [*_samples(guide).items(), *_samples(model).items()]:
            _check_plate(name, site, node, batch.size)
        _check_parameters(name, program, guide, model)
        _check_draws(name, program, batch)
    return everything


def _trace(program: Program, batch: Batch) -> tuple[Any, Any]:
    with user_code_errors(program, batch.x.shape[1:]):
        guide = batch.call(poutine.trace(program.guide).get_trace)
        model = batch.call(poutine.trace(poutine.replay(program.model, trace=guide)).get_trace)
    return guide, model


def _samples(trace: Any) -> dict[str, Any]:
    """The random sites; neither subsampling nor pyro.deterministic is one."""
    return {name: node for name, node in trace.nodes.items() if is_random(node)}


class _PriorsSupport(Messenger):
    """Compare the guide's draws with the prior's support, as the model meets them.

    Before the model goes on with them, for what fails then blames its own parameters.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["is_observed"] or site_is_subsample(msg):
            return
        support, value = msg["fn"].support, msg["value"]
        if not (inside := support.check(value)).all():
            raise InputError(
                f"{self.name}.guide",
                f"draws {value[~inside][0].tolist()} at site {msg['name']!r}, outside the prior's "
                f"support, {support}",
                "give the guide the same support",
            )


def check_shapes(program: Program, data: Batch) -> None:
    """Compare the shapes of observed data with those that the model has for them.

    The model is asked alone, since what else goes wrong with such data depends on its networks: an
    encoder may flatten them, and a likelihood broadcast them.

    Raises:
        InputError: Naming both shapes.
    """
    try:
        batch = data.rows(slice(2)).to(device_of(program), dtype_of(program))
        with evaluation_mode(program, seed=0), pyro.validation_enabled(True):
            sites = _samples(batch.call(poutine.trace(program.model).get_trace))
    except Exception:  # whatever is wrong is found, and named, by other checks
        return
    for site, node in sites.items():
        in_plate = tuple(node["fn"].batch_shape) == (batch.size,)
        if node["is_observed"] and site in batch and in_plate:
            refuse_other_shape(program, site, node["value"].shape[1:], node["fn"].event_shape)


def refuse_other_shape(
    program: Program, site: str, given: Sequence[int], expected: Sequence[int]
) -> None:
    """Refuse data of a site whose shape is not the model's, nor one that it broadcasts to.

    Arguments:
        program: The program.
        site: The name of the site.
        given, expected: Shapes of one data point.

    Raises:
        InputError: Naming both, and how to get from one to the other.
    """
    if len(given) == len(expected) and all(
        size in (1, wanted) for size, wanted in zip(expected, given, strict=True)
    ):
        return
    remedy = "give data like those that it was made for"
    if len(given) == 3 and (given[2], *given[:2]) == tuple(expected):
        remedy = f"put channels first: {site}.permute(0, 3, 1, 2)"
    elif math.prod(given) == math.prod(expected):
        remedy = f"bring them to that shape: {site}.reshape(-1, {', '.join(map(str, expected))})"
    found, wanted = (f"({', '.join(['N', *map(str, shape)])})" for shape in (given, expected))
    raise InputError(type(program).__name__, f"takes {site} of shape {wanted}, not {found}", remedy)


def _check_guide_support(name: str, program: Program, batch: Batch) -> None:
    try:
        guide = batch.call(poutine.trace(program.guide).get_trace)
        with _PriorsSupport(name):
            batch.call(poutine.replay(program.model, trace=guide))
    except InputError:
        raise
    except Exception:  # whatever is wrong is found, and named, by the checks that follow
        return


def _check_sites(name: str, guide: Any, model: Any, batch: Batch) -> None:
    observed = [site for site, node in _samples(model).items() if node["is_observed"]]
    if OBSERVED not in observed:
        raise InputError(
            f"{name}.model",
            f"observes {', '.join(observed) or 'nothing'}, not its argument {OBSERVED}",
            f"observe it at a site pyro.sample({OBSERVED!r}, ..., obs={OBSERVED})",
        )
    for site in observed:
        if site not in batch:
            raise InputError(
                f"{name}.model",
                f"observes a site {site!r} that is not in the data",
                "name observed sites as the arguments that they observe",
            )
    latent = _samples(model).keys() - observed
    if not latent:
        raise InputError(
            f"{name}.model", "has no latent site, so there is no posterior to fit", "sample z in it"
        )
    if shared := latent & batch.keys():
        raise InputError(
            f"{name}.model",
            f"has a latent site {min(shared)!r} named as an argument",
            "observe the argument there, or rename one of the two",
        )
    auxiliary = {s for s, n in _samples(guide).items() if n["infer"].get("is_auxiliary")}
    if stray := latent ^ (_samples(guide).keys() - auxiliary):
        raise InputError(
            name,
            f"has a site {min(stray)!r} only in the {'model' if min(stray) in latent else 'guide'}",
            "give both the same latent sites",
        )


def _check_plate(name: str, site: str, node: Any, size: int) -> None:
    plates = {frame.name: (frame.dim, frame.size) for frame in node["cond_indep_stack"]}
    if plates.get(DATA_PLATE) != (-1, size):
        raise InputError(
            name,
            f"has a site {site!r} outside the plate {DATA_PLATE!r} at dim -1 over the batch",
            f"wrap it in `with pyro.plate({DATA_PLATE!r}, len(x)):`",
        )
    batch_shape = node["fn"].batch_shape
    if (batch_shape and batch_shape[-1] != size) or len(batch_shape) > 1:
        raise InputError(
            name,
            f"has batch shape {tuple(batch_shape)} at site {site!r}, not ({size},)",
            "declare the dimensions of one data point with .to_event()",
        )


def _check_draws(name: str, program: Program, batch: Batch) -> None:
    shape = (3, batch.size)
    try:
        with pyro.plate("_draws", shape[0], dim=-2):
            traces = _trace(program, batch)
        nodes = [node for trace in traces for node in _samples(trace).values()]
        broadcasts = all(len(node["fn"].batch_shape) <= 2 for node in nodes) and all(
            torch.broadcast_shapes(node["fn"].batch_shape, shape) == shape for node in nodes
        )
        reason = "a site has another batch shape"
    except (InputError, RuntimeError) as error:
        broadcasts, reason = False, first_line(error)
    if not broadcasts:
        raise InputError(
            name,
            "does not run under a plate of draws around it, where latents have batch shape "
            f"(draws, data) ({reason})",
            "let networks act on the last dimensions",
        )


def _check_parameters(name: str, program: Program, guide: Any, model: Any) -> None:
    # A parameter is known by its memory: Pyro may hold it under another name.
    used = {
        node["value"].unconstrained().data_ptr(): site
        for trace in (guide, model)
        for site, node in trace.nodes.items()
        if node["type"] == "param"
    }
    owned = {p.data_ptr(): site for site, p in program.named_parameters() if p.requires_grad}
    if not owned:
        raise InputError(
            name, "has frozen parameters only", "set requires_grad=True for those to be trained"
        )
    for site, parameter in program.named_parameters():
        if not parameter.is_contiguous():
            raise InputError(
                name,
                f"has a parameter {site!r} that is not contiguous: Pyro would train a copy of it",
                "make it of tensor.contiguous()",
            )
    if unseen := [site for memory, site in owned.items() if memory not in used]:
        raise InputError(
            name,
            f"has a parameter {unseen[0]!r} that Pyro never sees, so that SVI would not train it",
            "call pyro.module(..., self) in model and guide",
        )
    if foreign := [site for memory, site in used.items() if memory not in owned]:
        raise InputError(
            name,
            f"uses a parameter {foreign[0]!r} that is not the module's, and would not be saved",
            "assign it in __init__ as an nn.Parameter",
        )
