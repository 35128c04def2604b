"""Splits and binarization of arrays in memory; ``bad_inputs/`` has arrays that are refused."""

import numpy as np
import pytest
import torch
from scipy.stats import chi2, norm

from ppl_vae import InputError, make_data
from ppl_vae.data.binarization import draw_binary

RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(50, 3))


def test_splits_hold_every_datum_once_and_never_change():
    data = make_data(np.arange(200.0).reshape(100, 2))
    parts = [split.x for split in (data.train, data.validation, data.test)]
    assert [len(part) for part in parts] == [80, 10, 10]
    assert sorted(torch.cat(parts)[:, 0].tolist()) == list(range(0, 200, 2))
    again = make_data(np.arange(200.0).reshape(100, 2))
    assert torch.equal(again.test.x, data.test.x)


def test_labels_follow_their_data():
    x = np.arange(60.0).reshape(30, 2)
    data = make_data(x, labels=[f"class {int(i) % 3}" for i in x[:, 0]])
    assert data.label_names == ("class 0", "class 1", "class 2")
    for split in (data.train, data.validation, data.test):
        assert torch.equal(split.labels, split.x[:, 0].long() % 3)


def test_bytes_stay_bytes_and_are_read_as_grey():
    x = RNG.integers(256, size=(40, 5, 6), dtype=np.uint8)
    data = make_data(x)
    assert data.train.x.dtype == torch.uint8
    assert data.shape == (1, 5, 6)
    assert data.levels == 255
    assert torch.equal(data.fixed("test"), data.test.x.float() / 255)


@pytest.mark.parametrize("dtype", [bool, np.uint8])
def test_zeros_and_ones_are_binary(dtype):
    data = make_data(RNG.integers(2, size=(40, 7)).astype(dtype))
    assert data.levels == 1
    assert set(data.fixed("train").unique().tolist()) == {0.0, 1.0}


def test_other_numbers_are_taken_as_they_are():
    counts = RNG.poisson(9, size=(40, 4))
    assert make_data(counts).train.x.dtype == torch.float32
    assert make_data(TABLE).train.x.dtype == torch.float64
    assert make_data(TABLE.astype(np.float16)).train.x.dtype == torch.float32
    assert make_data(torch.tensor(TABLE)).shape == (3,)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((20, 7), (7,)),
        ((20, 9, 8), (1, 9, 8)),
        ((20, 3, 9, 8), (3, 9, 8)),
        ((20, 9, 8, 3), (3, 9, 8)),
        ((20, 2, 3, 4, 5), (2, 3, 4, 5)),
    ],
)
def test_images_become_channels_first(shape, expected):
    assert make_data(RNG.normal(size=shape)).shape == expected


