"""Arrays that make_data must refuse, and arguments of it that contradict one another."""

import numpy as np
import torch

from ppl_vae import make_data

from . import Call
from .data_files import RNG, TABLE, ragged

X = TABLE
BYTES = RNG.integers(256, size=(30, 6, 5), dtype=np.uint8)
MASKED = np.ma.masked_array(X, mask=X > 2)
COUNTS = RNG.integers(9, size=(60, 4))
ARRAYS = {
    "none": (None, "array: data are of type object, but must be numbers"),
    "text": ("hello", "array: data are of type <U5, but must be numbers"),
    "number": (3.0, r"array: an array of shape \(\) holds no data, expected \(N, ...\)"),
    "empty-list": ([], r"array: an array of shape \(0,\) holds no data, expected"),
    "list": ([1.0, 2.0], r"array: an array of shape \(2,\) holds no data, expected"),
    "ragged-list": ([[1.0], [1.0, 2.0]], "array: data are ragged, every datum needs the same shape"),
    "ragged-array": (ragged(), "array: data are of type object, but must be numbers"),
    "dict": ({"x": X}, "array: data are of type object, but must be numbers"),
    "set": ({1, 2}, "array: data are of type object, but must be numbers"),
    "generator": ((row for row in X), "array: data are of type object, but must be numbers"),
    "class": (np.ndarray, "array: data are of type object, but must be numbers"),
    "objects": (X.astype(object), "array: data are of type object, but must be numbers"),
    "huge-integers": ([[10**400, 1]] * 20, "array: data are of type object, but must be numbers"),
    "strings": (X.astype(str), "array: data are of type <U32, but must be numbers"),
    "complex": (X * 1j, "array: data are of type complex128, but must be numbers"),
    "complex-tensor": (torch.ones(9, 2) * 1j, "array: data are of type complex64, but must be"),
    "dates": (np.zeros((9, 2), "datetime64[s]"), "array: data are of type datetime64.s., but must"),
    "records": (np.zeros((9, 2), [("a", "f4")]), r"array: data are of type \[\('a', .*, but must be"),
    "voids": (np.zeros((9, 2), "V4"), r"array: data are of type .*V4, but must be numbers"),
    "sparse-tensor": (torch.eye(9).to_sparse(), "array: the tensor is sparse: make it dense with"),
    "meta-tensor": (torch.ones(9, 2, device="meta"), "array: the tensor is of the device meta: give one with values"),
    "masked": (MASKED, "array: .* values are masked: impute them"),
    "no-axis": (np.zeros((9, 0, 5)), r"array: an array of shape \(9, 0, 5\) holds no data"),
    "nan": (np.where(X[3, 1] == X, np.nan, X), r"array: 1 values are NaN.* \(3, 1\): remove or"),
    "infinite": (np.where(X[3, 1] == X, -np.inf, X), r"infinite or beyond.* \(3, 1\): remove or"),
    "float16-infinite": (np.float16([[1, np.inf]] * 9), r"infinite or beyond.* \(0, 1\): remove or"),
    "bfloat16-nan": (torch.full((9, 2), torch.nan, dtype=torch.bfloat16), r"18 values are NaN"),
    "longdouble": (np.full((9, 2), np.longdouble("1e4000")), "18 values are .*beyond float32"),
    "too-large": (np.full((9, 2), 1e39), "18 values are .*beyond float32, the first .*: remove or"),
}  # fmt: skip
ARGUMENTS = [
    ("labels-few", X, {"labels": [1, 2]}, r"labels have shape \(2,\), but there are 60 data: exp"),
    ("labels-number", X, {"labels": 3}, r"labels have shape \(\), but there are 60 data: expected"),
    ("labels-ragged", X, {"labels": [[1], [1, 2]] * 30}, "labels are ragged: expected one for each"),
    ("test-array", X, {"test": X}, r"test must be a pair \(x, labels\)"),
    ("test-shape", X, {"test": (X[:, 1:], None)}, r"\(test\): test data have shape \(3,\), training"),
    ("test-nan", X, {"test": (X * np.nan, None)}, r"array \(test\): 240 values are NaN.*: remove or"),
    ("test-labels", X, {"labels": range(60), "test": (X, [1])}, r"\(test\): labels have shape \(1,\)"),
    ("levels-zero", COUNTS, {"levels": 0}, r"levels=0 must be 1 \.\.\. 255, of whole numbers"),
    ("levels-many", COUNTS, {"levels": 256}, r"levels=256 must be 1 \.\.\. 255, of whole numbers"),
    ("levels-float", COUNTS, {"levels": 9.5}, r"levels=9.5 must be 1 \.\.\. 255, of whole numbers"),
    ("levels-text", COUNTS, {"levels": "9"}, r"levels='?9'? must be 1 \.\.\. 255, of whole numbers"),
    ("levels-of-floats", X, {"levels": 9}, r"levels=9 must be 1 \.\.\. 255, of whole numbers"),
    ("levels-too-few", COUNTS, {"levels": 3}, r"values run from 0 to 8, outside the levels 0 \.\.\. 3"),
    ("levels-negative", COUNTS - 5, {"levels": 9}, r"values run from -5 to 3, outside the levels"),
    ("binarize", BYTES, {"binarize": "maybe"}, "binarize must be one of none, fixed, .*'maybe'"),
    ("binarize-list", BYTES, {"binarize": ["fixed"]}, "binarize must be one of none, fixed, dynamic"),
    ("binarize-table", X, {"binarize": "fixed"}, r"\[0, 1\] can be binarized: rescale them"),
    ("validation-zero", X, {"validation_fraction": 0}, "must be between 0 and 1, got 0"),
    ("validation-nan", X, {"validation_fraction": np.nan}, "must be between 0 and 1, got nan"),
    ("test-all", X, {"test_fraction": 1}, "must be between 0 and 1, got 1"),
    ("test-text", X, {"test_fraction": "half"}, "must be between 0 and 1, got '?half"),
    ("nothing-left", X, {"test_fraction": 0.6, "validation_fraction": 0.6}, "too few to hold out 36"),
    ("one-row", X[:1], {}, "1 data are too few to hold out 1 for validation and 1 for testing: "),
]  # fmt: skip
CALLS = [
    *(
        Call("make_data", name, lambda w, x=x: make_data(x), message)
        for name, (x, message) in ARRAYS.items()
    ),
    *(
        Call("make_data", name, lambda w, x=x, given=given: make_data(x, **given), message)
        for name, x, given, message in ARGUMENTS
    ),
]
