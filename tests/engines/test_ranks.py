"""What a loss sums over all ranks has its gradient, over several devices as on one."""

import sys
from pathlib import Path

import numpy as np
import pytest

from lockstep.cluster.launch import launch
from lockstep.engines.contract import Topology
from tests import letters
from tests.conftest import ROOT
from tests.engines import ranks


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return letters.prepared(tmp_path_factory.mktemp("ranks") / "mine").parents[1]


@pytest.mark.parametrize("side", ["torch", "jax"])
def test_a_sum_over_ranks_within_the_loss_has_its_gradient(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}/workflow:{ROOT}")
    output = tmp_path / "found.npz"
    command = [sys.executable, "-m", "tests.engines.ranks", side, str(folder), str(output)]
    processes = {"torch": 2, "jax": 1}[side]
    assert launch(command, processes=processes, threads=2, devices=2 // processes) == 0
    expected = ranks.probed("torch", folder, Topology())
    with np.load(output) as found:
        assert set(found) == set(expected)
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, rtol=1e-10, atol=1e-13, err_msg=name)