@pytest.mark.parametrize("levels", [1, 16, 255, None])
def test_binarization_is_unbiased(levels):
    # A chi-square over grey values, to fail 1 time in 10,000 if unbiased.
    top = levels or 1
    values = torch.arange(levels + 1) if levels else torch.linspace(0, 1, 11)
    values = values.byte() if levels else values
    pixels = values.repeat(1_000_000 // len(values))
    generator, rounds = torch.Generator().manual_seed(1), 100
    ones = torch.zeros(len(values), dtype=torch.int64)
    for _ in range(rounds):  # 10^8 draws in all
        ones += draw_binary(pixels, levels, generator).reshape(-1, len(values)).sum(0)
    n, p = rounds * len(pixels) // len(values), values.double() / top
    assert ones[0] == 0
    assert ones[-1] == n
    z2 = ((ones.double() - n * p).square() / (n * p * (1 - p)))[1:-1]
    if len(z2):
        assert z2.sum().item() < chi2.isf(1e-4, len(z2))


@pytest.mark.parametrize("levels", [2, 16, 255])
def test_binarized_pixels_are_independent(levels):
    # Neighbours share no bits: the mean of products of 10^7 pairs, to fail 1 time in 10,000.
    pixels = torch.full((1_000_001,), levels // 2, dtype=torch.uint8)
    generator = torch.Generator().manual_seed(2)
    p = (levels // 2) / levels
    z = 0.0
    for _ in range(10):
        x = draw_binary(pixels, levels, generator).double() - p
        z += (x[1:] * x[:-1]).sum().item() / (p * (1 - p)) / (1e7**0.5)
    assert abs(z) < norm.isf(1e-4 / 2)


def test_dynamic_binarization_is_new_each_time_and_seeded(digits):
    def batches(seed):
        generator = torch.Generator().manual_seed(seed)
        return torch.cat([batch.x for batch in digits.batches(100, generator)])

    assert batches(1).shape == digits.train.x.shape
    assert batches(1).dtype == torch.float32
    assert torch.equal(batches(1), batches(1))
    assert not torch.equal(batches(1), batches(2))
    assert torch.equal(digits.fixed("test", 4), digits.fixed("test", 4))
    assert not torch.equal(digits.fixed("test", 4), digits.fixed("test", 5))


def test_batches_go_through_the_data_once():
    data = make_data(np.arange(26.0).reshape(13, 2), validation_fraction=0.1, test_fraction=0.1)
    batches = list(data.batches(4, torch.Generator().manual_seed(0)))
    assert [batch.size for batch in batches] == [4, 4, 3]
    x = torch.cat([batch.x for batch in batches])
    assert sorted(x[:, 0].tolist()) == sorted(data.train.x[:, 0].tolist())


def test_covariates_stay_with_their_data_in_every_batch():
    x = np.arange(60.0).reshape(30, 2)
    data = make_data(x, covariates={"half": x[:, 0] / 2, "even": x[:, :1] % 4 == 0})
    order = torch.randperm(len(data.train))
    batches = list(data.batches(7, torch.Generator(), order))
    for batch in (*batches, data.batch("test"), data.batch("validation")):
        assert list(batch) == ["x", "half", "even"]
        assert torch.equal(batch["half"], batch.x[:, 0] / 2)
        assert torch.equal(batch["even"], batch.x[:, :1] % 4 == 0)
    assert torch.equal(torch.cat([batch.x for batch in batches]), data.train.x[order])


def test_the_digest_covers_all_that_a_program_may_take():
    def digest(x=TABLE, labels=None, mask=None, name="mask", **meaning):
        covariates = {} if mask is None else {name: mask}
        x = np.arange(150).reshape(50, 3) % 8 if meaning else x
        return make_data(x, labels, covariates=covariates, **meaning).digest

    mask, labels = TABLE > 0, [0, 1] * 25
    other = mask.copy()
    other[7, 2] ^= True
    digests = [
        digest(),
        digest(TABLE + (TABLE[7, 2] == TABLE)),
        digest(TABLE.astype(np.float32)),
        digest(labels=labels),
        digest(labels=labels[::-1]),
        digest(mask=mask),
        digest(mask=other),
        digest(labels=["no", "yes"] * 25),
        digest(levels=8),
        digest(levels=9),
        digest(levels=8, binarize="dynamic"),
        digest(mask=mask.astype(int), name="missing"),
        digest(mask=mask, name="missing"),
    ]
    assert len({*digests}) == len(digests)
    assert digest(TABLE.copy(), labels, mask) == digest(TABLE, labels, mask)


def test_a_data_set_says_what_it_holds():
    data = make_data(TABLE, ["b", "c"] * 25, covariates={"mask": TABLE > 0})
    text = repr(data)
    for part in ("array", "40 train", "5 validation", "5 test", "(3,)", "mask", "2 classes"):
        assert part in text
    assert "\n" not in text
    assert "mask (5, 3) bool" in repr(data.test)


def test_fixed_binarization_is_unbiased_and_keeps_labels():
    data = make_data(np.full((20_000, 9), 0.3), labels=[0, 1] * 10_000, binarize="fixed")
    ones = data.fixed("train").mean().item()
    assert abs(ones - 0.3) < 4 * (0.3 * 0.7 / data.train.x.numel()) ** 0.5
    assert data.test.labels.unique().tolist() == [0, 1]


@pytest.mark.parametrize("binarize", ["fixed", "dynamic"])
def test_the_noise_of_one_split_is_not_that_of_another(binarize):
    grey = np.full((400, 50), 0.5)
    data = make_data(grey, test=(grey, None), binarize=binarize, validation_fraction=0.5)
    splits = [data.fixed(name)[:200] for name in ("train", "validation", "test")]
    for i in range(3):
        agree = (splits[i] == splits[i - 1]).float().mean().item()
        assert abs(agree - 0.5) < 4 * (0.25 / 10_000) ** 0.5


def test_rows_say_where_a_datum_came_from():
    data = make_data(TABLE)
    for split in (data.train, data.validation, data.test):
        assert torch.equal(split.x, torch.from_numpy(TABLE)[split.rows])


def test_labels_of_all_splits_share_their_indices():
    data = make_data(TABLE, ["b", "c"] * 25, test=(TABLE[:3], ["a", "c", "c"]))
    assert data.label_names == ("a", "b", "c")
    assert data.test.labels.tolist() == [0, 2, 2]
    assert set(data.train.labels.tolist()) == {1, 2}


def test_test_data_take_the_type_of_the_training_data():
    data = make_data(TABLE.astype(np.float32), test=(TABLE[:5], None))
    assert data.test.x.dtype == torch.float32
    assert make_data(torch.randn(20, 3).bfloat16()).train.x.dtype == torch.float32


def test_fixed_binarization_happens_once():
    data = make_data(RNG.uniform(size=(60, 9)), binarize="fixed")
    assert data.train.x.dtype == torch.uint8
    assert torch.equal(data.fixed("train", 1), data.fixed("train", 2))
    assert set(data.fixed("train").unique().tolist()) == {0.0, 1.0}


def test_test_data_held_out_by_others_stay_apart():
    test = np.full((5, 3), 7.0)
    data = make_data(TABLE, test=(test, None))
    assert len(data.train) + len(data.validation) == 50
    assert torch.equal(data.test.x, torch.from_numpy(test))


@pytest.mark.parametrize("value", [-np.inf, np.inf, 1e300])
def test_the_first_value_that_is_not_finite_is_named(value):
    table = TABLE.copy()
    table[17, 2] = table[18, 0] = value
    with pytest.raises(InputError, match=r"2 .*\(17, 2\)") as caught:
        make_data(table)
    assert caught.value.culprit == "array"
