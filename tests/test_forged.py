"""Checkpoints whose checksum is right, and whose contents are not: whoever forges one can count."""

import pytest
import torch

from ppl_vae import InputError
from ppl_vae.tensors import read_tensors, write_tensors

from .resuming import resume


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("state", "steps"), "many"),
        (("state", "batches"), -1),
        (("state", "batches"), 10**9),
        (("state", "loss"), float("nan")),
        (("state", "score"), None),
        (("state", "engine"), {"shape": [1, 2]}),
        (("state", "engine"), []),
        (("history", "epochs"), [{"epoch": 7}]),
        (("history", "epochs"), "none"),
        (("history", "best_epoch"), "last"),
        (("history", "other"), 1),
        (("machine",), 3),
        (("settings",), None),
        (("state",), []),
    ],
    ids=str,
)
def test_a_forged_checkpoint_is_refused(
    stopped,
    path,
    value,
):
    run, _ = stopped
    file = run.checkpoints.files()[0]
    tensors, about = read_tensors(file)
    place = about
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    write_tensors(file, tensors, about)
    before = read_tensors(file)[1]
    with pytest.raises(InputError, match="is not of this fit|was begun with") as caught:
        resume(run)
    assert "\n" not in str(caught.value)
    assert repr(read_tensors(file)[1]) == repr(before)


@pytest.mark.parametrize("name", ["program/decoder.mlp.0.bias", "moments/0/exp_avg", "random/cpu"])
@pytest.mark.parametrize("how", ["missing", "of another shape"])
def test_a_forged_tensor_is_refused(
    stopped,
    name,
    how,
):
    run, _ = stopped
    file = run.checkpoints.files()[0]
    tensors, about = read_tensors(file)
    tensors.pop(name)
    if how != "missing":
        tensors[name] = torch.zeros(3)
    write_tensors(file, tensors, about)
    with pytest.raises(InputError, match="is not of this fit"):
        resume(run)
