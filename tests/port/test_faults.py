"""A few of the suite's faults and harmless rewrites; `make drill-port` runs all of them."""

import pytest

from lockstep.port import check
from tests.port import faults

SOME = (
    "padding SAME",
    "momentum reversed",
    "dropout left on",
    "padding looked at",
    "embeddings not scaled",
    "clipping's 1e-6",
)
SOUND = ("one product", "convolution as a product")


def _named(known: tuple[faults.Fault, ...], names: tuple[str, ...]) -> list:
    return [pytest.param(f, id=f"{f.pair}: {f.name}") for f in known if f.name in names]


@pytest.mark.parametrize("fault", _named(faults.FAULTS, SOME))
def test_the_first_value_and_the_cause_are_named(fault: faults.Fault) -> None:
    assert faults.found(faults.run(fault)) == (fault.first, fault.kind)


@pytest.mark.parametrize("fault", _named(faults.HARMLESS, SOUND))
def test_a_harmless_rewrite_is_not_accused(fault: faults.Fault) -> None:
    outcome = faults.run(fault)
    assert outcome.passed
    assert all(value.status == "equal" for finding in outcome.findings for value in finding.values)


def test_gradients_are_compared_in_the_layouts_of_the_map() -> None:
    fault = faults.Fault("encoder", "sound", {})
    described = faults.described(fault)
    prepared = check.prepare(described)
    outcome = check.check(prepared, check.Options(precisions=("float64",), gradients=True))
    found = outcome.findings[-1]
    assert found.name == "gradients, float64" and found.passed
    assert len(found.values) == len(prepared.lines)
