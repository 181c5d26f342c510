"""How long a newcomer waits: help, loading the definitions, starting the sandbox, the whole demo.

Prints one Markdown table with medians; run it as `python benchmarks/first_minute.py [--runs 5] [--users 5000]`.
Whole processes, start included, one after the other, so that nothing competes with what is measured.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

START_SANDBOX = "from user_sync_pipeline.sandbox.servers import Sandbox\nwith Sandbox({users}): pass"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--users", type=int, default=5000)
    options = parser.parse_args()

    programs = Path(sys.executable).parent
    user_sync = str(programs / "user-sync")
    commands = {
        "`user-sync --help`": ([user_sync, "--help"], 0.5),
        "`dagster definitions validate`": (
            [str(programs / "dagster"), "definitions", "validate", "-m", "user_sync_pipeline.definitions"],
            6.0,
        ),
        f"sandbox with {options.users:,} users, start and stop, Python's own start included": (
            [sys.executable, "-c", START_SANDBOX.format(users=options.users)],
            None,
        ),
        f"`user-sync demo --users {options.users}`": (
            [user_sync, "demo", "--users", str(options.users), "--json"],
            25.0,
        ),
    }
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, median of {options.runs} runs\n")
    print("| what | seconds (median) | least | most | to reach |")
    print("| --- | --- | --- | --- | --- |")
    for name, (command, limit) in commands.items():
        seconds = [measure(command) for _ in range(options.runs)]
        reach = f"under {limit:g}" if limit else "-"
        print(f"| {name} | {statistics.median(seconds):.2f} | {min(seconds):.2f} | {max(seconds):.2f} | {reach} |")


def measure(command: list[str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "DAGSTER_HOME": folder}
        started = time.perf_counter()
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
        return time.perf_counter() - started


if __name__ == "__main__":
    main()
