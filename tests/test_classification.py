"""Classes that a guide finds: how good they are, and that what is said of them is right."""

import pytest
import torch

from ppl_vae import InputError, classify
from ppl_vae.data.batch import Batch
from ppl_vae.evidence.classification import Classification, brier, fit_temperature
from ppl_vae.models import VAE, ConditionalVAE, SemiSupervisedVAE

N = 2000


def drawn(seed, sharper=1.0):
    """Logits of 4 classes, and classes drawn from them; too sharp where ``sharper`` is above 1."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(N, 4, generator=generator, dtype=torch.float64)
    labels = logits.softmax(-1).multinomial(1, generator=generator)[:, 0]
    return sharper * logits, labels


def test_scores_are_those_of_definitions():
    logits, labels = drawn(0)
    logits[0], labels[0] = torch.tensor([10.0, 0.0, 0.0, 0.0]), -1
    found = Classification(logits, labels).estimates()
    p, own, right, squares = logits[1:].softmax(-1), labels[1:], 0, 0.0
    for row, k in zip(p, own, strict=True):
        right += int(row.argmax() == k)
        squares += sum((row[j].item() - float(j == k)) ** 2 for j in range(4))
    assert found["accuracy"].mean == pytest.approx(right / (N - 1))
    assert found["brier"].mean == pytest.approx(squares / (N - 1))
    assert found["accuracy"].n == N - 1
    share = right / (N - 1)
    assert found["accuracy"].stderr == pytest.approx((share * (1 - share) / (N - 2)) ** 0.5)


def test_the_error_of_a_calibrated_classifier_is_chance():
    """Its place in the distribution by chance: 40 of them, each with a rate of 1 in 20 below 2 sd
    on one side. Of more than 7 the probability is 0.0007."""
    beyond = 0
    for seed in range(40):
        found = Classification(*drawn(seed)).estimates()
        chance = found["ece_by_chance"]
        beyond += found["ece"].mean > chance.mean + 1.645 * chance.stderr
    assert beyond <= 7


def test_the_temperature_mends_a_classifier_that_is_too_sure():
    logits, labels = drawn(0, sharper=3.0)
    temperature = fit_temperature(*drawn(1, sharper=3.0))
    assert abs(temperature.mean - torch.tensor(3.0).log().item()) < 4 * temperature.stderr
    found = Classification(logits, labels, temperature).estimates()
    assert found["ece"].mean > found["ece_by_chance"].mean + 10 * found["ece_by_chance"].stderr
    chance = found["ece_calibrated_by_chance"]
    assert found["ece_calibrated"].mean < chance.mean + 4 * chance.stderr
    assert found["brier_calibrated"].mean < found["brier"].mean


def test_the_error_of_the_temperature_is_its_spread():
    """Over 100 data sets, the variance of z is 1 up to 5 standard errors, sqrt(2 / 99)."""
    found = [fit_temperature(*drawn(seed)) for seed in range(100)]
    z = torch.tensor([e.mean / e.stderr for e in found])
    assert abs(z.var().item() - 1) < 5 * (2 / 99) ** 0.5
    assert abs(z.mean().item()) < 5 / 10


def test_the_temperature_maximizes_the_likelihood():
    logits, labels = drawn(0, sharper=0.5)
    best = fit_temperature(logits, labels).mean

    def likelihood(log_temperature):
        scaled = (logits / torch.tensor(log_temperature).exp()).log_softmax(-1)
        return scaled.gather(1, labels[:, None]).mean().item()

    assert all(likelihood(best) > likelihood(best + step) for step in (-0.01, 0.01))


def test_a_classifier_that_is_always_right_has_a_temperature():
    logits = torch.eye(3, dtype=torch.float64).repeat(5, 1)
    found = Classification(logits, torch.arange(15) % 3, fit_temperature(logits, logits.argmax(1)))
    assert found.estimates()["accuracy"].mean == 1
    assert found.estimates()["brier_calibrated"].mean == pytest.approx(0, abs=1e-9)


def test_classes_do_not_see_the_labels():
    m2 = SemiSupervisedVAE((5,), 2, (8,), classes=3)
    x = torch.rand(7, 5).round()
    seen = classify(m2, Batch(x=x, y=torch.arange(7) % 3))
    unseen = classify(m2, x)
    assert torch.equal(seen.logits, unseen.logits)
    assert unseen.estimates() == {}
    assert "accuracy" in seen.estimates()
    exact = m2.eval().classifier(x).double().softmax(-1)
    torch.testing.assert_close(seen.probabilities(), exact, rtol=1e-5, atol=1e-6)


def test_calibration_takes_labels_that_are_known_alone():
    m2, x = SemiSupervisedVAE((5,), 2, (8,), classes=3), torch.rand(7, 5).round()
    others = Batch(x=x, y=torch.tensor([0, 1, -1, -1, 2, 0, -1]))
    assert classify(m2, x, others).log_temperature.n == 4
    assert classify(m2, x, Batch(x=x, y=torch.full((7,), -1))).log_temperature is None


@pytest.mark.parametrize("program", [VAE((5,)), ConditionalVAE((5,), classes=3)])
def test_programs_without_classes_have_none(program):
    covariates = {} if isinstance(program, VAE) else {"y": torch.arange(7) % 3}
    assert classify(program, Batch(x=torch.rand(7, 5).round(), **covariates)) is None


def test_no_label_is_no_temperature():
    with pytest.raises(InputError, match="labels are not known"):
        fit_temperature(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))


def test_the_brier_score_is_between_0_and_2():
    p = torch.rand(50, 3).double()
    scores = brier(p / p.sum(-1, keepdim=True), torch.arange(50) % 3)
    assert ((scores >= 0) & (scores <= 2)).all()
