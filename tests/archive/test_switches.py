"""No word that a forger writes into an archive keeps verifying from looking."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from lockstep.archive import layout, verify
from tests.archive import tamper
from tests.archive.conftest import wrong
from tests.archive.tamper import Contents
from tests.archive.test_forged import COMPLETE, PAGE, more_words, write_page

PARITY = "results/small/parity/mnist_cnn"
REPORT = "results/small/report/report.json"
RULES = "source/workflow/lockstep/parity/rungs.py"


def other_schema(contents: Contents) -> None:
    """Have the verdict name other rules, and passed.json fit."""
    name = f"{PARITY}/verdict.json"
    tamper.edit_json(contents, name, lambda verdict: verdict.update(schema="lockstep-parity/1"))
    verdict = hashlib.sha256(contents[name]).hexdigest()
    tamper.edit_json(contents, f"{PARITY}/passed.json", lambda told: told.update(verdict=verdict))


def better_verdict(contents: Contents) -> None:
    def change(verdict: dict) -> None:
        verdict["comparisons"]["jax-jit"]["rungs"][1]["value"] = 1e-16

    tamper.edit_json(contents, f"{PARITY}/verdict.json", change)
    other_schema(contents)


def no_traces(contents: Contents) -> None:
    other_rules(contents)
    contents[f"{PARITY}/jax-jit.npz"] = b"no trace at all"


def other_rules(contents: Contents) -> None:
    contents[RULES] += b"OTHER = True\n"
    other_schema(contents)


def other_version(contents: Contents) -> None:
    tamper.edit_json(contents, layout.MANIFEST, lambda told: told.update(lockstep="0.0.9"))
    more_words(contents)


def no_version(contents: Contents) -> None:
    contents["source/workflow/lockstep/__init__.py"] = b"raise SystemExit\n"


def round_otherwise(contents: Contents) -> None:
    """Move a number of report.json as another NumPy would, and have complete.json fit."""
    tamper.edit_json(contents, REPORT, _nudge)
    sums = {"report.json": hashlib.sha256(contents[REPORT]).hexdigest()}
    tamper.edit_json(contents, COMPLETE, lambda complete: complete.update(sums))


def _nudge(report: dict) -> None:
    report["verdicts"][0]["first_step"]["largest"] *= 1 + 1e-11


def rounded_and_more_words(contents: Contents) -> None:
    round_otherwise(contents)
    more_words(contents)


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (other_schema, f"{PARITY.removeprefix('results/small/')}/verdict.json: schema says"),
        (better_verdict, "verdict.json: comparisons.jax-jit.rungs.1.value says"),
        (no_traces, "parity/mnist_cnn/jax-jit.npz: not readable"),
        (other_version, "manifest.json: names version 0.0.9, source/workflow/lockstep/__init__"),
        (no_version, "source/workflow/lockstep/__init__.py states None"),
        (rounded_and_more_words, "report/index.html: is not what the records make it, from"),
    ],
)
def test_a_word_that_would_switch_a_check_off_is_found(
    file: Path, findings: Callable[[], list[str]], change: Callable[[Contents], None], names: str
) -> None:
    tamper.forge(file, change)
    found = findings()
    assert any(names in problem for problem in found), found


def test_a_verdict_by_other_rules_that_are_in_the_archive_is_left_open(file: Path) -> None:
    tamper.forge(file, other_rules)
    checks = verify.verify(file)
    assert wrong(checks) == [] and [check.name for check in checks if check.open] == ["parity"]


def rounded_and_other_digits(contents: Contents) -> None:
    round_otherwise(contents)
    shown = re.compile(rb'(<td class="n">0\.\d+)</td>')
    write_page(contents, shown.sub(rb"\g<1>5</td>", contents[PAGE], count=1))


def test_a_page_is_compared_without_numbers_where_those_were_rounded_otherwise(file: Path) -> None:
    tamper.forge(file, rounded_and_other_digits)
    checks = verify.verify(file)
    assert wrong(checks) == [] and not any(check.open for check in checks)
    assert any("but for numbers" in check.says for check in checks)
