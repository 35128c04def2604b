"""Checkpoints whose checksum is right, and whose contents are not: whoever forges one can count."""

import pytest
import torch

from ppl_vae import InputError
from ppl_vae.storage.tensors import read_tensors, write_tensors

from .resuming import resume


def refuses(run, forge):
    """Forge the newest checkpoint, and see that it is refused, and left as it is."""
    file = run.checkpoints.files()[0]
    tensors, about = read_tensors(file)
    forge(tensors, about)
    write_tensors(file, tensors, about)
    before = file.read_bytes()
    with pytest.raises(InputError, match="that is not of this fit|was begun with") as caught:
        resume(run)
    assert "\n" not in str(caught.value)
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("state", "steps"), "many"),
        (("state", "batches"), -1),
        (("state", "batches"), 10**9),
        (("state", "loss"), float("nan")),
        (("state", "best_score"), None),
        (("state", "num_divergences"), 3),
        (("state", "lr_scale"), 7.0),
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
def test_a_forged_checkpoint_is_refused(stopped, path, value):
    def forge(tensors, about):
        for name in path[:-1]:
            about = about[name]
        about[path[-1]] = value

    refuses(stopped[0], forge)


@pytest.mark.parametrize("name", ["program/decoder.mlp.0.bias", "moments/0/exp_avg", "random/cpu"])
@pytest.mark.parametrize("how", ["missing", "of another shape"])
def test_a_forged_tensor_is_refused(stopped, name, how):
    def forge(tensors, about):
        tensors.pop(name)
        if how != "missing":
            tensors[name] = torch.zeros(3)

    refuses(stopped[0], forge)
