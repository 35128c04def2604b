r"""Priors of a latent vector.

Each is a module ``prior`` that is called as ``prior(encode)``, where ``encode(x)`` is the guide's
distribution q(z \| x), and gives a Pyro distribution over vectors of length L.

>>> PRIORS["mixture"](latent_dim=2)(encode=None).event_shape
torch.Size([2])
"""

from torch import nn

from .flow import FlowPrior
from .mixture import MixturePrior
from .standard import Standard
from .vamp import Vamp

PRIORS: dict[str, type[nn.Module]] = {
    "standard": Standard,
    "mixture": MixturePrior,
    "vamp": Vamp,
    "flow": FlowPrior,
}
"""The registry of priors by name. A new one is one file and one line here."""

__all__ = ["PRIORS", "FlowPrior", "MixturePrior", "Standard", "Vamp"]
