"""What the description says of what was done, by which version and when, is what records say."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lockstep.archive import layout, story
from tests.archive import tamper
from tests.archive.tamper import Contents

RUN = "mnist_cnn/jax-jit/1x1/seed-0"
REPORT = "results/small/report/index.html"
LONG_AGO = "1999-01-01T00:00:00+00:00"


def described(identifier: str, **fields: object) -> Callable[[Contents], None]:
    def change(told: dict) -> None:
        (entity,) = (entity for entity in told["@graph"] if entity["@id"] == identifier)
        entity.update(fields)

    return lambda contents: tamper.edit_json(contents, layout.CRATE, change)


FORGED: dict[str, Callable[[Contents], None]] = {
    "source/Snakefile: its version is not": described("source/Snakefile", version="f" * 40),
    "source/Snakefile: its url is not": described("source/Snakefile", url="https://example.org"),
    "source/: its version is not": described("source/", version="9.9"),
    "#tool-train: its softwareVersion is not": described("#tool-train", softwareVersion="9.9"),
    "#engine: its softwareVersion is not": described("#engine", softwareVersion="1.0"),
    "#parity-mnist_cnn: its actionStatus is not": described(
        "#parity-mnist_cnn", actionStatus=story.FAILED
    ),
    f"#train-{RUN}: its instrument is not": described(
        f"#train-{RUN}", instrument={"@id": "#tool-report"}
    ),
    f"#train-{RUN}: its result is not": described(
        f"#train-{RUN}", result={"@id": "study/study.json"}
    ),
    "#report-small: its endTime is not": described("#report-small", endTime=LONG_AGO),
    "#study: its agent is not": described("#study", agent={"@id": "#somebody"}),
    "#study: its endTime is not": described("#study", endTime=LONG_AGO),
    "./: was published on 1999-01-01, but the study ended on": described(
        "./", datePublished="1999-01-01"
    ),
    f"{REPORT}: its contentSize is not that of the file": described(REPORT, contentSize="1"),
}
"""By the finding that it must become."""


@pytest.mark.parametrize("names", FORGED)
def test_a_description_of_something_else_is_found(
    file: Path, findings: Callable[[], list[str]], names: str
) -> None:
    tamper.forge(file, FORGED[names], crate=False)
    found = findings()
    assert any(problem.startswith(f"{layout.CRATE}: {names}") for problem in found), found


def other_commit(contents: Contents) -> None:
    def change(told: dict) -> None:
        told["source"]["commit"] = "0" * 40

    tamper.edit_json(contents, layout.MANIFEST, change)


def uncommitted(contents: Contents) -> None:
    contents[layout.DIFFERENCE] = b"--- a/x\n+++ b/x\n"


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (other_commit, "source/Snakefile: its version is not what config and records make it"),
        (uncommitted, "manifest.json: its note on the source does not fit source.diff"),
    ],
)
def test_a_manifest_of_other_source_is_found(
    file: Path, findings: Callable[[], list[str]], change: Callable[[Contents], None], names: str
) -> None:
    tamper.forge(file, change)
    found = findings()
    assert any(names in problem for problem in found), found
