"""The ELBO, its terms, and bounds on log p(x)."""
