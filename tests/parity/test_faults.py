"""Each fault of one side alone stops the ladder at its rung, by its tensor; rewrites pass."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import pictures
from tests.parity import (
    faults,
    faults_feed,
    faults_harmless,
    faults_jax,
    faults_several,
    faults_torch,
)
from tests.parity.faults import Fault, Ground
from tests.parity.faults_harmless import Rewrite

ALONE = [*faults_torch.FAULTS, *faults_jax.FAULTS, *faults_feed.FAULTS]


def named(it: Fault | Rewrite) -> str:
    return f"{it.side}: {it.name}"


@pytest.fixture(scope="module")
def ground(
    tmp_path_factory: pytest.TempPathFactory, digits: Path, caches: Path
) -> Iterator[Ground]:
    folder = tmp_path_factory.mktemp("faults")
    coloured = pictures.write(folder / "pictures", pictures.coloured())
    yield Ground(folder, {"digits": digits, "pictures": coloured}, caches)


@pytest.mark.parametrize("fault", ALONE, ids=named)
def test_a_fault_of_one_side_is_named(ground: Ground, fault: Fault) -> None:
    found = faults.found(ground, fault)
    assert (found.rung, found.named) == (fault.rung, fault.named), found.said
    assert fault.most in found.said


@pytest.mark.parametrize("rewrite", faults_harmless.REWRITES, ids=named)
def test_a_harmless_rewrite_passes(ground: Ground, rewrite: Rewrite) -> None:
    assert faults_harmless.failure(ground, rewrite) is None


@pytest.mark.parametrize("side", ["torch", "jax"])
def test_faults_over_two_processes_are_named(ground: Ground, side: str) -> None:
    wrong = faults_several.wrong(ground, side)
    assert wrong == []


def test_the_table_is_of_both_sides() -> None:
    over_two = [fault for known in faults_several.FAULTS.values() for fault in known()]
    sides = Counter(fault.side for fault in (*ALONE, *over_two))
    assert sides["torch"] >= 30 and sides["jax"] >= 30
    assert len(faults_harmless.REWRITES) >= 12
