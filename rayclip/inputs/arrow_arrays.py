"""Arrow arrays, made without pandas.

``pyarrow.array`` imports pandas where it is installed, which takes longer than all else that the
command of a run without Ray imports.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def binary_array(values: Sequence[bytes]) -> pa.Array:
    """Return an array of type ``large_binary``."""
    offsets = np.cumsum([0, *map(len, values)], dtype=np.int64)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(values))]
    return pa.Array.from_buffers(pa.large_binary(), len(values), buffers)


def numeric_array(values: NDArray[Any]) -> pa.Array:
    """Return an array of numbers or booleans.

    Args:
        values: ``[n]``, contiguous.
    """
    content = np.packbits(values, bitorder="little") if values.dtype == bool else values
    kind = pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(content)])
