"""Inference that is certified: what it finds is right, and what it cannot find it says."""

import json

import numpy as np
import pytest
import torch
import xarray
from scipy.stats import kstest

import ppl_vae
from ppl_vae import InputError, Posterior
from ppl_vae.data.sources import load_rows
from ppl_vae.inference import infer as module
from ppl_vae.inference import nuts
from ppl_vae.inference.copies import move_copies
from ppl_vae.inference.unlike import FEWEST, score_rows
from ppl_vae.inference.weights import Weighted, weigh
from ppl_vae.models import VAE, LinearGaussian
from ppl_vae.models.networks import inverse_positive
from ppl_vae.programs.protocol import dtype_of
from ppl_vae.progress import Progress
from ppl_vae.storage.arviz_io import read_inference_data

from . import conjugate, programs
from .test_refine import Fold, correlated  # noqa: F401


def by_datum(found, name):
    return found.inference[name].values


pytestmark = pytest.mark.usefixtures("whole_chains")


def test_draws_and_moments_are_those_of_the_posterior(correlated):  # noqa: F811
    ppca, x = correlated
    found = ppl_vae.infer(ppca, x, draws=800, seed=1)
    exact = ppca.posterior(x)
    assert by_datum(found, "certified").all()
    mean, sd = exact.mean.detach().numpy(), exact.stddev.detach().numpy()
    # At least 400 effective draws: 5 % of a standard deviation, four of which are never exceeded.
    assert (abs(by_datum(found, "z_mean") - mean) < 0.2 * sd).all()
    assert (abs(by_datum(found, "z_sd") / sd - 1) < 0.15).all()
    log_p = ppca.evidence(x).detach().numpy()
    off = (by_datum(found, "log_evidence") - log_p) / by_datum(found, "log_evidence_error")
    assert abs(off).max() < 5
    z = found.posterior["z"].values[0]  # whitened, all are standard normal
    white = torch.linalg.solve_triangular(
        exact.scale_tril, torch.as_tensor(z - mean).permute(1, 2, 0), upper=False
    )
    assert kstest(white[:, :, :100].flatten().detach().numpy(), "norm").pvalue > 1e-4


def test_an_exact_guide_needs_nothing_else():
    ppca = LinearGaussian((5,), latent_dim=2)
    ppca.set_exact_guide()
    x = ppl_vae.prior_predictive(ppca, (5,), 30, seed=2).x
    found = ppl_vae.infer(ppca, x, draws=10)
    assert set(by_datum(found, "method")) == {"guide"}
    assert by_datum(found, "certified").all()


def test_resampled_draws_are_hardly_ever_copies_of_each_other():
    # A guide that is too wide: uneven weights that pass.
    ppca, x = skewed()
    found = ppl_vae.infer(ppca, x, draws=1000, target="guide")
    certified = by_datum(found, "certified")
    assert certified.all()
    assert (by_datum(found, "ess") < 0.75 * 1200).all()
    z = found.posterior["z"].values[0]
    for n in range(len(x)):
        assert len(np.unique(z[:, n], axis=0)) > 990
    exact = ppca.posterior(x)
    mean, sd = exact.mean.detach().numpy(), exact.stddev.detach().numpy()
    assert (abs(z.mean(0) - mean) < 4.5 * sd / 400**0.5).all()
    assert (abs(z.std(0) / sd - 1) < 4.5 / 800**0.5).all()


def test_the_law_of_draws_stays_the_same_where_copies_are_moved(correlated):  # noqa: F811
    ppca, x = correlated  # whose guide is off to one side, as copies are
    posterior, exact = Posterior(ppca, x[:1]), ppca.posterior(x[:1])
    weighted = weigh(posterior, 20_000, seed=1)
    drawn, copies = weighted.resampled(20_000, torch.Generator().manual_seed(0))
    assert copies.double().mean() > 0.2
    moved = move_copies(posterior, weighted, drawn, copies, seed=2)["z"]
    assert torch.equal(moved[~copies], drawn["z"][~copies])
    assert len(moved.unique(dim=0)) > 0.99 * len(moved)
    white = torch.linalg.solve_triangular(
        exact.scale_tril[0], (moved - exact.mean)[:, 0].T, upper=False
    ).detach()
    for unit in white:
        assert kstest(unit.numpy(), "norm").pvalue > 1e-2
    assert torch.allclose(torch.cov(white), torch.eye(3).double(), atol=4 * (2 / 8000) ** 0.5)


