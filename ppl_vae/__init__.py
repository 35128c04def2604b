"""Variational autoencoders as Pyro programs, fitted by SVI, their posteriors diagnosed.

>>> import ppl_vae
>>> from ppl_vae.models import VAE
>>> data = ppl_vae.load_data("digits", binarize="dynamic")
>>> vae = VAE(data.shape, latent_dim=2, hidden=(32,))
>>> history = ppl_vae.fit(vae, data, ppl_vae.Settings(epochs=1), progress=False)
>>> estimates = ppl_vae.evaluate(vae, data.fixed("test"))  # in nats per datum
>>> bool(estimates["elbo"].mean < estimates["iw_bound"].mean)
True
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
