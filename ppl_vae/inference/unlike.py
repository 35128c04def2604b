"""log p(x) of data points beside that of data which are known to be of the right kind."""

import numpy as np

from ..choices import Target
from ..programs.posterior import Posterior
from ..progress import Progress
from ..runtime import derived_seed
from .codes import Codes
from .infer import infer_blocks

RARE = 0.02  # one in a hundred on either side
FEWEST = round(2 / RARE) - 1  # known data with which a p-value can be that low


def score_rows(
    posterior: Posterior, known: Posterior, target: Target, seed: int, progress: Progress
) -> dict[str, np.ndarray]:
    r"""Score data points, and tell how many of the known data have as extreme a log p(x).

    With r of the m known data as low as a data point or lower, and s as high or higher, its
    two-sided p-value is

    .. math:: 2\, \frac{1 + \min(r, s)}{1 + m}

    at most 1. If it is of their kind, a p-value of at most :math:`\alpha` has at most the
    probability :math:`\alpha` (conformal; Vovk et al. 2005). With fewer than 99 known data none can
    be as low as 0.02. Both sides count: data that are
    simpler than the training data may have a higher log p(x) (Nalisnick et al. 2019).

    Arguments:
        posterior: The posterior of N data points.
        known: That of m data points of the kind that the program was fitted to, which the fit has
            not seen.
        target: How far inference goes; see :func:`ppl_vae.infer`.
        seed: Seed of everything random.
        progress: Told of the share of the work that has been done.

    Returns:
        Columns of N values each: ``row``, ``log_evidence`` in nats and its error, ``certified``,
        ``p_value``, and ``unlike``, whether that is at most 0.02.

    Example:
        >>> import torch
        >>> from ppl_vae.models import LinearGaussian
        >>> ppca, x = LinearGaussian((5,)), torch.randn(300, 5, dtype=torch.float64)
        >>> ppca.set_exact_guide()
        >>> strange = Posterior(ppca, torch.full((1, 5), 9.0, dtype=torch.float64))
        >>> scores = score_rows(strange, Posterior(ppca, x), "guide", 0, Progress())
        >>> bool(scores["unlike"][0])
        True
    """
    size = len(posterior) + len(known)
    found, reference = (
        Codes.joined(
            list(
                infer_blocks(of, 1, target, derived_seed(seed, what), progress.part(len(of) / size))
            )
        )
        for of, what in ((posterior, "scored"), (known, "known"))
    )
    log_p = found.log_evidence.numpy()
    ordered, m = np.sort(reference.log_evidence.numpy()), len(known)
    lower = np.searchsorted(ordered, log_p, side="right")
    higher = m - np.searchsorted(ordered, log_p, side="left")
    p_value = np.minimum(2 * (1 + np.minimum(lower, higher)) / (1 + m), 1.0)
    return {
        "row": posterior.rows.numpy(),
        "log_evidence": log_p,
        "log_evidence_error": found.log_evidence_error.numpy(),
        "certified": found.certified.numpy(),
        "p_value": p_value,
        "unlike": p_value <= RARE,
    }
