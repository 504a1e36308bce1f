"""Each fault that only two processes show stops the ladder at its rung, by its tensor."""

import pytest

from tests.parity import faults_several
from tests.parity.faults import Ground


@pytest.mark.parametrize("side", faults_several.FAULTS)
def test_faults_over_two_processes_are_named(ground: Ground, side: str) -> None:
    assert faults_several.wrong(ground, side) == []
