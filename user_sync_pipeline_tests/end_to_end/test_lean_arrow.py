from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
import pyarrow as pa
from user_sync_pipeline.cli.lean_arrow import lean_arrow

pool = pa.default_memory_pool().backend_name
with lean_arrow():
    assert pa.array(["a", None]).null_count == 1
    assert "pandas" not in sys.modules
    assert pa.default_memory_pool().backend_name == "system"
assert pa.default_memory_pool().backend_name == pool

import pandas as pd
moments = [pd.Timestamp("2026-01-01", tz="UTC"), pd.NaT]
frame = pd.DataFrame({"text": ["a", None], "number": [1.5, float("nan")], "at": moments})
table = pa.Table.from_pandas(frame)
assert [column.null_count for column in table.columns] == [1, 1, 1], table
assert table.to_pandas().equals(frame)
assert pa.array(frame["number"], from_pandas=True).null_count == 1
"""


@pytest.mark.slow
def test_a_command_keeps_pandas_out_and_leaves_arrow_as_it_was() -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
