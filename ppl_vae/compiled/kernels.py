"""What a graph does on a processor, by faster kernels of the same accuracy."""

import logging
import platform
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
import torch._inductor
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from .disk_cache import kept

aten = torch.ops.aten
# Operations of the longest graph that is compiled, which takes some 40 ms for each. Longer ones, of
# loops in Python, run operation by operation, but without Pyro.
LONGEST = 1000


def compile_graph(graph: fx.GraphModule, inputs: Sequence[Tensor]) -> Callable[..., Any]:
    """Compile a graph; it draws from the same random stream as before.

    On a processor it takes matrix products from oneDNN, which on some is twice as fast as the
    library that ``torch.mm`` calls, and logarithms in softplus and its kin from a series, a tenth
    of the time of ``log1p``. A graph of more than ``LONGEST`` operations is left as it is. The
    next process finds what was compiled; see ``ppl_vae.compiled.disk_cache``.

    Arguments:
        graph: What :func:`ppl_vae.compiled.capture.capture` recorded.
        inputs: Tensors of the shapes that it will be called with. It runs on them once.

    Example:
        >>> from ppl_vae.compiled.capture import capture
        >>> found = capture(lambda x: torch.nn.functional.softplus(x).sum(), torch.ones(3))
        >>> compiled = compile_graph(found.graph, [torch.ones(3)])
        >>> round(compiled(torch.ones(3))[0].item(), 4)
        3.9398
    """
    if len(graph.graph.nodes) > LONGEST:
        return step_by_step(graph, inputs)
    with _quiet():
        if all(tensor.device.type == "cpu" for tensor in inputs):
            table = {**_SERIES, **(_PRODUCTS if _one_dnn() else {})}
            trace = make_fx(graph, table, tracing_mode="fake", _allow_non_fake_inputs=True)
            graph = trace(*(tensor.detach() for tensor in inputs))
        with torch.no_grad():
            flat: list[Any] = [tensor.detach() for tensor in inputs]
            with kept() as settings:
                compiled = torch._inductor.standalone_compile(
                    graph,
                    flat,
                    dynamic_shapes="from_example_inputs",
                    options={"config_patches": {"fallback_random": True, **settings}},
                )
        run = torch.no_grad()(compiled)
        run(*inputs)
    return run


def step_by_step(graph: fx.GraphModule, inputs: Sequence[Tensor]) -> Callable[..., Any]:
    """Leave a graph as it is: one operation after the other, without Pyro.

    It takes a second to capture a graph, and fifteen to compile it.

    Arguments:
        graph: What :func:`ppl_vae.compiled.capture.capture` recorded.
        inputs: Not used.

    Example:
        >>> from ppl_vae.compiled.capture import capture
        >>> found = capture(lambda x: 2 * x, torch.ones(3))
        >>> step_by_step(found.graph, [])(torch.ones(3))
        [tensor([2., 2., 2.])]
    """
    return torch.no_grad()(graph.forward)  # which the user's hooks on modules do not see


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what torch says of its own insides while it compiles from the user."""
    # Such as that there is no CUDA, or that what was compiled cannot be kept.
    names = ("torch.utils.cpp_extension", "torch._inductor.standalone_compile")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def log1p_of_unit(u: Tensor) -> Tensor:
    r"""log(1 + u) for u in [0, 1], by the series of the inverse hyperbolic tangent.

    .. math:: \log(1 + u) = 2 \operatorname{artanh} s = 2 \sum_k s^{2k+1} / (2k + 1),
        \quad s = u / (2 + u) \le 1/3

    The first term left out is below a quarter of a unit in the last place.

    Example:
        >>> u = torch.linspace(0, 1, 1001, dtype=torch.float64)
        >>> bool(((log1p_of_unit(u) - u.log1p()).abs() <= 4e-16 * u).all())
        True
    """
    s = u / (2 + u)
    square = s * s
    # s^(2k+1) / (2k+1) relative to s, at its largest.
    terms = next(k for k in range(1, 40) if 9.0**-k / (2 * k + 1) < torch.finfo(u.dtype).eps / 4)
    total = torch.full_like(u, 1 / (2 * terms - 1))
    for k in range(terms - 2, -1, -1):
        total = total * square + 1 / (2 * k + 1)
    return 2 * s * total


def _softplus(x: Tensor, beta: float = 1, threshold: float = 20) -> Any:
    if (beta, threshold) != (1, 20) or x.dtype not in (torch.float32, torch.float64):
        return NotImplemented
    return x.clamp(min=0) + log1p_of_unit((-x.abs()).exp())


def _log_sigmoid(x: Tensor) -> Any:
    soft = _softplus(-x)
    return soft if soft is NotImplemented else (-soft, x.new_empty(0))


def _cross_entropy(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    reduction: int = 1,
) -> Any:
    plain = weight is None and pos_weight is None and reduction == 0
    soft = _softplus(-x) if plain else NotImplemented
    return soft if soft is NotImplemented else (1 - target) * x + soft


_SERIES: dict[Any, Callable[..., Any]] = {
    aten.softplus.default: _softplus,
    aten.log_sigmoid_forward.default: _log_sigmoid,
    aten.binary_cross_entropy_with_logits.default: _cross_entropy,
}


@cache
def _one_dnn() -> bool:
    """Whether oneDNN has products to offer; where it does, make them known to torch.

    It runs the widest instructions of any x86 processor, where MKL keeps to narrow ones on those
    of other makers than its own.
    """
    if not torch.backends.mkldnn.is_available() or platform.machine() not in ("x86_64", "AMD64"):
        return False
    for name, kernel, shape in (
        ("product(Tensor a, Tensor b) -> Tensor", _product, lambda a, b: _shaped(a, b)),
        ("affine(Tensor c, Tensor a, Tensor b) -> Tensor", _affine, lambda c, a, b: _shaped(a, b)),
    ):
        _LIBRARY.define(name)
        _LIBRARY.impl(name.partition("(")[0], kernel, "CPU")
        torch.library.register_fake(f"ppl_vae::{name.partition('(')[0]}", shape, lib=_LIBRARY)
    return True


_LIBRARY = torch.library.Library("ppl_vae", "DEF")


def _product(a: Tensor, b: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(a, b.t(), None, "none", [], "")


def _affine(c: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(a, b.t(), c, "none", [], "")


def _shaped(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty(a.shape[0], b.shape[1])


def _suits(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype == torch.float32 and 0 not in (*a.shape, *b.shape)


def _mm(a: Tensor, b: Tensor) -> Any:
    # oneDNN wants the first factor in rows. Written here, a kernel that makes it can do that.
    return torch.ops.ppl_vae.product(a.contiguous(), b) if _suits(a, b) else NotImplemented


def _addmm(c: Tensor, a: Tensor, b: Tensor, beta: float = 1, alpha: float = 1) -> Any:
    if not (beta == alpha == 1 and c.dim() == 1 and len(c) == b.shape[1] and _suits(a, b)):
        return NotImplemented
    return torch.ops.ppl_vae.affine(c.contiguous(), a.contiguous(), b)


_PRODUCTS: dict[Any, Callable[..., Any]] = {aten.mm.default: _mm, aten.addmm.default: _addmm}
