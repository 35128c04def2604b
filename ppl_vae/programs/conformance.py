"""What a program is, and the check that one conforms."""

from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn

from ..errors import InputError, first_line, user_code_errors
from .protocol import (
    DATA_PLATE,
    OBSERVED,
    Program,
    device_of,
    dtype_of,
    evaluation_mode,
    is_random,
)

SUPPORT_DRAWS = 64  # of the guide, held against the prior's support
SUPPORT_BLOCK = 4096  # data held against the support at once


def check_program(program: Program, x: Tensor, rows: Tensor | None = None) -> None:
    """Refuse a program that does not conform, or data that its likelihood does not support.

    Model and guide run on one datum and on two, by themselves and inside a plate of draws; then
    every datum is held against the support of the likelihood.

    Arguments:
        program: The program; see :class:`Program`.
        x: Data of shape (N, *data_shape), of any floating-point type.
        rows: What messages call each datum, of shape (N,); by default its index.

    Raises:
        InputError: In one line that names the site, plate, parameter or datum.

    Example:
        >>> from ppl_vae.models import VAE
        >>> check_program(VAE((3,)), torch.tensor([[0.0, 1.0, 0.5]]))
        Traceback (most recent call last):
        ppl_vae.errors.InputError: datum 0: 0.5 lies outside the support of the Bernoulli ...
    """
    check_structure(program, x)
    batch = x[:2].to(device_of(program), dtype_of(program))
    with evaluation_mode(program, seed=0), pyro.validation_enabled(True):
        # The support may depend on parameters of each datum: those of one broadcast over all.
        model = _trace(program, batch)[1]
        likelihood = _trace(program, batch[:1])[1].nodes[OBSERVED]["fn"]
    _check_support(likelihood, x.to(batch.dtype), batch.device, rows)
    model.compute_log_prob()
    for site, node in _samples(model).items():
        if not node["log_prob"].isfinite().all():
            name = type(program).__name__
            raise InputError(
                f"{name}: log p at site {site!r} is not finite on the first data: rescale the data"
            )


def require_program(program: Any) -> None:
    """Refuse what is no program at all.

    Raises:
        InputError: Naming its class.
    """
    name = type(program).__name__
    if not isinstance(program, nn.Module) or not isinstance(program, Program):
        raise InputError(f"{name} is no program: it must be an nn.Module with model and guide")
    if next(program.parameters(), None) is None:
        raise InputError(f"{name} has no parameters: assign its networks in __init__")


def require_data(x: Any) -> None:
    """Refuse what is no batch of data, whatever its values.

    Raises:
        InputError: Saying what it is instead.
    """
    if not isinstance(x, Tensor):
        given = type(x).__name__
        raise InputError(f"data must be a tensor, such as DataSet.fixed gives, not {given}")
    if x.layout != torch.strided or x.is_meta:
        raise InputError("the tensor of data is sparse, or without values: make it dense")
    if x.is_complex():
        raise InputError(f"data are of type {x.dtype}, but must be real numbers")
    if x.dim() < 2 or not x.numel():
        raise InputError(
            f"data of shape {tuple(x.shape)} are empty, or no batch: expected (N, *data_shape)"
        )


def check_structure(program: Program, x: Tensor) -> None:
    """Refuse a program that does not conform, whatever the values of the data.

    Arguments:
        program: The program; see :class:`Program`.
        x: Data of shape (N, *data_shape).

    Raises:
        InputError: In one line that names the site, plate or parameter.
    """
    name = type(program).__name__
    require_program(program)
    require_data(x)
    for site, parameter in program.named_parameters():
        if not parameter.isfinite().all():
            raise InputError(
                f"{name}: parameter {site!r} holds NaN or infinity: its fit diverged; fit again at "
                "a lower learning rate"
            )
    batch = x[:2].to(device_of(program), dtype_of(program))
    with evaluation_mode(program, seed=0), pyro.validation_enabled(True):
        _check_guide_support(name, program, x[:SUPPORT_DRAWS].to(batch))
        guide, model = _trace(program, batch)
        _check_sites(name, guide, model, len(batch))
        _check_parameters(name, program, guide, model)
        _check_draws(name, program, batch)


def _trace(program: Program, batch: Tensor) -> tuple[Any, Any]:
    with user_code_errors(program, batch.shape[1:]):
        guide = poutine.trace(program.guide).get_trace(batch)
        model = poutine.trace(poutine.replay(program.model, trace=guide)).get_trace(batch)
    return guide, model


