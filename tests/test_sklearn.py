"""scikit-learn's estimators: its own checks, and that they are what the library computes."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from ppl_vae import Posterior, posterior_predictive
from ppl_vae.sklearn import VAEImputer, VAETransformer

QUICK = {"latent_dim": 1, "hidden": (4,), "epochs": 2, "draws": 5, "random_state": 0}


@parametrize_with_checks([VAETransformer(**QUICK), VAEImputer(**QUICK)])
def test_scikit_learn_s_checks_pass(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def fitted():
    x = load_iris().data
    return VAETransformer(2, epochs=30, random_state=0).fit(x), x


def test_the_transformer_is_the_program(fitted):
    vae, x = fitted
    batch = torch.from_numpy(x)
    means = posterior_predictive(vae.program_, batch).latent_means["z"]
    assert np.array_equal(vae.transform(x), means.numpy())
    weights = Posterior(vae.program_, batch).log_weight(2000, seed=1)
    exact = weights.logsumexp(0) - np.log(2000)
    bound = vae.set_params(draws=2000).score_samples(x)
    error = (weights - exact).exp().std(0) / np.sqrt(2000)
    z = (torch.from_numpy(bound) - exact) / (error * np.sqrt(2))
    assert z.abs().max() < 5  # of 150
    assert vae.score(x) == pytest.approx(bound.mean())


def test_data_in_other_units_give_the_same_fit(fitted):
    vae, x = fitted
    other = VAETransformer(2, epochs=30, random_state=0).fit(1000 * x + 5)
    assert np.allclose(other.transform(1000 * x + 5), vae.transform(x), atol=1e-6)
    assert np.allclose(other.sample(10), 1000 * vae.sample(10) + 5)


def test_a_constant_column_costs_nothing(fitted):
    vae, x = fitted
    constant = np.full((len(x), 1), 0.1)  # of which rounding leaves a deviation of 1e-17
    other = VAETransformer(2, epochs=30, random_state=0).fit(np.hstack([x, constant]))
    assert abs(other.score(np.hstack([x, constant])) - vae.score(x)) < 3
    assert np.allclose(other.sample(5)[:, -1], 0.1, atol=5)


def test_pipelines_searches_and_scores():
    x, y = load_wine(return_X_y=True)
    vae = VAETransformer(4, epochs=100, random_state=0)
    classes = make_pipeline(vae, LogisticRegression())
    assert cross_val_score(classes, x, y, cv=3).mean() > 0.85  # by chance 0.4
    search = GridSearchCV(VAETransformer(epochs=30, random_state=0), {"latent_dim": [1, 3]}, cv=3)
    assert search.fit(x).best_params_ == {"latent_dim": 3}


def test_the_imputer_is_better_than_means():
    x = load_iris().data
    seen = np.random.default_rng(0).random(x.shape) < 0.7
    imputer = VAEImputer(2, epochs=200, random_state=0, objective="iw", particles=10)
    filled = imputer.fit_transform(np.where(seen, x, np.nan))
    assert (filled[seen] == x[seen]).all()
    means = np.nanmean(np.where(seen, x, np.nan), 0)
    off = ((filled - x) / x.std(0))[~seen]
    assert (off**2).mean() < 0.5 * (((means - x) / x.std(0))[~seen] ** 2).mean()
    assert list(imputer.get_feature_names_out(["a", "b", "c", "d"])) == ["a", "b", "c", "d"]
