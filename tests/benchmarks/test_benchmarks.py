"""`make bench` runs, at tiny sizes: what it measures is told in docs/performance.md."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import benchmarks
from benchmarks import row, table
from tests.conftest import PATIENCE, ROOT, environment


def bench(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "benchmarks", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=PATIENCE
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", benchmarks.MEASUREMENTS)
def test_a_measurement_gives_figures(name: str, tmp_path: Path) -> None:
    done = bench(name, "--quick", "--json", tmp_path / "a.json", "--markdown", tmp_path / "a.md")
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "a.json").read_text())["results"][name]
    assert figures
    assert all(figure["median"] > 0 for figure in figures)
    assert all(figure["low"] <= figure["median"] <= figure["high"] for figure in figures)
    # Of the report 10,000 runs have one, and of a step of speech nobody has asked for one.
    assert any(figure["limit"] for figure in figures) or name in ("report", "speech")
    assert f"### `{name}`" in (tmp_path / "a.md").read_text()


def test_an_unknown_measurement_is_named() -> None:
    done = bench("raeder")
    assert done.returncode == 2
    assert "'raeder'" in done.stderr and "reader" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_ratio_is_the_median_of_pairs_with_its_interval() -> None:
    figure = row.ratio("a : b", [2.0] * 20, [1.0] * 10 + [2.0] * 10, ("<=", 1.2))
    assert (figure.median, figure.low, figure.high) == (1.5, 1.0, 2.0)
    assert figure.met is False
    assert row.ratio("a : b", [1.0], [1.0], (">=", 1.0)).met is True


def test_the_interval_of_a_median_covers_it_as_often_as_it_says() -> None:
    import numpy as np

    random = np.random.Generator(np.random.Philox(0))
    covered = 0
    for _ in range(500):
        figure = row.ratio("a : b", random.lognormal(0, 0.3, 30), np.ones(30))
        covered += figure.low <= 1.0 <= figure.high
    assert covered / 500 > 0.93


def test_the_table_says_what_was_missed() -> None:
    figure = row.ratio("a : b", [3.0, 3.0], [2.0, 2.0], ("<=", 1.05))
    assert "≤ 1.05" in table.plain({"x": [figure]})
    assert "| NO |" in table.markdown({"x": [figure]})