def _samples(trace: Any) -> dict[str, Any]:
    """The random sites; neither subsampling nor pyro.deterministic is one."""
    return {name: node for name, node in trace.nodes.items() if is_random(node)}


class _PriorsSupport(Messenger):
    """Hold the guide's draws against the prior's support, as the model meets them.

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
                f"{self.name}.guide draws {value[~inside][0].tolist()} at site {msg['name']!r}, "
                f"outside the prior's support, {support}: give the guide the same support"
            )


def _check_guide_support(name: str, program: Program, batch: Tensor) -> None:
    try:
        guide = poutine.trace(program.guide).get_trace(batch)
        with _PriorsSupport(name):
            poutine.replay(program.model, trace=guide)(batch)
    except InputError:
        raise
    except Exception:  # whatever is wrong is found, and named, by the checks that follow
        return


def _check_sites(name: str, guide: Any, model: Any, size: int) -> None:
    observed = [site for site, node in _samples(model).items() if node["is_observed"]]
    if observed != [OBSERVED]:
        raise InputError(
            f"{name}.model observes {observed or 'nothing'}: it must observe its argument at one "
            f"site, pyro.sample({OBSERVED!r}, ..., obs=x)"
        )
    latent = set(_samples(model)) - {OBSERVED}
    if not latent:
        raise InputError(f"{name}.model has no latent site: there is no posterior to fit")
    auxiliary = {s for s, n in _samples(guide).items() if n["infer"].get("is_auxiliary")}
    if stray := latent ^ (set(_samples(guide)) - auxiliary):
        raise InputError(
            f"{name}: site {min(stray)!r} is only in the "
            f"{'model' if min(stray) in latent else 'guide'}: both need the same latent sites"
        )
    for site, node in [*_samples(guide).items(), *_samples(model).items()]:
        plates = {frame.name: (frame.dim, frame.size) for frame in node["cond_indep_stack"]}
        if plates.get(DATA_PLATE) != (-1, size):
            raise InputError(
                f"{name}: site {site!r} is not in a plate {DATA_PLATE!r} at dim -1 over the batch: "
                f"wrap it in `with pyro.plate({DATA_PLATE!r}, len(x)):`"
            )
        batch_shape = node["fn"].batch_shape
        if (batch_shape and batch_shape[-1] != size) or len(batch_shape) > 1:
            raise InputError(
                f"{name}: site {site!r} has batch shape {tuple(batch_shape)}, not ({size},): "
                "declare the dimensions of one datum with .to_event()"
            )


def _check_draws(name: str, program: Program, batch: Tensor) -> None:
    shape = (3, len(batch))
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
            f"{name} does not run under a plate of draws around it, where latents have batch shape "
            f"(draws, data): let networks act on the last dimensions ({reason})"
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
        raise InputError(f"{name}: every parameter is frozen (requires_grad=False)")
    for site, parameter in program.named_parameters():
        if not parameter.is_contiguous():
            raise InputError(
                f"{name}: parameter {site!r} is not contiguous, so Pyro would train a copy of it: "
                "make it of tensor.contiguous()"
            )
    if unseen := [site for memory, site in owned.items() if memory not in used]:
        raise InputError(
            f"{name}: Pyro never sees parameter {unseen[0]!r}, so SVI would not "
            "train it: call pyro.module(..., self) in model and guide"
        )
    if foreign := [site for memory, site in used.items() if memory not in owned]:
        raise InputError(
            f"{name}: parameter {foreign[0]!r} does not belong to the module, so it would "
            "not be saved: assign it in __init__ as an nn.Parameter"
        )


def _name(index: int, rows: Tensor | None) -> int:
    return index if rows is None else int(rows[index])


def _check_support(likelihood: Any, x: Tensor, device: torch.device, rows: Tensor | None) -> None:
    for start in range(0, len(x), SUPPORT_BLOCK):
        block = x[start : start + SUPPORT_BLOCK].to(device)
        if (infinite := block.flatten(1).isinf().any(1)).any():
            datum = _name(start + int(infinite.nonzero()[0]), rows)
            raise InputError(
                f"datum {datum} is infinite, or beyond {x.dtype}: remove or rescale it"
            )
        inside = likelihood.support.check(block)
        if inside.all():
            continue
        culprit = int((~inside).nonzero()[0, 0])
        datum = _name(start + culprit, rows)
        try:
            likelihood.log_prob(block[culprit])
        except ValueError as error:
            raise InputError(f"datum {datum}: {first_line(error)}") from None
        raise InputError(
            f"datum {datum} lies outside {likelihood.support}, the likelihood's support: rescale "
            "the data, or choose another likelihood"
        )
