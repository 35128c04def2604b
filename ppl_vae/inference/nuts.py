"""Exact inference, the model as it is: Pyro's NUTS on all data points at once."""

import torch
from pyro.infer import MCMC, NUTS
from torch import Tensor

from ..programs.posterior import Posterior
from ..programs.sites import Latents
from ..programs.unconstrained import State, Unconstrained
from ..progress import Progress
from .refine import frozen

CHAINS, WARMUP, DRAWS, TREE_DEPTH = 4, 250, 250, 6


def sample_posterior(posterior: Posterior, seed: int, progress: Progress | None = None) -> Latents:
    r"""Draw from p(z | x) by Pyro's NUTS (Hoffman & Gelman 2014), all data and chains side by side.

    The posteriors of N data points are one posterior of N independent blocks, each with step sizes
    by its own adapted masses; so are the chains of one data point, which start at draws from the
    prior. One run of NUTS moves all of them, for hardly more than the cost of one.

    Arguments:
        posterior: The posterior of N data points.
        seed: Seed of the chains.
        progress: Told of the share of the work that has been done.

    Returns:
        Draws by site, each of shape (draws, chains, N, \*event shape).

    Raises:
        InputError: If a latent site is discrete, or its support cannot be mapped to real numbers.
    """
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