def test_copies_are_moved_where_some_draws_have_no_weight():
    ppca, x = skewed()
    posterior = Posterior(ppca, x)
    weighted = weigh(posterior, 500, seed=1)
    log_weight = weighted.log_weight.clone()
    log_weight[-60:] = -torch.inf  # as where a draw of the prior makes the data impossible
    impossible = Weighted.of(weighted.latents, log_weight, weighted.counts)
    drawn, copies = impossible.resampled(400, torch.Generator().manual_seed(0))
    moved = move_copies(posterior, impossible, drawn, copies, seed=2)["z"]
    assert (moved != drawn["z"]).any(-1)[copies].double().mean() > 0.95


def test_copies_of_discrete_values_and_of_angles_stay():
    for program, size in ((programs.Discrete(), 5), (conjugate.Angle(), 1)):
        x = torch.zeros(3, size, dtype=dtype_of(program))
        posterior = Posterior(program, x)
        weighted = weigh(posterior, 100, seed=1)
        drawn, copies = weighted.resampled(400, torch.Generator().manual_seed(0))
        moved = move_copies(posterior, weighted, drawn, copies, seed=2)
        assert copies.any(0).all()
        assert all(torch.equal(moved[site], z) for site, z in drawn.items())


def skewed():
    """Probabilistic PCA with a guide twice as wide as the posterior."""
    torch.manual_seed(0)
    ppca = LinearGaussian((5,), latent_dim=2)
    ppca.set_exact_guide()
    x = ppl_vae.prior_predictive(ppca, (5,), 5, seed=2).x
    with torch.no_grad():
        tril = ppca.guide_tril * 1.6
        raw = torch.diag(inverse_positive(tril.diagonal()))
        ppca.raw_guide_tril.copy_(tril.tril(-1) + raw)
    return ppca, x


def test_a_missed_mode_is_not_certified_but_found():
    program, x = Fold(), torch.tensor([[0.8], [1.2]], dtype=torch.float64)
    guide = ppl_vae.infer(program, x, target="guide")
    assert not by_datum(guide, "certified").any()
    found = ppl_vae.infer(program, x, draws=500)
    certified = by_datum(found, "certified")
    assert certified[0]  # of the other, annealing has some 400 effective draws, and 400 must be
    assert by_datum(found, "method")[0] == "annealed"
    left = (found.posterior["z"].values[0, :, :, 0] < 0).mean(0)
    assert ((left > 0.4) & (left < 0.6))[certified].all()
    assert np.allclose(by_datum(found, "log_evidence"), program.log_p(x), atol=0.3)


@pytest.mark.parametrize("name", ["proportion", "direction", "mixture of each unit"])
def test_programs_whose_posterior_is_known(name):
    program = conjugate.PROGRAMS[name]()
    size = next(n for k, n in conjugate.SIZES.items() if name.startswith(k))
    x = ppl_vae.prior_predictive(program, (size,), 6, seed=4).x
    found = ppl_vae.infer(program, x, draws=200)
    assert by_datum(found, "certified").all(), found.inference.attrs
    off = by_datum(found, "log_evidence") - program.log_p(x).detach().numpy()
    assert (abs(off) < 5 * by_datum(found, "log_evidence_error") + 1e-3).all()


