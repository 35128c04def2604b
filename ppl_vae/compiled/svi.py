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
from .subsamples import Rows, note_rows, rows_apart


class _Shown:
    """An attribute to read, which a subclass or the user may replace by one of theirs."""

    def __init__(self, read: Callable[[Any], Any]) -> None:
        self._read = read

    def __get__(self, svi: Any, kind: type) -> Any:
        return self if svi is None else self._read(svi)


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
        gradients: The engine of steps, a :class:`Compiled`.
        losses: That of :meth:`evaluate_loss`.
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
        self.__engine: Engine = engine
        self.__prepare()

    def __prepare(self) -> None:
        # Names of its own: those without underscores may be a subclass's, or set by the user.
        owners, name = _modules(self.model, self.guide), _name(self.model)
        self.__gradients = Compiled(self.__loss_and_gradients, self.__engine, owners, name)
        self.__losses = Compiled(self.__loss, self.__engine, owners, name)
        self.__joint = FusedOptimizer(self.optim)
        self.__gradients.on_result = self.__descend
        self.__gradients.recordable = lambda: self.__joint.recordable(self.__moved)
        self.__moved: list[Tensor] = []

    def __getstate__(self) -> dict[str, Any]:
        """What a copy needs, which makes graphs of its own."""
        own = [f"_CompiledSVI__{name}" for name in ("gradients", "losses", "joint", "moved")]
        return {name: value for name, value in vars(self).items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.__prepare()

    gradients = _Shown(lambda svi: svi.__gradients)
    losses = _Shown(lambda svi: svi.__losses)
    parameters = _Shown(lambda svi: svi.__moved)

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Take a gradient step on the loss; arguments are those of model and guide.

        Returns:
            An estimate of the loss in nats, summed over the batch, as a float; or a tuple of
            floats, for a loss that returns one.
        """
        return _as_floats(CompiledSVI.update(self, *args, **kwargs))

    def update(self, *args: Any, **kwargs: Any) -> Any:
        """As :meth:`step`, but the loss may be a tensor, so that nobody waits for a GPU."""
        if self.__joint.optim is not self.optim:
            self.__joint = FusedOptimizer(self.optim)
        return self.__gradients(*args, **kwargs)[0]

    def evaluate_loss(self, *args: Any, **kwargs: Any) -> Any:
        """Estimate the loss as :meth:`step` does, and change nothing."""
        with torch.no_grad():
            return _as_floats(self.__losses(*args, **kwargs))

    def __loss_and_gradients(self, *args: Any, **kwargs: Any) -> "tuple[Any, Parameters, Rows]":
        """The loss, the parameters used, and their rows; gradients are left in ``.grad``."""
        with rows_apart() as rows, poutine.trace(param_only=True) as found:
            loss = self.loss_and_grads(self.model, self.guide, *args, **kwargs)
            sites: Any = found.trace.nodes.values()
            parameters = Parameters(site["value"].unconstrained() for site in sites)
            return loss, parameters, rows(parameters.tensors)

    def __descend(self, results: "tuple[Any, Parameters, Rows]") -> None:
        """Step along the gradients."""
        self.__moved = results[1].tensors
        note_rows(self.__moved, results[2])
        self.__joint.step(self.__moved)
        zero_gradients(self.__moved)

    def __loss(self, *args: Any, **kwargs: Any) -> Any:
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
