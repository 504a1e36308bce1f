"""What verifying finds of records that say something else, although every hash fits."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from lockstep import files
from lockstep.archive import archive_reader, layout, verify
from lockstep.errors import UserError
from lockstep.report.page import says as text_of
from tests.archive import tamper
from tests.archive.archived import Archived, findings, holds
from tests.archive.tamper import Contents

TOP = "results/small/"
RUNS, BLOCKS = f"{TOP}runs/mnist_cnn", f"{TOP}blocks/mnist_cnn"
A, B, C, D = (f"{v}/1x1/seed-{s}" for v in ("jax-jit", "torch-eager") for s in (0, 1))
PARITY, PAGE = f"{TOP}parity/mnist_cnn", f"{TOP}report/index.html"
TABLE, NUMBERS = f"{TOP}report/tables/comparisons.csv", f"{TOP}report/report.json"
Change = Callable[[Contents], object]


def put(name: str, path: str, value: Any) -> Change:
    """Change a field of a JSON file (see `tamper.put`)."""
    return lambda c: tamper.edit_json(c, name, lambda told: tamper.put(told, path, value))


def of(run: str, path: str, value: Any) -> Change:
    return put(f"{RUNS}/{run}/summary.json", path, value)


def cell(run: str, table: str, column: str, factor: float) -> Change:
    """Change a number in the last row of a run's table."""
    return lambda contents: tamper.edit_table(contents, f"{RUNS}/{run}/{table}", column, factor)


def replaced(name: str, content: bytes) -> Change:
    return lambda contents: contents.update({name: content})


def edited(name: str, old: bytes, new: bytes) -> Change:
    """Change a text once, at what a pattern finds."""

    def change(contents: Contents) -> None:
        made = re.sub(old, new, contents[name], count=1)
        assert made != contents[name]
        contents[name] = made

    return change


def all_of(*changes: Change) -> Change:
    return lambda contents: [change(contents) for change in changes]


def removed(name: str) -> Change:
    return lambda contents: contents.pop(name)


def undescribed(contents: Contents) -> None:
    name = next(name for name in contents if name.startswith("data/datasets/"))
    put(name, "name", lambda old: [old])(contents)


def unbound(runs: dict) -> dict:
    return {name: {**entry, "sha256": {}} for name, entry in runs.items()}


OLD_VERDICT = put(f"{PARITY}/verdict.json", "schema", "lockstep-parity/1")
TABLES = {
    f"{A}/windows.csv: loss in row": cell(A, "windows.csv", "loss", 2.0),
    f"{C}/steps.npz is not readable": replaced(f"{RUNS}/{C}/steps.npz", b"no arrays"),
    "parity/mnist_cnn/jax-jit.npz: is not readable": replaced(f"{PARITY}/jax-jit.npz", b"neither"),
    f"{B}/summary.json: flops.total is": of(B, "flops.forward_per_example", 7),
    f"{D}/steps.npz: is not what its block has the hash of":
        put(f"{BLOCKS}/{D}.json", "runs", unbound),
}  # fmt: skip
SUMMARIES = {
    f"{B}/summary.json: identity is not the hash": of(B, "contract.determined_by.seed", 7),
    f"{B}/summary.json: trajectory is not the hash": lambda contents: None,
    f"{C}/summary.json: dataset.content is not that of": of(C, "dataset.content", "0" * 64),
    f"{C}/summary.json: has no weights.final, which": of(C, "weights.final", None),
    # What is left of a run is checked, though it is said that one of its records is missing.
    f"{A}/summary.json: has no host.cpu, which": all_of(
        of(A, "contract.host.cpu", None),
        removed(f"{RUNS}/{A}/steps.npz"),
        put(layout.ABOUT, "missing", lambda names: [*names, f"runs/mnist_cnn/{A}/steps.npz"]),
    ),
    "study/study.json: is not the config of": put(layout.STUDY, "workloads.mnist_cnn.epochs", 2),
    f"{D}/run.json: is missing, which archive.json does not say": removed(f"{RUNS}/{D}/run.json"),
    "archive.json: is not what config and records make it: complete is True, not False":
        put(layout.ABOUT, "include.data", True),
    "metadata.json: is missing": removed(layout.UPLOAD),
    # Neither a version's name nor a former format switches a check off.
    "verdict.json: does not follow from the traces: schema is": OLD_VERDICT,
}  # fmt: skip
DERIVED = {
    "archive.json: is not what config and records make it: lockstep is '0.0.9'":
        put(layout.ABOUT, "lockstep", "0.0.9"),
    "README.md: is not what config and records make it": replaced(layout.README, b"Nothing.\n"),
    "tables/comparisons.csv: does not follow from the records": edited(TABLE, rb"0\.", b"1."),
    "report.json: does not follow from the records: schema is 'x'": put(NUMBERS, "schema", "x"),
    "verdict.json: does not follow from the traces": put(
        f"{PARITY}/verdict.json", "comparisons.jax-jit.rungs.1.value", 1e-16
    ),
}  # fmt: skip
DAMAGE = {
    "parity/mnist_cnn/verdict.json: is no verdict": replaced(f"{PARITY}/verdict.json", b"[]"),
    f"blocks/mnist_cnn/{A}.json: no sound field 'runs":
        put(f"{BLOCKS}/{A}.json", "runs", {f"mnist_cnn/{A}": []}),
    "/manifest.json: field 'name' is missing or not of its kind": undescribed,
    f"{C}/summary.json is not a record of a run": replaced(f"{RUNS}/{C}/summary.json", b"[]"),
    "source/workflow/lockstep: is not the code that trained":
        replaced(f"{layout.PACKAGE}training/loop.py", b"\0"),
}  # fmt: skip
FORGED = {"tables": TABLES, "summaries": SUMMARIES, "derived": DERIVED, "damage": DAMAGE}
"""Changes by the finding that each must become; none of a file hides another's."""


