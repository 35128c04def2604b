"""Work on a GPU, recorded as a CUDA graph: one launch for all of its kernels."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree


class CUDAGraphCallable:
    """Work that has run before, to be replayed on other inputs.

    Recording runs nothing. What the work reads beside its inputs, such as parameters, it reads
    where it lies, at each replay; what it draws, it draws from torch's generator.

    Arguments:
        work: Takes a list of tensors, launches kernels, and returns a tree of tensors. It must not
            wait for the GPU.
        inputs: Tensors of the shapes that it will be replayed on, all on one GPU.
    """

    def __init__(self, work: Callable[[list[Tensor]], Any], inputs: Sequence[Tensor]) -> None:
        self._inputs = [tensor.clone() for tensor in inputs]
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._results = work(self._inputs)

    def __call__(self, inputs: Sequence[Tensor]) -> Any:
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        self._graph.replay()
        # The next replay writes where these results lie.
        return pytree.tree_map_only(Tensor, torch.clone, self._results)