def test_what_no_step_passes_is_said(monkeypatch):
    monkeypatch.setattr(module, "LEAST_ESS", 10**9)
    ppca, x = LinearGaussian((5,)), torch.randn(3, 5, dtype=torch.float64)
    found = ppl_vae.infer(ppca, x, draws=10, target="refined")
    assert not by_datum(found, "certified").any()
    assert set(by_datum(found, "method")) == {"refined full"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_chains_are_taken_where_nothing_else_passes(monkeypatch, dtype):
    monkeypatch.setattr(module, "LEAST_ESS", 10**9)
    for setting, fewer in (("WARMUP", 60), ("DRAWS", 60), ("MOST_R_HAT", 10.0), ("LEAST_ESS", 1)):
        monkeypatch.setattr(nuts, setting, fewer)
    torch.manual_seed(0)
    program = VAE((5,), latent_dim=2, hidden=(4,)).to(dtype)
    found = ppl_vae.infer(program, (torch.rand(3, 5) > 0.5).to(dtype), draws=20)
    assert set(by_datum(found, "method")) == {"NUTS"}
    assert by_datum(found, "certified").all()
    assert found.posterior["z"].dtype == torch.zeros(0, dtype=dtype).numpy().dtype
    assert np.isfinite(found.posterior["z"]).all()


def test_data_that_are_alike_have_draws_of_their_own():
    ppca, x = LinearGaussian((5,)), torch.randn(1, 5, dtype=torch.float64)
    ppca.set_exact_guide()
    z = ppl_vae.infer(ppca, x.expand(2 * module.PILOT, 5), draws=500).posterior["z"].values[0]
    for other in range(1, 2 * module.PILOT):
        assert not np.isin(z[:, 0], z[:, other]).any()


def test_steps_that_a_program_does_not_allow_are_left_out_with_the_reason(monkeypatch):
    monkeypatch.setattr(module, "LEAST_ESS", 10**9)
    program = programs.Discrete()
    found = ppl_vae.infer(program, torch.randn(2 * module.PILOT, 5), draws=10)
    assert np.isfinite(by_datum(found, "ess")).all()  # those too that were left to the others
    assert "discrete" in found.inference.attrs["refined_full"]
    assert found.posterior.sizes["draw"] == 10
    assert set(by_datum(found, "method")) == {"guide"}
    assert not by_datum(found, "certified").any()


def test_seeds_and_blocks(monkeypatch):
    torch.manual_seed(0)
    vae, x = VAE((6,), latent_dim=2, hidden=(8,), likelihood="gaussian"), torch.randn(9, 6)
    one, same, other = (ppl_vae.infer(vae, x, 20, "refined", seed) for seed in (1, 1, 2))
    assert one.posterior.equals(same.posterior)
    assert not one.posterior.equals(other.posterior)
    monkeypatch.setattr(module, "BLOCK_ELEMENTS", 2 * 1000 * 4)
    told = []
    parts = ppl_vae.infer(vae, x, 20, "refined", 1, lambda share, note: told.append(share))
    assert parts.posterior.sizes["datum"] == 9
    assert sum(told) == pytest.approx(1.0)
    assert min(told) >= 0


def test_weights_average_to_the_evidence():
    ppca, x = LinearGaussian((5,)), torch.randn(8, 5, dtype=torch.float64)
    weighted = weigh(Posterior(ppca, x), 20_000, seed=3)
    log_p, error = weighted.evidence()
    assert ((log_p - ppca.evidence(x)).abs() < 4 * error).all()
    drawn = weighted.resampled(5000, torch.Generator().manual_seed(0))[0]["z"]
    mean, _ = weighted.moments()
    assert torch.allclose(drawn.mean(0), mean["z"], atol=0.05)


@pytest.mark.parametrize(
    ("words", "problem"),
    [({"draws": 0}, "draws must be"), ({"target": "all"}, "target must be one of")],
)
def test_bad_arguments(words, problem):
    ppca, x = LinearGaussian((5,)), torch.randn(3, 5, dtype=torch.float64)
    with pytest.raises(InputError, match=problem):
        ppl_vae.infer(ppca, x, **words)


@pytest.mark.parametrize("ending", ["csv", "parquet", "npz", "nc"])
def test_encode_writes_codes_of_splits_and_files(fitted, tmp_path, ending):
    words = ["--method", "guide", "--data-points", 20, "--output", f"codes.{ending}"]
    draws = ["--draws", 5] if ending in ("npz", "nc") else []
    code, out, err = fitted("encode", "run", *words, *draws, "--json")
    assert code == 0, err
    summary = json.loads(out)
    assert summary["methods"]["guide"]["data_points"] == 20
    file = tmp_path / f"codes.{ending}"
    if ending == "nc":
        found = read_inference_data(file)
        assert found.posterior["z"].shape == (1, 5, 20, 2)
        assert found.inference["z_mean"].shape == (20, 2)
    elif ending == "npz":
        with np.load(file) as arrays:
            assert arrays["z_draws"].shape == (5, 20, 2)
            assert arrays["z_sd"].shape == (20, 2)
    else:
        import pandas as pd

        table = pd.read_csv(file) if ending == "csv" else pd.read_parquet(file)
        assert list(table.columns[:3]) == ["row", "method", "certified"]
        assert {"z[0]_mean", "z[1]_sd", "log_evidence"} <= set(table.columns)
        assert len(table) == 20


def test_encode_and_score_take_new_files(fitted, tmp_path, digits):
    x = digits.fixed("test")[:12]
    np.save(tmp_path / "new.npy", x.numpy())
    np.save(tmp_path / "negatives.npy", 1 - x[:3].numpy())
    assert fitted("encode", "run", "--data", "new.npy", "--method", "guide")[0] == 0
    code, out, err = fitted(
        "score", "run", "--data", "negatives.npy", "--method", "guide", "--json"
    )
    assert code == 0, err
    assert json.loads(out)["unlike"] == [0, 1, 2]
    code, out, err = fitted("score", "run", "--method", "guide")
    assert code == 0, err
    assert "unlike the training data" in out


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["encode", "run", "--output", "codes.txt"], "must end in"),
        (["encode", "run", "--draws", 3, "--output", "codes.csv"], "--draws do not fit"),
        (["encode", "run", "--data", "none.npy"], "is not a file"),
        (["encode", "run", "--data", "wide.npy"], "fitted to those of (1, 8, 8)"),
        (["encode", "run", "--data", "wide.npy", "--split", "test"], "--split is of the run's own"),
        (["score", "run", "--data-points", 0], "--data-points must be in 1"),
        (["score", "run", "--method", "nuts"], "nuts"),
    ],
)
def test_bad_input_is_refused_in_one_line(fitted, tmp_path, words, problem):
    np.save(tmp_path / "wide.npy", np.zeros((3, 9, 9), dtype="float32"))
    code, _, err = fitted(*words)
    assert code == 2
    assert problem in err
    assert err.count("\n") == 1


