"""What verifying finds of records that say something else, although every hash fits."""

import hashlib
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lockstep.archive import archive_reader, derived_check, layout, verify
from lockstep.errors import UserError
from lockstep.records import record_tables
from lockstep.report.page import says as text_of
from lockstep.training import records
from tests.archive import tamper
from tests.archive.conftest import Archived, wrong
from tests.archive.tamper import Contents

TOP = "results/small/"
RUNS = f"{TOP}runs/mnist_cnn"
A, B, C, D = (f"{v}/1x1/seed-{s}" for v in ("jax-jit", "torch-eager") for s in (0, 1))
PARITY, PAGE = f"{TOP}parity/mnist_cnn", f"{TOP}report/index.html"
Change = Callable[[Contents], object]
Found = Callable[[], list[str]]


def put(name: str, path: str, value: Any) -> Change:
    """Change a field of a JSON file; None takes it away, a function makes it of the old one."""

    def change(told: Any) -> None:
        *parents, last = path.split(".")
        for key in parents:
            told = told[int(key) if isinstance(told, list) else key]
        if value is None:
            del told[last]
        else:
            told[last] = value(told[last]) if callable(value) else value

    return lambda contents: tamper.edit_json(contents, name, change)


def of(run: str, path: str, value: Any) -> Change:
    return put(f"{RUNS}/{run}/summary.json", path, value)


def cell(run: str, table: str, column: str, factor: float) -> Change:
    """Change a number in the last row of a run's table."""
    return lambda contents: tamper.edit_table(contents, f"{RUNS}/{run}/{table}", column, factor)


def replaced(name: str, content: bytes) -> Change:
    return lambda contents: contents.update({name: content})


def all_of(*changes: Change) -> Change:
    return lambda contents: [change(contents) for change in changes]


def half_the_loss(run: str) -> Change:
    def change(contents: Contents) -> None:
        name = f"{RUNS}/{run}/steps.npz"
        with np.load(io.BytesIO(contents[name])) as stored:
            arrays = dict(stored)
        arrays["loss"] /= 2
        packed = io.BytesIO()
        np.savez(packed, **arrays)
        contents[name] = packed.getvalue()

    return change


def missed(file: Path, forged: dict[str, Change], **options: bool) -> tuple[list[str], list[str]]:
    """Make all changes at once; returns the findings that are missing, and all that were found."""
    tamper.forge(file, all_of(*forged.values()), **options)
    found = wrong(verify.verify(file))
    return [name for name in forged if not any(name in problem for problem in found)], found


ONE = {
    f"{A}/windows.csv: loss in row 0": half_the_loss(A),
    f"{B}/windows.csv: loss in row": cell(B, "windows.csv", "loss", 2.0),
    f"{B}/summary.json: flops.total is": of(B, "flops.forward_per_example", 7),
    f"{C}/summary.json is contradictory: steady examples_per_second": cell(
        C, "windows.csv", "examples", 2.0
    ),
    f"{C}/epochs.csv: train_loss in row 0": cell(C, "epochs.csv", "train_loss", 0.9),
    f"{D}/summary.json is contradictory: test_accuracy is not what the last row of epochs.csv":
        cell(D, "epochs.csv", "test_accuracy", 1.001),
    f"blocks/mnist_cnn/{D}.json: does not list the records": put(
        f"{TOP}blocks/mnist_cnn/{D}.json",
        "runs", lambda runs: {n: {**e, "sha256": {}} for n, e in runs.items()},
    ),
}  # fmt: skip
TWO = {
    f"{A}/steps.npz: its batches are not those": of(A, "batches", "0" * 64),
    f"{B}/summary.json: identity is not the hash": of(B, "contract.determined_by.seed", 7),
    f"{B}/summary.json: trajectory is not the hash": lambda contents: None,
    f"{C}/summary.json: dataset.content is not that of": of(C, "dataset.content", "0" * 64),
    f"{C}/summary.json: has no host.cpu, which": of(C, "contract.host.cpu", None),
    f"{C}/summary.json: has no weights.final, which": of(C, "weights.final", None),
    f"{D}/summary.json is contradictory: a step's median": of(
        D, "steady.step_seconds.median", lambda v: v * 0.9
    ),
    "study/study.json: is not the config of the study": put(
        layout.STUDY, "workloads.mnist_cnn.epochs", 2
    ),
    "archive.json: complete or include are not": put(layout.ABOUT, "include.data", True),
    "seed-9/run.json: neither the config nor a record asks for it": replaced(
        f"{RUNS}/jax-jit/1x1/seed-9/run.json", b"{}"
    ),
    "zzz.npz: neither the config nor a record asks for it": replaced(f"{PARITY}/zzz.npz", b""),
    "x/x.sif: neither the config nor a record asks for it": replaced("data/images/x/x.sif", b""),
    "metadata.json: is missing": lambda contents: contents.pop("metadata.json"),
}
"""By the finding that each must become; none of a file hides another's."""


