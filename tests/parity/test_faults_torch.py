"""Each fault of PyTorch's side alone stops the ladder at its rung, by its tensor; rewrites pass."""

import pytest

from tests.parity import faults, faults_feed, faults_harmless, faults_several, faults_torch
from tests.parity.faults import Fault, Ground
from tests.parity.faults_harmless import Rewrite

FAULTS = [*faults_torch.FAULTS, *(f for f in faults_feed.FAULTS if f.side == "torch")]
REWRITES = [rewrite for rewrite in faults_harmless.REWRITES if rewrite.side == "torch"]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_of_one_side_is_named(ground: Ground, fault: Fault) -> None:
    found = faults.found(ground, fault)
    assert (found.rung, found.named) == (fault.rung, fault.named), found.said
    assert fault.most in found.said


@pytest.mark.parametrize("rewrite", REWRITES, ids=lambda rewrite: rewrite.name)
def test_a_harmless_rewrite_passes(ground: Ground, rewrite: Rewrite) -> None:
    assert faults_harmless.failure(ground, rewrite) is None


def test_the_table_is_long_enough() -> None:
    assert len(FAULTS) + len(faults_several.FAULTS["torch"]()) >= 30
    assert len(REWRITES) >= 6
