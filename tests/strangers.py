"""What a stranger can prepare: a diagnosis of a run, signed anew after each change."""

import json

import numpy as np
import xarray

from ppl_vae.diagnostics.diagnosis import Diagnosis, _digest
from ppl_vae.diagnostics.verdicts import Verdict
from ppl_vae.storage.arviz_io import as_inference_data


def some_diagnosis():
    rng = np.random.default_rng(0)
    groups = {
        "diagnostics": xarray.Dataset(
            {"k_hat": ("datum", np.linspace(0, 1, 5))}, attrs={"k_hat_threshold": 0.7}
        ),
        "calibration": xarray.Dataset(
            {
                "rank": (
                    ("simulation", "quantity"),
                    rng.integers(101, size=(200, 2)),
                ),
                "p_value": ("quantity", [0.5, 0.5]),
                "expected_coverage": (("quantity", "level"), np.ones((2, 3))),
            },
            {"quantity": ["z[0]", "log p(x|z)"], "level": [0.1, 0.5, 0.9]},
            {"draws": 100, "level": 0.004},
        ),
    }
    verdict = Verdict("Covered?", "pass", "yes", "share", 0.1, 0.01, "1", "at 0.5", "me", "none")
    about = {"program": "VAE", "data": "digits", "seed": 0, "draws": 10}
    return Diagnosis({"coverage": verdict}, as_inference_data(groups, about), about)


def refuses(shell, words, *names):
    """Run a command line that must be refused with one line; returns it."""
    code, out, err = shell(*words)
    assert (code, out) == (2, ""), err
    assert err.count("\n") == 1, err
    assert err[:-1].isprintable()
    for name in names:
        assert name in err
    return err


def sign(run, found=None):
    """What a stranger can do as well as the program."""
    file = run / "results" / "diagnosis.json"
    found = json.loads(file.read_text()) if found is None else found
    found.pop("sha256", None)
    found["sha256"] = _digest(file.with_suffix(".nc"), found)
    file.write_text(json.dumps(found))