def unfound(file: Path, expected: Iterable[str]) -> list[str]:
    """The texts that stand in no finding."""
    found = "\n".join(findings(file))
    return [says for says in expected if says not in found]


@pytest.mark.parametrize("kind", FORGED)
def test_each_file_that_disagrees_is_a_finding(file: Path, kind: str) -> None:
    fit = kind != "damage"
    tamper.forge(file, all_of(*FORGED[kind].values()), blocks=fit, crate=fit)
    assert unfound(file, FORGED[kind]) == []


def test_one_changed_number_is_one_finding_of_its_file_and_run(file: Path) -> None:
    tamper.forge(file, cell(A, "epochs.csv", "test_accuracy", 1.001))
    (problem,) = findings(file)
    assert f"{RUNS}/{A}/summary.json is contradictory: test_accuracy is not what" in problem


# The page -------------------------------------------------------------------------------------

PAGES = (
    edited(PAGE, b"</main>", b"<p>JAX wins.</p></main>"),
    edited(PAGE, b"<figcaption>", b"<figcaption><script>x()</script>"),
    edited(PAGE, b"<path ", b'<path data-x="1" '),
    edited(PAGE, b"</main>", b'<figure class="picture"><svg><rect/></svg></figure></main>'),
)


def test_another_page_is_found(archived: Archived, file: Path) -> None:
    """Whatever is put into its figures is, too."""
    original = tamper.load(file)
    figures = archived.study.report().parent / "figures"
    made = text_of(original[PAGE].decode(), figures)
    for change in PAGES:
        contents = dict(original)
        change(contents)
        assert text_of(contents[PAGE].decode(), figures) != made
    tamper.forge(file, PAGES[1])
    (problem,) = findings(file)
    assert problem.startswith(f"{PAGE}: is not what the records make it: line "), problem


def test_numbers_of_a_page_may_be_rounded_otherwise(file: Path) -> None:
    """As another NumPy would round them."""
    rounded = put(NUMBERS, "verdicts.0.first_step.largest", lambda v: v * (1 + 1e-11) + 1e-17)
    other = edited(PAGE, rb'(<td class="n">0\.\d+)</td>', rb"\g<1>5</td>")
    tamper.forge(file, all_of(rounded, other))
    assert "within 1e-09" in holds(file)
    tamper.forge(file, PAGES[0])
    assert unfound(file, ["is not what the records make it"]) == []


# What another version made --------------------------------------------------------------------


def code(name: str, more: bytes = b"OTHER = True\n") -> Change:
    return lambda c: c.update({layout.PACKAGE + name: c[layout.PACKAGE + name] + more})


OTHERS = {
    "README, metadata and description were made by another version, not compared":
        all_of(code("archive/description.py"), replaced(layout.README, b"x")),
    "the report was made by another version, not compared":
        all_of(code("report/page.css", b"/* */"), PAGES[0]),
    "was judged by another version's rules": all_of(code("parity/rungs.py"), OLD_VERDICT),
}  # fmt: skip


def test_what_another_version_made_is_not_compared_and_said(file: Path) -> None:
    tamper.forge(file, all_of(*OTHERS.values()))
    said = holds(file)
    assert all(says in said for says in OTHERS)


def test_what_the_published_sha256_alone_holds(file: Path) -> None:
    sha256 = files.sha256_file(file)
    log, more = edited(f"{TOP}logs/report.log", b"$", b"all is well\n"), f"{TOP}extra.bin"
    tamper.forge(file, all_of(log, replaced(more, b"x"), removed("source/config.yaml")))
    assert holds(file)
    with archive_reader.opened(file) as archive:
        found = verify.container(archive, sha256).wrong
    assert found == [f"{file.name}: has sha256 {archive.sha256}, not the one published"]


# Configs --------------------------------------------------------------------------------------

CONFIG = f"{TOP}study.json"
CONFIGS: dict[str, Change] = {
    "not complete at images": put(CONFIG, "images", None),
    "variants.jax-jit.framework is 'fortran'": put(CONFIG, "variants.jax-jit.framework", "fortran"),
    "'/x' is no name of a workload": put(CONFIG, "workloads.mnist_cnn.workload", "/x"),
    "it holds no keys": replaced(CONFIG, b'{"study": ' + b"[" * 100_000),
}


@pytest.mark.parametrize("says", CONFIGS)
def test_a_config_of_another_shape_is_one_line(file: Path, says: str) -> None:
    tamper.forge(file, CONFIGS[says])
    with pytest.raises(UserError, match="is not the config of a study") as refusal:
        findings(file)
    assert says in str(refusal.value) and "\n" not in str(refusal.value)
