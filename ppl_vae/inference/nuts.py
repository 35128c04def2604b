"""Inference without the guide: Pyro's NUTS on all data points at once."""

import torch
from pyro.infer import MCMC, NUTS
from torch import Tensor

from ..errors import check_type
from ..programs.posterior import Posterior
from ..programs.sites import Latents
from ..programs.unconstrained import State, Unconstrained
from ..progress import Progress
from .own_family import frozen

# Draws for R-hat below 1.01 of every unit of every datum, where chains mix (Vehtari et al. 2021).
CHAINS, WARMUP, DRAWS, TREE_DEPTH = 4, 250, 500, 6


def sample_posterior(
    posterior: Posterior, seed: int = 0, progress: Progress | None = None
) -> Latents:
    r"""Draw from p(z | x) by Pyro's NUTS (Hoffman & Gelman 2014), all data and chains side by side.

    The posteriors of N data points are one posterior of N independent blocks, and so are several
    chains of each. One run of NUTS, with a diagonal mass matrix that is adapted to every coordinate
    of every block, moves all of them for hardly more than the cost of one. Chains start at draws
    from the prior.

    Arguments:
        posterior: The posterior of N data points.
        seed: Seed of the chains.
        progress: Told of the share of the work that has been done.

    Returns:
        Draws by site, each of shape (S draws, C chains, N, \*event shape), on the program's device.

    Raises:
        InputError: If a latent site is discrete, or its support cannot be mapped to real numbers.

    Example:
        >>> from ppl_vae.models import LinearGaussian
        >>> ppca, x = LinearGaussian((5,)), torch.randn(3, 5, dtype=torch.float64)
        >>> sample_posterior(Posterior(ppca, x), seed=0)["z"].shape
        torch.Size([500, 4, 3, 2])
    """
    check_type("posterior", posterior, Posterior)
    counted = (progress or Progress()).part(1.0, total=WARMUP + DRAWS)
    coordinates = Unconstrained(posterior)

    def potential(state: State) -> Tensor:
        return -coordinates.densities(state)[1].sum()

    with posterior.evaluation_mode(seed), frozen(posterior.program):
        start = coordinates.draw(CHAINS, "prior")
        with torch.enable_grad():
            chains = MCMC(
                NUTS(potential_fn=potential, max_tree_depth=TREE_DEPTH),
                num_samples=DRAWS,
                warmup_steps=WARMUP,
                initial_params=start,
                disable_progbar=True,
                hook_fn=lambda *_: counted.advance(1),
            )
            chains.run()
        return coordinates.latents(chains.get_samples())
