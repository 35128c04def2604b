"""Arrays that make_data must refuse, and arguments of it that contradict one another."""

import numpy as np
import torch

from ppl_vae import make_data

from . import Call
from .data_files import RNG, TABLE

X = TABLE
BYTES = RNG.integers(256, size=(30, 6, 5), dtype=np.uint8)
COUNTS = RNG.integers(9, size=(60, 4))
ARRAYS = {
    "objects": X.astype(object),
    "strings": X.astype(str),
    "huge-integers": [[10**400, 1]] * 20,
    "complex-tensor": torch.ones(9, 2) * 1j,
    "records": np.zeros((9, 2), [("a", "f4")]),
    "generator": (row for row in X),
    "number": 3.0,
    "list": [1.0, 2.0],
    "no-axis": np.zeros((9, 0, 5)),
    "ragged-list": [[1.0], [1.0, 2.0]],
    "sparse-tensor": torch.eye(9).to_sparse(),
    "meta-tensor": torch.ones(9, 2, device="meta"),
    "masked": np.ma.masked_array(X, mask=X > 2),
    "nan": np.where(X[3, 1] == X, np.nan, X),
    "float16-infinite": np.float16([[1, np.inf]] * 9),
    "bfloat16-nan": torch.full((9, 2), torch.nan, dtype=torch.bfloat16),
    "longdouble": np.full((9, 2), np.longdouble("1e4000")),
    "too-large": np.full((9, 2), 1e39),
    "one-row": X[:1],
}
# The array, the other arguments, and the culprit.
ARGUMENTS = {
    "labels-few": (X, {"labels": [1, 2]}, "array"),
    "labels-ragged": (X, {"labels": [[1], [1, 2]] * 30}, "array"),
    "test-array": (X, {"test": X}, "array"),
    "test-shape": (X, {"test": (X[:, 1:], None)}, "array (test)"),
    "test-nan": (X, {"test": (X * np.nan, None)}, "array (test)"),
    "test-labels": (X, {"labels": range(60), "test": (X, [1])}, "array (test)"),
    "levels-zero": (COUNTS, {"levels": 0}, "array"),
    "levels-many": (COUNTS, {"levels": 256}, "array"),
    "levels-text": (COUNTS, {"levels": "9"}, "array"),
    "levels-of-floats": (X, {"levels": 9}, "array"),
    "levels-too-few": (COUNTS, {"levels": 3}, "array"),
    "levels-negative": (COUNTS - 5, {"levels": 9}, "array"),
    "levels-of-test": (np.eye(9, dtype=np.uint8), {"test": (BYTES[:, 0], None)}, "array (test)"),
    "binarize": (BYTES, {"binarize": "maybe"}, "binarize"),
    "binarize-table": (X, {"binarize": "fixed"}, "array"),
    "validation-zero": (X, {"validation_fraction": 0}, None),
    "validation-nan": (X, {"validation_fraction": np.nan}, None),
    "test-all": (X, {"test_fraction": 1}, None),
    "test-text": (X, {"test_fraction": "half"}, None),
    "nothing-left": (X, {"test_fraction": 0.6, "validation_fraction": 0.6}, "array"),
    "covariates-list": (X, {"covariates": [X]}, "array"),
}
# Covariates of the 60 rows of X.
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
    "scalar": {"mask": 3},
    "nan": {"mask": X * np.nan},
    "uint64": {"mask": np.full(60, 2**64 - 1, dtype=np.uint64)},
}
# Covariates of training and test data that differ.
APART = {
    "none-in-test": ({"mask": X}, {}),
    "none-in-training": (None, {"mask": X}),
    "test-shape": ({"mask": X}, {"mask": X[:, 1:]}),
    "test-rows": ({"mask": X}, {"mask": X[1:]}),
}
CALLS = [
    *(Call("make_data", name, lambda w, x=x: make_data(x), "array") for name, x in ARRAYS.items()),
    *(
        Call("make_data", name, lambda w, x=x, given=given: make_data(x, **given), culprit)
        for name, (x, given, culprit) in ARGUMENTS.items()
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
