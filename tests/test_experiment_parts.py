"""What experiments measure with, against closed forms and independent implementations."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binom
from sklearn.decomposition import PCA

from ppl_vae.evidence.scores import score
from ppl_vae.experiments import (
    distances,
    gap,
    generate,
    judge,
    latent_size,
    reconstruction_loss,
    reparameterization,
)
from ppl_vae.models import VAE
from ppl_vae.programs.predictions import posterior_predictive


def images(count, size=28, seed=0):
    return torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(seed))


# Distances


def test_structural_similarity_is_that_of_torchmetrics():
    from torchmetrics.functional.image import structural_similarity_index_measure

    x, y = images(3), (images(4, seed=1) + images(4, seed=2)) / 2
    found = distances.structural(x, y)
    for i, original in enumerate(x):
        _, everywhere = structural_similarity_index_measure(
            y, original.expand_as(y), data_range=1.0, return_full_image=True
        )
        inside = everywhere[..., 5:-5, 5:-5].flatten(1).mean(1)  # windows that need no padding
        torch.testing.assert_close(found[i], 1 - inside, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [8, 9, 28])
def test_every_distance_is_least_at_the_image_itself(size):
    x = images(5, size).round()
    for distance in (
        distances.squared,
        distances.absolute,
        distances.bernoulli,
        distances.structural,
    ):
        found = distance(x, x)
        assert found.shape == (5, 5)
        assert found.argmin(1).tolist() == list(range(5))


def test_losses_are_negative_log_likelihoods():
    x, y = images(3), images(2, seed=1)
    for i, j in np.ndindex(3, 2):
        difference = x[i] - y[j]
        normal = torch.distributions.Normal(y[j], math.sqrt(0.5)).log_prob(x[i]).sum()
        constant = torch.distributions.Normal(0.0, math.sqrt(0.5)).log_prob(torch.zeros(784)).sum()
        torch.testing.assert_close(
            distances.squared(x, y)[i, j], constant - normal, rtol=1e-4, atol=1e-3
        )
        torch.testing.assert_close(distances.absolute(x, y)[i, j], difference.abs().sum())
        mean = y[j].clamp(0.01, 0.99)
        cross_entropy = torch.nn.functional.binary_cross_entropy(mean, x[i], reduction="sum")
        torch.testing.assert_close(distances.bernoulli(x, y)[i, j], cross_entropy)


def test_ranks_compare_with_other_classes_only():
    others = torch.zeros(3, 1, 2, 2)
    others[1], others[2] = 0.1, 0.5  # one of the same class nearby, one of another farther off
    labels = torch.tensor([0, 0, 1])
    changed = {"a little": others[:1] + 0.4, "a lot": others[:1] + 0.6}
    found = reconstruction_loss.rank(distances.squared, others[:1], changed, others, labels)
    assert {name: values.tolist() for name, values in found.items()} == {
        "a little": [0.0],
        "a lot": [1.0],
    }


def test_shifts_move_to_the_right_and_fill_with_black():
    image = torch.arange(1.0, 10).reshape(1, 1, 3, 3) / 9
    shifted = reconstruction_loss.changes(image.repeat(1, 1, 1, 3), seed=0)["shifted by 2 pixels"]
    assert shifted[..., :2].eq(0).all()
    assert torch.equal(shifted[..., 2:], image.repeat(1, 1, 1, 3)[..., :-2])


# The judge


def test_frechet_distances_of_shifted_and_stretched_features():
    features = torch.randn(400, 5, generator=torch.Generator().manual_seed(0)).double()
    shift = torch.tensor([1.0, 2.0, 0.0, 0.0, 0.0])
    assert judge.frechet(features + shift, features)[0] == pytest.approx(5)
    centred = features - features.mean(0)
    trace = centred.T.cov().trace().item()
    assert judge.frechet(3 * centred, centred)[0] == pytest.approx(4 * trace)


def test_the_jackknife_of_a_mean_is_its_standard_error():
    blocks = np.random.default_rng(0).normal(size=10)
    without = (blocks.sum() - blocks) / 9
    expected = blocks.std(ddof=1) / math.sqrt(10)
    assert judge.jackknife_error(without.tolist()) == pytest.approx(expected)


def test_the_error_of_frechet_distances_is_their_spread():
    generator = torch.Generator().manual_seed(0)
    reference = torch.randn(5000, 3, generator=generator)
    shift = torch.tensor([2.0, 0.0, 0.0])
    found = [
        judge.frechet(shift + torch.randn(300, 3, generator=generator), reference)
        for _ in range(100)
    ]
    spread, error = np.std([d for d, _ in found], ddof=1), np.mean([e for _, e in found])
    # The spread of 100 values is known to 7 % (one standard error), the jackknife's of 10 blocks
    # to 24 % each and 2.4 % in the mean: four errors of both.
    assert error == pytest.approx(spread, rel=4 * math.hypot(0.07, 0.024))


def test_the_judge_knows_digits(digits):
    found = judge.train_judge(digits, epochs=15, seed=0)
    assert found.accuracy > 0.9  # chance is 0.1
    probabilities = found.probabilities(judge.grey(digits, "test"))
    torch.testing.assert_close(probabilities.sum(1), torch.ones(len(digits.test)))
    assert torch.equal(found.confidence(judge.grey(digits, "test")), probabilities.max(1).values)


# The size of the latent space


@pytest.fixture(scope="module")
def grey_digits(digits):
    x = judge.grey(digits, "train").flatten(1).double()
    return x, x.mean(0), x.T.cov(correction=0)


@pytest.mark.parametrize("size", [1, 2, 5, 10, 20, 40, 60, 64, 70])
def test_a_linear_autoencoder_reaches_the_error_of_pca(size, grey_digits):
    x, mean, covariance = grey_digits
    program = latent_size.fit_linear_autoencoder(mean, covariance, (1, 8, 8), size, seed=1)
    found = posterior_predictive(program, x.unflatten(1, (1, 8, 8))).mean.flatten(1)
    error = (found - x).square().sum(1).mean().item()
    pca = PCA(min(size, 64), svd_solver="full").fit(x.numpy())
    expected = ((pca.inverse_transform(pca.transform(x.numpy())) - x.numpy()) ** 2).sum(1).mean()
    if size >= 60:  # pixels that vary: the rank
        assert error < 1e-8
    else:
        assert error == pytest.approx(expected, rel=1e-4)
        assert error > expected * (1 - 1e-9)


def test_a_linear_vae_is_at_its_optimum(grey_digits):
    x, mean, covariance = grey_digits
    noise = 0.02
    program = latent_size.linear_vae(mean, covariance, (1, 8, 8), 40, noise)
    data = x.unflatten(1, (1, 8, 8))
    eigenvalues = torch.linalg.eigvalsh(covariance).flip(0)
    active = eigenvalues > noise
    assert 0 < active.sum() < 40
    with torch.no_grad():
        codes = program.encoder(x)
        decoded = codes @ program.loading.T + program.loc
        evidence = program.evidence(data).mean()
    # What is kept of an eigenvector shrinks by noise / eigenvalue; of the others all is lost.
    left = noise**2 / eigenvalues[active]
    expected = left.sum() + eigenvalues[~active].sum()
    torch.testing.assert_close((x - decoded).square().sum(1).mean(), expected)
    assert int((codes.var(0) > 0.01).sum()) == int(active.sum())
    # The guide is exact, and no other loading explains the data better.
    torch.testing.assert_close(score(program, data, draws=1).per_datum["elbo"].mean(), evidence)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        step = torch.randn(program.loading.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            program.loading.add_(1e-3 * step)
            assert program.evidence(data).mean() < evidence
            program.loading.sub_(1e-3 * step)


# The gap


def terms(log_p, gap_, seed, size=100):
    """Of data that differ by 10 nats, with independent noise of 1 nat in each term."""
    generator = torch.Generator().manual_seed(seed)
    differ = 10 * torch.randn(size, generator=torch.Generator().manual_seed(9)).double()
    log_p = log_p + differ + torch.randn(size, generator=generator).double()
    gap_ = gap_ + torch.randn(size, generator=generator).double()
    return {"elbo": log_p - gap_, "log_p": log_p, "kl_to_posterior": gap_}


@pytest.mark.parametrize(
    ("first", "last", "verdict"),
    [
        ((-100, 2.0), (-90, 2.0), "holds"),
        ((-100, 4.0), (-90, 2.0), "holds in part"),
        ((-100, 9.0), (-100, 1.0), "does not hold"),
        ((-100, 2.0), (-95, 9.0), "does not hold"),  # F falls
        ((-100, 2.0), (-99.8, 2.0), "does not hold"),  # less than what log p(x) is known to
    ],
)
def test_who_improves_is_told(first, last, verdict):
    found = {1: terms(*first, seed=1), 8: terms(*last, seed=2)}
    rows = [{"slack": 0.1, "slack_error": 0.05}, {"slack": 0.5, "slack_error": 0.05}]
    claim = gap._claims(found, rows)[0]
    assert claim.verdict == verdict
    assert "0.50 ± 0.05 nats" in claim.because


# Generation


def test_codes_from_the_prior_cannot_be_told_from_it():
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(2000, 5, generator=generator)
    found = generate._code_row("exact", normal, seed=1)
    assert abs(found["accuracy"] - 0.5) < 4 * math.sqrt(0.25 / 2000)
    # 2 n KL is chi-squared of 5 + 15 degrees of freedom, to first order.
    assert 2 * 2000 * found["kl"] < 60
    shifted = generate._code_row("shifted", 2 + 3 * normal, seed=1)
    assert shifted["accuracy"] > 0.8
    # KL(N(2, 9) || N(0, 1)) = (4 + 9 - 1 - log 9) / 2 for each unit.
    assert shifted["kl"] == pytest.approx(5 * (12 - math.log(9)) / 2, rel=0.1)


# Reparameterization


def test_right_laws_pass_at_their_level_and_wrong_ones_fail():
    vae, x = VAE((4,), 3, (8,)), torch.ones(1, 4)
    tables = [reparameterization._compare_laws(vae, x, 5_000, seed) for seed in range(60)]
    p = np.array([table["p_value"] for table in tables])
    # Bonferroni's p-values are below 0.05 at most that often, 60 times at most 10 but for 1e-4.
    assert binom.sf(10, 60, 0.05) < 1e-3
    assert (p[:, 0] < 0.05).sum() <= 10
    assert (p[:, 1] < 0.05).sum() <= 10
    assert p[:, 3:].max() < 1e-6


def test_powers_of_the_number_of_draws_are_found():
    k = np.array([2, 5, 10, 50])
    rows = pd.DataFrame({"particles": k, "variance": 7.0 / k, "variance_error": 0.7 / k})
    power, error = reparameterization.slope(rows, "variance")
    assert power == pytest.approx(-1)
    # Equal relative errors of 10 %: the textbook's error of a slope.
    x = np.log(k)
    assert error == pytest.approx(0.1 / math.sqrt(((x - x.mean()) ** 2).sum()))


def test_estimators_are_told_apart_by_more_than_chance():
    def row(variance, error):
        return pd.Series({"variance": variance, "variance_error": error})

    assert reparameterization._compare(row(1.0, 0.1), row(2.0, 0.1)) == "holds"
    assert reparameterization._compare(row(1.0, 0.3), row(2.0, 0.3)) == "does not hold"
    assert reparameterization._compare(row(2.0, 0.1), row(1.0, 0.1)) == "does not hold"


# Claims, on either side of where they turn


def deep_table(vae, kl, active):
    sizes = [1, 50, 800]
    return pd.DataFrame(
        {
            "latent_dim": sizes,
            "autoencoder": [100.0, 20.0, 0.5],
            "autoencoder_error": 0.1,
            "vae": vae,
            "vae_error": 0.5,
            "kl": kl,
            "loss": np.add(vae, kl),
            "active": active,
        }
    )


@pytest.mark.parametrize(
    ("vae", "kl", "active", "verdicts"),
    [
        ((100, 70, 70), (3, 27, 27), (1, 20, 20), ["holds", "holds"]),
        ((100, 70, 70), (3, 27, 27), (1, 50, 789), ["holds", "holds in part"]),
        ((100, 70, 10.5), (3, 27, 40), (1, 50, 20), ["does not hold", "does not hold"]),
    ],
)
def test_what_levels_off_is_told(vae, kl, active, verdicts):
    claims = latent_size._deep_claims(deep_table(vae, kl, active), epochs=6)
    assert [claim.verdict for claim in claims] == ["holds", *verdicts]


@pytest.mark.parametrize(
    ("excess", "full", "verdict"),
    [(9e-5, 1e-9, "holds"), (2e-4, 1e-9, "does not hold"), (9e-5, 1e-7, "does not hold")],
)
def test_a_linear_autoencoder_that_misses_pca_is_told(excess, full, verdict, digits):
    rows = [
        {"latent_dim": size, "autoencoder": left, "excess": off, "vae": 1.0, "vae_active": 3}
        for size, left, off in ((1, 5.0, 0.0), (10, 1.0, excess), (60, full, full))
    ]
    eigenvalues = torch.linspace(1, 0, 64)
    claims = latent_size._linear_claims(pd.DataFrame(rows), 60, digits, eigenvalues)
    assert [claim.verdict for claim in claims] == [verdict, "holds"]


FEATURES = reconstruction_loss.FEATURES


def rank_table(shifted, structural, features, blurred):
    values = {
        ("squared error", "shifted by 2 pixels"): shifted,
        ("1 - SSIM", "shifted by 2 pixels"): structural,
        (FEATURES, "shifted by 2 pixels"): features,
        ("squared error", "blurred by 1 pixel"): blurred,
    }
    losses = ["squared error", "Bernoulli", "absolute error (Laplace)", "1 - SSIM", FEATURES]
    changed = ["shifted by 1 pixel", "shifted by 2 pixels", "blurred by 1 pixel", "noise of 0.2"]
    return pd.DataFrame(
        [
            {
                "loss": loss,
                "change": change,
                "farther": values.get((loss, change), 0.9 if "2 pixels" in change else 0.0),
                "farther_error": 0.01,
            }
            for loss in losses
            for change in changed
        ]
    )


@pytest.mark.parametrize(
    ("table", "verdicts"),
    [
        (rank_table(0.97, 0.1, 0.1, 0.0), ["holds", "holds", "holds"]),
        (rank_table(0.4, 0.9, 0.1, 0.0), ["holds in part", "holds in part", "holds"]),
        (rank_table(0.97, 0.9, 0.9, 0.2), ["holds", "does not hold", "does not hold"]),
    ],
)
def test_what_losses_call_near_is_told(table, verdicts):
    claims = reconstruction_loss._rank_claims(table, 500)
    assert [claim.verdict for claim in claims] == verdicts


@pytest.mark.parametrize(
    ("frechet", "verdict"),
    [
        ((10, 20, 50, 60), "holds"),  # the Bernoulli's, which is no density, does not count
        ((10, 55, 54, 56), "holds in part"),
        ((10, 90, 50, 60), "does not hold"),
    ],
)
def test_whether_evidence_and_samples_agree_is_told(frechet, verdict):
    rows = [
        {
            "likelihood": likelihood,
            "measure": reconstruction_loss.BINARY
            if likelihood == "bernoulli"
            else reconstruction_loss.GREY,
            "iw_bound": bound,
            "iw_bound_error": 1.0,
            "frechet": distance,
            "frechet_error": 2.0,
        }
        for likelihood, bound, distance in zip(
            reconstruction_loss.LIKELIHOODS, (-90.0, 5000.0, 600.0, 900.0), frechet, strict=True
        )
    ]
    assert reconstruction_loss._fit_claims(pd.DataFrame(rows))[0].verdict == verdict


def test_less_like_data_by_both_figures_by_one_or_by_none():
    generator = torch.Generator().manual_seed(0)

    def scores(confidence, distance):
        noise = 0.01 * torch.randn(2, 500, generator=generator)
        return {"confidence": confidence + noise[0], "distance": distance + noise[1]}

    codes = pd.DataFrame(
        {
            "program": ["autoencoder", "VAE"],
            "kl": [50.0, 0.1],
            "accuracy": [0.99, 0.505],
            "accuracy_error": [0.005, 0.005],
        }
    )
    found = {
        generate.HELD_OUT: scores(0.98, 4.2),
        generate.VAE_PRIOR: scores(0.88, 4.2),
        generate.PRIOR: scores(0.7, 5.5),
        generate.FITTED: scores(0.88, 4.2),
    }
    verdicts = [claim.verdict for claim in generate._claims(codes, found, 0.98)]
    assert verdicts == ["holds", "holds", "does not hold", "holds in part"]