@pytest.mark.parametrize("forged", [ONE, TWO], ids=["one", "two"])
def test_a_record_that_disagrees_is_found_by_file_and_run(
    file: Path, forged: dict[str, Change]
) -> None:
    not_found, found = missed(file, forged)
    assert not_found == [], found


def test_one_changed_number_is_few_findings_of_its_file_and_run(
    file: Path, findings: Found
) -> None:
    tamper.forge(file, cell(A, "epochs.csv", "test_accuracy", 1.001))
    found = findings()
    assert len(found) == 1
    assert f"{RUNS}/{A}/summary.json is contradictory: test_accuracy is not what" in found[0]


def rotten(contents: Contents) -> None:
    content = bytearray(contents[f"{PARITY}/jax-jit.npz"])
    content[len(content) // 2] ^= 1
    contents[f"{PARITY}/jax-jit.npz"] = bytes(content)


DAMAGE = {
    "parity/mnist_cnn/jax-jit.npz: is not readable": rotten,
    f"blocks/mnist_cnn/{A}.json: field 'runs": put(
        f"{TOP}blocks/mnist_cnn/{A}.json", "runs", {f"mnist_cnn/{A}": []}
    ),
    f"blocks/mnist_cnn/{B}.json: field ''": replaced(f"{TOP}blocks/mnist_cnn/{B}.json", b"[]"),
    "verdict.json: cannot be used": replaced(f"{PARITY}/passed.json", b"[]"),
    f"{B}/windows.csv is not a table": replaced(f"{RUNS}/{B}/windows.csv", b"\xff,\n"),
    f"{C}/summary.json is not a record of a run": replaced(f"{RUNS}/{C}/summary.json", b"[]"),
    f"{D}/summary.json: is not JSON": replaced(f"{RUNS}/{D}/summary.json", b"[" * 100_000),
    "source/workflow/lockstep: is not the code that trained": replaced(
        f"{layout.PACKAGE}training/loop.py", b"\0"
    ),
}


def test_each_damaged_file_is_a_finding_whatever_else_is_damaged(file: Path) -> None:
    not_found, found = missed(file, DAMAGE, blocks=False, crate=False)
    assert not_found == [], found


def test_a_bomb_and_a_pickle_within_a_record_are_not_opened(file: Path, tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self):
            return Path.mkdir, (tmp_path / "executed",)

    bomb, pickle = io.BytesIO(), io.BytesIO()
    np.savez_compressed(bomb, loss=np.zeros(30_000_000), checksum=np.zeros(3, np.uint32))
    evil = np.array([Hostile()], dtype=object)
    np.savez(pickle, loss=evil, checksum=evil, count=evil)
    steps = (f"{RUNS}/{run}/steps.npz" for run in (A, B))
    names = dict(zip(steps, (bomb.getvalue(), pickle.getvalue()), strict=True))
    names[f"{PARITY}/jax-jit.npz"] = pickle.getvalue()
    tamper.forge(file, lambda contents: contents.update(names))
    found = wrong(verify.verify(file))
    for says in ("steps.npz would unfold to", "steps.npz is not readable", "jax-jit.npz: is not"):
        assert any(says in problem for problem in found), found
    assert not (tmp_path / "executed").exists()


def test_operations_are_counted_as_records_count_them() -> None:
    assert record_tables.FLOPS_FORMULA == records.FLOPS_FORMULA


@pytest.mark.parametrize(
    ("values", "says"),
    [("0.5,3", None), (",", None), ("-1,3", "run_delay_seconds"), ("0.5,inf", "involuntary")],
)
def test_optional_columns_are_checked_where_they_are(values: str, says: str | None) -> None:
    head = "step,steps,seconds,data_seconds,warm_up,run_delay_seconds,involuntary_switches"
    content = f"{head}\n0,5,1.0,0.1,1,{values}\n".encode()
    if says is None:
        assert record_tables.read_columns(content, "windows.csv")["steps"] == [5]
    else:
        with pytest.raises(record_tables.Unsound, match=says):
            record_tables.read_columns(content, "windows.csv")


# What is derived ------------------------------------------------------------------------------


def entity(identifier: str, **fields: object) -> Change:
    """Change what the description says of something."""

    def change(told: dict) -> None:
        (found,) = (e for e in told["@graph"] if e["@id"].startswith(identifier))
        found.update(fields)

    return lambda contents: tamper.edit_json(contents, layout.CRATE, change)


DERIVED = {
    "README.md: is not what config and records make it": replaced("README.md", b"Nothing.\n"),
    "CITATION.cff: is not what config": lambda c: c.update(
        {"CITATION.cff": c["CITATION.cff"].replace(b"Ada", b"Eve")}
    ),
    "tables/comparisons.csv: does not follow from the records": lambda c: c.update(
        {f"{TOP}report/tables/comparisons.csv":
         c[f"{TOP}report/tables/comparisons.csv"].replace(b"0.", b"1.", 1)}
    ),
    "report.json: does not follow from the records: schema is 'x'": put(
        f"{TOP}report/report.json", "schema", "x"
    ),
    "verdict.json: does not follow from the traces": put(
        f"{PARITY}/verdict.json", "comparisons.jax-jit.rungs.1.value", 1e-16
    ),
    "verdict.json: is not what passed.json has the hash of": lambda contents: None,
}  # fmt: skip


def test_what_follows_from_the_records_is_made_again(file: Path) -> None:
    not_found, found = missed(file, DERIVED)
    assert not_found == [], found


DESCRIBED = {
    "./.license.@id is 'https://x.org', not": entity("./", license={"@id": "https://x.org"}),
    "0097.name is 'Eve', not 'Ada Example'": entity("https://orcid.org/", name="Eve"),
    "/.license is 'CC0-1.0', not": entity("data/datasets/digits-", license="CC0-1.0"),
    "#state-mnist_cnn-1.value is '0000": entity("#state-mnist_cnn-1", value="0" * 64),
    "endTime is '2001', not": entity("#train-mnist_cnn/jax-jit/1x1/seed-0", endTime="2001"),
}


def test_another_description_is_found_by_what_it_says(file: Path) -> None:
    original = tamper.load(file)
    for says, change in DESCRIBED.items():
        contents = dict(original)
        change(contents)
        tamper.store(file, tamper.reseal(contents))
        with archive_reader.opened(file) as archive:
            (found,) = derived_check._described(archive, verify.archived_study(archive))
        assert found.startswith(f"{layout.CRATE}: is not what config and records make it: ")
        assert says in found


def page(old: bytes, new: bytes) -> Change:
    """Change the page once."""

    def change(contents: Contents) -> None:
        made = re.sub(old, new, contents[PAGE], count=1)
        assert made != contents[PAGE]
        contents[PAGE] = made

    return change


PAGES = (
    page(b"</main>", b"<p>JAX wins.</p></main>"),
    page(rb'(class="n">0\.\d+)\d<', rb"\g<1>x<"),
    page(b"<figcaption>", b"<figcaption><script>x()</script>"),
    page(b"<figcaption>", b"<figcaption><img src=x onerror=y>"),
    page(b"<path ", b'<path data-x="1" '),
    page(b"</main>", b'<figure class="picture"><svg><rect/></svg></figure></main>'),
)


def test_another_page_is_found(archived: Archived, file: Path, findings: Found) -> None:
    """Whatever is put into its figures is, too."""
    original = tamper.load(file)
    figures = archived.study.report().parent / "figures"
    made = text_of(original[PAGE].decode(), figures)
    for change in PAGES:
        contents = dict(original)
        change(contents)
        assert text_of(contents[PAGE].decode(), figures) != made
    tamper.forge(file, PAGES[2])
    (found,) = findings()
    assert found.startswith(f"{PAGE}: is not what the records make it: line "), found


def test_a_page_is_compared_without_numbers_where_those_were_rounded_otherwise(
    file: Path, findings: Found
) -> None:
    """As another NumPy would round them."""
    largest = "verdicts.0.first_step.largest"
    rounded = put(f"{TOP}report/report.json", largest, lambda v: v * (1 + 1e-11) + 1e-17)
    tamper.forge(file, all_of(rounded, page(rb'(<td class="n">0\.\d+)</td>', rb"\g<1>5</td>")))
    checks = verify.verify(file)
    assert wrong(checks) == [] and any("within 1e-09" in check.says for check in checks)
    tamper.forge(file, page(b"</main>", b"<p>JAX wins.</p></main>"))
    assert any("is not what the records make it" in problem for problem in findings())


# What another version made --------------------------------------------------------------------


def code(name: str, more: bytes = b"OTHER = True\n") -> Change:
    return lambda c: c.update({layout.PACKAGE + name: c[layout.PACKAGE + name] + more})


def old_verdict(contents: Contents) -> None:
    """Have the verdict name other rules, and passed.json fit."""
    name = f"{PARITY}/verdict.json"
    put(name, "schema", "lockstep-parity/1")(contents)
    put(f"{PARITY}/passed.json", "verdict", hashlib.sha256(contents[name]).hexdigest())(contents)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (all_of(code("archive/description.py"), replaced("README.md", b"x")),
         "README, metadata and description were made by another version, not compared"),
        (all_of(code("report/page.css", b"/* */"), page(b"</main>", b"<p>x</p></main>")),
         "the report was made by another version, not compared"),
        (all_of(code("parity/rungs.py"), old_verdict), "was judged by another version's rules"),
    ],
)  # fmt: skip
def test_what_another_version_made_is_not_compared_and_said(
    file: Path, change: Change, says: str
) -> None:
    tamper.forge(file, change)
    checks = verify.verify(file)
    assert wrong(checks) == [] and any(says in check.says for check in checks)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (old_verdict, "verdict.json: does not follow from the traces: schema is"),
        (put(layout.ABOUT, "lockstep", "0.0.9"), "archive.json: is not what config and records"),
        (code("training/loop.py"), "is not the code that trained mnist_cnn/jax-jit/1x1/seed-0"),
    ],
)
def test_a_word_switches_no_check_off(
    file: Path, findings: Found, change: Change, says: str
) -> None:
    tamper.forge(file, change)
    found = findings()
    assert any(says in problem for problem in found), found


