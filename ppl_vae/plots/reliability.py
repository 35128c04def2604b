"""How far the confidence of a classifier can be relied on."""

from collections.abc import Mapping

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..evidence.classification import reliability


def reliability_diagram(classified: Mapping[str, tuple[Tensor, Tensor]]) -> Figure:
    """Accuracy over confidence, in bins of as many data each (DeGroot & Fienberg 1983).

    Bars are two standard errors of the accuracy: (1 + correct) / (2 + size) is used in them, so
    that a bin without errors has a bar too.

    Arguments:
        classified: Probabilities of shape (N, K) and classes of shape (N,), by what they are.
    """
    figure = Figure(figsize=(5, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, label="calibrated")
    lowest = 1.0
    for place, (name, (probabilities, labels)) in enumerate(classified.items()):
        confidence, guess = probabilities.max(-1)
        told, found, sizes = reliability(confidence, (guess == labels).double())
        share = (1 + found * sizes) / (2 + sizes)
        error = 2 * (share * (1 - share) / sizes).sqrt()
        mark = "os"[place % 2]
        x, y, bar = told.numpy(), found.numpy(), error.numpy()
        axes.errorbar(x, y, yerr=bar, fmt=mark, markersize=4, capsize=2, label=name)
        lowest = min(lowest, float(torch.cat([told, found - error]).min()))
    span = (max(0.0, lowest - 0.02), 1.02)
    axes.set(xlim=span, ylim=span, xlabel="confidence: largest q(y|x)", ylabel="accuracy")
    axes.legend(loc="upper left", fontsize=8)
    return figure