def test_evaluate_by_refined_guides(fitted, tmp_path):
    words = ["--estimator", "refined", "--draws", 100, "--data-points", 30]
    code, out, err = fitted("evaluate", "run", *words, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["refined_bound"]["mean"] > found["iw_bound"]["mean"] - 0.1
    gap = found["refined_bound"]["mean"] - found["elbo"]["mean"]
    assert found["kl_to_posterior"]["mean"] == pytest.approx(gap)
    with xarray.open_dataset(tmp_path / found["results"][0]) as dataset:
        assert dataset["refined_bound"].attrs["units"] == "nats"
    assert "bound of refined guides" in fitted("evaluate", "run", *words)[1]


def test_encode_has_the_moments_and_statistics_of_infer(correlated):  # noqa: F811
    ppca, x = correlated
    codes, found = ppl_vae.encode(ppca, x[:6], seed=3), ppl_vae.infer(ppca, x[:6], 5, seed=3)
    assert codes.equals(found.inference)


@pytest.mark.parametrize("known", [50, 400])
def test_flags_are_as_rare_as_said(known):
    ppca = LinearGaussian((5,), latent_dim=2)
    ppca.set_exact_guide()
    x = ppl_vae.prior_predictive(ppca, (5,), 1000 + known, seed=8).x
    scored = Posterior(ppca, x[:1000]), Posterior(ppca, x[1000:])
    scores = score_rows(*scored, "guide", 0, Progress())
    # Of a level of 0.02: given the known data, the share of flags has a beta law about it.
    assert scores["unlike"].mean() <= 0.045
    assert scores["unlike"].any() == (known >= FEWEST)


def test_new_data_are_on_the_scale_of_the_fit(tmp_path):
    like = {"shape": [2], "binarize": "none", "levels": 255}
    cases = {
        "dark": (np.array([[0, 1], [1, 0]], dtype=np.uint8), 1 / 255),
        "divided": (np.array([[0.0, 0.5]]), 0.5),
    }
    for name, (array, highest) in cases.items():
        np.save(tmp_path / f"{name}.npy", array)
        assert load_rows(tmp_path / f"{name}.npy", like).x.max().item() == pytest.approx(highest)
    np.save(tmp_path / "raw.npy", np.array([[0.0, 200.0]]))
    with pytest.raises(InputError, match="levels of 255, which are divided by it"):
        load_rows(tmp_path / "raw.npy", like)
    counts = load_rows(tmp_path / "dark.npy", {**like, "levels": None})  # a table's bytes may be
    assert counts.x.tolist() == [[0, 1], [1, 0]]
    np.save(tmp_path / "images.npy", np.zeros((2, 3, 3), dtype=np.uint8))
    with pytest.raises(InputError, match="holds bytes, but"):
        load_rows(tmp_path / "images.npy", {**like, "shape": [1, 3, 3], "levels": None})