def other_log(contents: Contents) -> None:
    contents["source/other"] = contents.pop("source/config.yaml")
    contents[f"{TOP}logs/report.log"] += b"all is well\n"


def test_what_no_record_tells_is_held_by_the_published_sha256_alone(file: Path) -> None:
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    tamper.forge(file, other_log)
    assert wrong(verify.verify(file)) == []
    with archive_reader.opened(file) as archive:
        assert "not the one published" in verify.container(archive, sha256).wrong[0]


# Configs --------------------------------------------------------------------------------------

CONFIGS: dict[str, Change] = {
    "not complete at images": put(f"{TOP}study.json", "images", None),
    "variants.jax-jit.framework is 'fortran'": put(
        f"{TOP}study.json", "variants.jax-jit.framework", "fortran"
    ),
    "'/x' is no name of a workload": put(f"{TOP}study.json", "workloads.mnist_cnn.workload", "/x"),
    "it holds no keys": replaced(f"{TOP}study.json", b'{"study": ' + b"[" * 100_000),
}


@pytest.mark.parametrize("says", CONFIGS)
def test_a_config_of_another_shape_is_one_line(file: Path, says: str) -> None:
    tamper.forge(file, CONFIGS[says])
    with pytest.raises(UserError, match="is not the config of a study") as refusal:
        verify.verify(file)
    assert says in str(refusal.value) and "\n" not in str(refusal.value)
