"""Arrays that make_data must refuse, and arguments of it that contradict one another."""

import numpy as np
import torch

from ppl_vae import make_data

from . import Call
from .data_files import IMAGES, RNG, TABLE, with_value

X = TABLE
COUNTS = RNG.integers(9, size=(60, 4))
ARRAYS = {
    "objects": X.astype(object),
    "complex": X * 1j,
    "dates": np.zeros((9, 2), "datetime64[s]"),
    "0-d": 3.0,
    "1-d": [1.0, 2.0],
    "no-axis": np.zeros((9, 0, 5)),
    "ragged": [[1.0], [1.0, 2.0]],
    "sparse": torch.eye(9).to_sparse(),
    "meta": torch.ones(9, 2, device="meta"),
    "infinite": with_value(np.inf),
    "bfloat16-infinite": torch.full((9, 2), torch.inf, dtype=torch.bfloat16),
    "beyond-float32": with_value(1e39),
    "one-row": X[:1],
}
ARGUMENTS = [
    ("labels-few", X, {"labels": [1, 2]}, "array"),
    ("labels-ragged", X, {"labels": [[1], [1, 2]] * 30}, "array"),
    ("test-array", X, {"test": X}, "array"),
    ("test-shape", X, {"test": (X[:, 1:], None)}, "array (test)"),
    ("test-nan", X, {"test": (with_value(np.inf), None)}, "array (test)"),
    ("validation-array", X, {"validation": X}, "array"),
    ("validation-shape", X, {"validation": (X[:, 1:], None)}, "array (validation)"),
    ("validation-labels", X, {"labels": range(60), "validation": (X, [1])}, "array (validation)"),
    ("test-labels", X, {"labels": range(60), "test": (X, [1])}, "array (test)"),
    ("levels-zero", COUNTS, {"levels": 0}, "array"),
    ("levels-many", COUNTS, {"levels": 256}, "array"),
    ("levels-text", COUNTS, {"levels": "9"}, "array"),
    ("levels-of-floats", X, {"levels": 9}, "array"),
    ("levels-too-few", COUNTS, {"levels": 3}, "array"),
    ("levels-negative", COUNTS - 5, {"levels": 9}, "array"),
    ("levels-of-test", IMAGES // 255, {"test": (IMAGES, None)}, "array (test)"),
    ("binarize", IMAGES, {"binarize": ["fixed"]}, "binarize"),
    ("binarize-table", X, {"binarize": "fixed"}, "array"),
    ("validation-zero", X, {"validation_fraction": 0}, ""),
    ("validation-nan", X, {"validation_fraction": np.nan}, ""),
    ("test-all", X, {"test_fraction": 1}, ""),
    ("test-text", X, {"test_fraction": "half"}, ""),
    ("nothing-left", X, {"test_fraction": 0.6, "validation_fraction": 0.6}, "array"),
    ("covariates-list", X, {"covariates": [X]}, "array"),
]
COVARIATES = {
    "number-for-name": {3: X},
    "keyword": {"class": X},
    "spaces": {"my mask": X},
    "taken": {"x": X},
    "self": {"self": X},
    "ragged": {"mask": [[1], [1, 2]] * 30},
    "text": {"mask": X.astype(str)},
    "complex": {"mask": X * 1j},
    "rows": {"mask": X[1:]},
    "0-d": {"mask": 3},
    "nan": {"mask": X * np.nan},
    "uint64": {"mask": np.full(60, 2**64 - 1, dtype=np.uint64)},
}
# Covariates of training data, and others of test data.
APART = {
    "not-in-test": ({"mask": X}, {}),
    "not-in-training": (None, {"mask": X}),
    "test-shape": ({"mask": X}, {"mask": X[:, 1:]}),
    "test-rows": ({"mask": X}, {"mask": X[1:]}),
}
CALLS = [
    *(Call("make_data", name, lambda w, x=x: make_data(x), "array") for name, x in ARRAYS.items()),
    *(
        Call("make_data", name, lambda w, x=x, given=given: make_data(x, **given), culprit)
        for name, x, given, culprit in ARGUMENTS
    ),
    *(
        Call("make_data", f"covariate-{name}", lambda w, c=c: make_data(X, covariates=c), "array")
        for name, c in COVARIATES.items()
    ),
    *(
        Call(
            "make_data",
            f"covariate-{name}",
            lambda w, a=a, b=b: make_data(X, test=(X, None, b), covariates=a),
            "array (test)",
        )
        for name, (a, b) in APART.items()
    ),
]
