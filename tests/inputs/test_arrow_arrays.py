"""Arrow arrays that are made without pandas."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rayclip.inputs.arrow_arrays import binary_array, numeric_array


@pytest.mark.parametrize("values", [[], [b""], [b"a", b"", b"\xff\x00b", b"c" * 1000]])
def test_bytes_are_as_pyarrow_has_them(values: list[bytes]) -> None:
    assert binary_array(values) == pa.array(values, pa.large_binary())


@pytest.mark.parametrize("kind", [bool, np.uint8, np.int64])
@pytest.mark.parametrize("count", [0, 1, 8, 11])
def test_numbers_are_as_pyarrow_has_them(kind: Any, count: int) -> None:
    values = (np.arange(20) % 3).astype(kind)[5 : 5 + count]
    assert numeric_array(values) == pa.array(values)


def test_inputs_are_read_without_pandas() -> None:
    code = """
import sys
import numpy
from rayclip.inputs.arrow_arrays import numeric_array
from rayclip.inputs.video_rows import name_tables, names_in
for table in name_tables(["b.mp4", "a.mp4"], 2):
    print(names_in(table.filter(numeric_array(numpy.array([False, True])))))
print("pandas" in sys.modules)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stdout == "['a.mp4']\nFalse\n", ended.stderr
