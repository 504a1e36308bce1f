"""A record that contradicts itself, or its job's record, on the conditions of its run."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lockstep.archive import arithmetic, conditions
from lockstep.training import records
from tests.archive import tamper
from tests.archive.conftest import Archived

RUN = "mnist_cnn/torch-eager/1x1/seed-0"
RECORD = f"results/small/runs/{RUN}/summary.json"


@pytest.fixture(scope="module")
def recorded(archived: Archived) -> tuple[dict[str, Any], dict[str, Any]]:
    """A run's summary and its job's record."""
    contents = tamper.load(archived.file)
    job = contents[f"results/small/logs/train/{RUN}.json"]
    return json.loads(contents[RECORD]), json.loads(job)


def put(path: str, value: object) -> Callable[[dict], None]:
    """Change a field; None takes it away."""

    def change(told: dict) -> None:
        *parents, last = path.split(".")
        for key in parents:
            told = told[key]
        del told[last]
        if value is not None:
            told[last] = value

    return change


def everywhere(field: str, value: object) -> Callable[[dict], None]:
    """Change a fact of the machine wherever the record has it."""

    def change(told: dict) -> None:
        host = told["contract"]["host"]
        for facts in (host, *host["nodes"]):
            facts[field] = value

    return change


CHANGES = {
    "contract.engine has torch 9.9, determined_by": put("contract.engine.torch", "9.9"),
    "contract.host.cpu is not that of its first node": put("contract.host.cpu", "Abacus"),
    "contract.host.cores is not that of its first node": put("contract.host.cores", 512),
    "contract.host.cpu is not that of its job": everywhere("cpu", "Abacus"),
    "contract.host.instruction_set is not that of its job": everywhere("instruction_set", "0" * 12),
    "contract.variant is not that of determined_by": put("contract.variant.workers", 77),
    "contract.topology.threads is not that of determined_by": put("contract.topology.threads", 64),
    "has no contract.host.cpu, which": put("contract.host.cpu", None),
    "has no contract.host.instruction_set, which": put("contract.host.instruction_set", None),
    "has no contract.topology.threads, which": put("contract.topology.threads", None),
    "has no weights.final, which": put("weights.final", None),
}
"""By the finding that it must become."""


@pytest.mark.parametrize("names", CHANGES)
def test_a_contradiction_is_named(recorded: tuple[dict, dict], names: str) -> None:
    summary = copy.deepcopy(recorded[0])
    CHANGES[names](summary)
    found = list(conditions.check(summary, recorded[1]))
    assert any(problem.startswith(f"summary.json: {names}") for problem in found), found


def test_a_record_that_agrees_is_none(recorded: tuple[dict, dict]) -> None:
    summary, job = recorded
    assert list(conditions.check(summary, job)) == []
    assert list(conditions.check(summary, None)) == []


def test_a_run_that_another_job_made_may_be_of_another_machine(
    recorded: tuple[dict, dict],
) -> None:
    summary, job = copy.deepcopy(recorded)
    everywhere("cpu", "Abacus")(summary)
    job["started"] = "2999-01-01T00:00:00+00:00"
    assert list(conditions.check(summary, job)) == []


def test_it_is_found_in_an_archive_whose_hashes_fit(
    file: Path, findings: Callable[[], list[str]]
) -> None:
    def change(summary: dict) -> None:
        everywhere("cpu", "Abacus")(summary)
        summary["flops"]["forward_per_example"] *= 2

    tamper.forge(file, lambda contents: tamper.edit_json(contents, RECORD, change))
    found = findings()
    for names in ("contract.host.cpu is not that of its job", "flops.total is"):
        assert any(f"runs/{RUN}/summary.json: {names}" in problem for problem in found), found


def test_operations_are_counted_as_records_count_them() -> None:
    assert arithmetic.FORMULA == records.FLOPS_FORMULA
