"""``pyro.infer.SVI`` at the hardware's speed: model and guide run through Pyro once."""

from collections.abc import Callable, Iterable
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer.util import torch_item
from pyro.optim import PyroOptim
from pyro.util import warn_if_nan
from torch import Tensor, nn

from ..choices import Engine
from .engine import Compiled
from .fused import FusedOptimizer
from .leaf_gradients import zero_gradients


class CompiledSVI(pyro.infer.SVI):
    """A drop-in for :class:`pyro.infer.SVI` that leaves Pyro out of all steps but a few.

    The first step runs model and guide through Pyro, which makes the parameters. Where it is worth
    it, a later one is captured whole, loss and gradients as one graph, which is compiled and run
    from then on, on the draws that Pyro would have made. :class:`~ppl_vae.compiled.engine.Compiled`
    says when, how graphs are compared with Pyro, and what runs eagerly instead, with a warning.

    Whatever the program does, each step is one of ``pyro.infer.SVI`` on the same draws, but for
    rounding: what the graph takes for granted of Python's state is compared at each step, and the
    program runs eagerly where it has changed. What changes from step to step is best an argument,
    or a tensor that is changed in place. Graphs validate nothing: the first step does.

    Arguments:
        model: As in :class:`pyro.infer.SVI`.
        guide: As in :class:`pyro.infer.SVI`.
        optim: As in :class:`pyro.infer.SVI`.
        loss: As in :class:`pyro.infer.SVI`: ``Trace_ELBO()``, another of Pyro's estimators,
            :class:`ppl_vae.PathwiseELBO`, or a function.
        loss_and_grads: As in :class:`pyro.infer.SVI`.
        num_samples, num_steps, kwargs: As in :class:`pyro.infer.SVI`, where they are deprecated.
        engine: ``"auto"``, ``"compiled"`` or ``"eager"``; see :class:`Compiled`.

    Raises:
        InputError: If there is no such engine.
        ValueError: If ``optim`` is not one of Pyro's optimizers.

    Example:
        >>> from ppl_vae.models import VAE
        >>> vae, x = VAE((5,), latent_dim=2, hidden=(8,)), torch.ones(7, 5)
        >>> optim, loss = pyro.optim.Adam({"lr": 0.01}), pyro.infer.Trace_ELBO()
        >>> svi = CompiledSVI(vae.model, vae.guide, optim, loss, engine="compiled")
        >>> losses = [svi.step(x) for _ in range(50)]  # nats, summed over the batch
        >>> losses[-1] < losses[0], svi.gradients.graphs
        (True, 1)

    Attributes:
        parameters: Those that the last step moved, unconstrained, as Pyro's store has them.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        optim: PyroOptim,
        loss: Any,
        loss_and_grads: Callable[..., Any] | None = None,
        num_samples: int = 0,
        num_steps: int = 0,
        *,
        engine: Engine = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            model, guide, optim, loss, loss_and_grads, num_samples, num_steps, **kwargs
        )
        owners = _modules(model, guide)
        self.gradients = Compiled(self._gradients, engine, owners, _name(model))
        self.losses = Compiled(self._loss, engine, owners, _name(model))
        self._joint = FusedOptimizer(optim)
        self.gradients.on_result = self._descend
        self.gradients.recordable = lambda: self._joint.recordable(self.parameters)
        self.parameters: list[Tensor] = []

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Take a gradient step on the loss; arguments are those of model and guide.

        Returns:
            An estimate of the loss in nats, summed over the batch, as a float; or a tuple of
            floats, for a loss that returns one.
        """
        return _as_floats(self.update(*args, **kwargs))

    def update(self, *args: Any, **kwargs: Any) -> Any:
        """As :meth:`step`, but the loss may be a tensor, so that nobody waits for a GPU."""
        if self._joint.optim is not self.optim:
            self._joint = FusedOptimizer(self.optim)
        loss, _ = self.gradients(*args, **kwargs)
        return loss

    def evaluate_loss(self, *args: Any, **kwargs: Any) -> Any:
        """Estimate the loss as :meth:`step` does, and change nothing."""
        with torch.no_grad():
            return _as_floats(self.losses(*args, **kwargs))

    def _gradients(self, *args: Any, **kwargs: Any) -> "tuple[Any, Parameters]":
        """The loss, and the parameters that the program used; gradients are left in ``.grad``."""
        with poutine.trace(param_only=True) as found:
            loss = self.loss_and_grads(self.model, self.guide, *args, **kwargs)
        sites: Any = found.trace.nodes.values()
        return loss, Parameters(site["value"].unconstrained() for site in sites)

    def _descend(self, results: "tuple[Any, Parameters]") -> None:
        """Step along the gradients."""
        self.parameters = results[1].tensors
        self._joint.step(self.parameters)
        zero_gradients(self.parameters)

    def _loss(self, *args: Any, **kwargs: Any) -> Any:
        return self.loss(self.model, self.guide, *args, **kwargs)


class Parameters:
    """Parameters of a step, each once, whatever names it has."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self.tensors = list({id(tensor): tensor for tensor in tensors}.values())

    def __eq__(self, other: object) -> bool:
        mine = list(map(id, self.tensors))
        return isinstance(other, Parameters) and mine == list(map(id, other.tensors))


def _as_floats(loss: Any) -> Any:
    if isinstance(loss, tuple):
        return type(loss)(map(torch_item, loss))
    value = torch_item(loss)
    warn_if_nan(value, "loss")
    return value


def _modules(*functions: Any) -> list[nn.Module]:
    owners = [getattr(function, "__self__", function) for function in functions]
    return list({id(o): o for o in owners if isinstance(o, nn.Module)}.values())


def _name(model: Any) -> str:
    owner = getattr(model, "__self__", model)
    return getattr(owner, "__name__", type(owner).__name__)
