"""What verifying finds of records that tell another story, although every hash fits."""

import hashlib
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lockstep import __version__
from lockstep.archive import layout, verify
from tests.archive import tamper
from tests.archive.conftest import wrong
from tests.archive.tamper import Contents

RUNS = "results/small/runs/mnist_cnn"
RECORD = f"{RUNS}/jax-jit/1x1/seed-0/summary.json"
Found = Callable[[], list[str]]


def record(change: Callable[[dict], None]) -> Callable[[Contents], None]:
    return lambda contents: tamper.edit_json(contents, RECORD, change)


def faster(summary: dict) -> None:
    for name in ("median", "q1", "q3", "p95"):
        summary["steady"]["step_seconds"][name] *= 0.9


def better(summary: dict) -> None:
    summary["metrics"]["test_accuracy"] += 0.01


def other_seed(summary: dict) -> None:
    summary["contract"]["determined_by"]["seed"] = 7


def other_batches(summary: dict) -> None:
    summary["batches"] = "0" * 64


def other_data(summary: dict) -> None:
    summary["dataset"]["licence"] = "CC0"


def other_hash(summary: dict) -> None:
    summary["sha256"]["final.safetensors"] = "0" * 64


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (other_hash, "its hash of final.safetensors is not its block's"),
        (faster, "report/report.json: "),
        (better, "report/report.json: "),
        (other_seed, "its identity is not the hash of what it says that determined it"),
        (other_batches, "its batches are not those of the summary"),
        (other_data, "its dataset's licence is not what data/datasets says"),
    ],
)
def test_a_forged_record_is_found_although_all_its_hashes_fit(
    file: Path, findings: Found, change: Callable[[dict], None], names: str
) -> None:
    tamper.forge(file, record(change))
    found = findings()
    assert any(names in problem for problem in found), found


def test_a_forged_report_is_found(file: Path, findings: Found) -> None:
    def change(contents: Contents) -> None:
        name = "results/small/report/tables/comparisons.csv"
        contents[name] = contents[name].replace(b"0.", b"1.", 1)

    tamper.forge(file, change)
    assert any("report/tables/comparisons.csv" in problem for problem in findings())


def test_a_forged_verdict_on_parity_is_found(file: Path, findings: Found) -> None:
    name = "results/small/parity/mnist_cnn/verdict.json"

    def change(verdict: dict) -> None:
        verdict["comparisons"]["jax-jit"]["rungs"][1]["value"] = 1e-16

    tamper.forge(file, lambda contents: tamper.edit_json(contents, name, change))
    found = findings()
    assert any("the records give" in problem and "verdict.json" in problem for problem in found)
    assert any("passed.json has the hash of" in problem for problem in found)


def test_another_config_to_run_again_is_found(file: Path, findings: Found) -> None:
    def change(config: dict) -> None:
        config["workloads"]["mnist_cnn"]["epochs"] = 2

    tamper.forge(file, lambda contents: tamper.edit_json(contents, layout.STUDY, change))
    assert any("is not the config of the study as it was run" in p for p in findings())


def test_code_that_did_not_train_the_runs_is_found(file: Path, findings: Found) -> None:
    def change(contents: Contents) -> None:
        name = "source/workflow/lockstep/training/loop.py"
        contents[name] = contents[name].replace(b"STOP = ", b"STOP = 0 + ", 1)

    tamper.forge(file, change)
    assert any("is not the code that trained" in problem for problem in findings())


def half_the_loss(contents: Contents) -> None:
    name = f"{RUNS}/jax-jit/1x1/seed-0/steps.npz"
    with np.load(io.BytesIO(contents[name])) as stored:
        arrays = dict(stored)
    arrays["loss"] /= 2
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    contents[name] = packed.getvalue()


def cell(run: str, table: str, column: str, factor: float) -> Callable[[Contents], None]:
    """Change a number in the last row of a run's table."""
    name = f"{RUNS}/{run}/{table}"
    return lambda contents: tamper.edit_table(contents, name, column, factor)


def described(identifier: str, **fields: object) -> Callable[[Contents], None]:
    """Change what the description says of something."""

    def change(told: dict) -> None:
        (entity,) = (e for e in told["@graph"] if e["@id"].startswith(identifier))
        entity.update(fields)

    return lambda contents: tamper.edit_json(contents, layout.CRATE, change)


FORGED: dict[str, Callable[[Contents], object]] = {
    "jax-jit/1x1/seed-0/windows.csv: loss in row 0": half_the_loss,
    "jax-jit/1x1/seed-1/windows.csv: loss": cell("jax-jit/1x1/seed-1", "windows.csv", "loss", 2.0),
    "torch-eager/1x1/seed-0/windows.csv: its seconds are": cell(
        "torch-eager/1x1/seed-0", "windows.csv", "seconds", 0.01
    ),
    "torch-eager/1x1/seed-1/windows.csv: its windows are not the steps of steps.npz": cell(
        "torch-eager/1x1/seed-1", "windows.csv", "steps", 2.0
    ),
    "torch-eager/1x1/seed-1/epochs.csv: train_loss in row 0": cell(
        "torch-eager/1x1/seed-1", "epochs.csv", "train_loss", 0.9
    ),
    "jax-jit/1x1/seed-1/run.json: recipe is not that of summary.json": lambda contents: (
        tamper.edit_json(
            contents,
            f"{RUNS}/jax-jit/1x1/seed-1/run.json",
            lambda told: told["recipe"].update(epochs=9),
        )
    ),
    "jax-jit/1x1/seed-0: its block does not list its records": lambda contents: tamper.edit_json(
        contents,
        "results/small/blocks/mnist_cnn/jax-jit/1x1/seed-0.json",
        lambda told: told["runs"]["mnist_cnn/jax-jit/1x1/seed-0"]["sha256"].pop("steps.npz"),
    ),
    "README.md: is not what config and records make it": lambda contents: contents.update(
        {"README.md": b"Nothing to see here.\n"}
    ),
    "CITATION.cff: is not what config and records make it": lambda contents: contents.update(
        {"CITATION.cff": contents["CITATION.cff"].replace(b"Ada", b"Eve")}
    ),
    "metadata.json: is missing, which archiving itself makes": lambda contents: contents.pop(
        "metadata.json"
    ),
    "./: its license is not": described("./", license={"@id": "https://spdx.org/licenses/CC0-1.0"}),
    "./: its name is not": described("./", name="Other digits"),
    "https://orcid.org/0000-0002-1825-0097: its name is not": described(
        "https://orcid.org/", name="Eve Example"
    ),
    "/: its license is not what": described("data/datasets/digits-", license="CC0-1.0"),
    "#train-mnist_cnn/jax-jit/1x1/seed-0: its endTime is not": described(
        "#train-mnist_cnn/jax-jit/1x1/seed-0", endTime="2001-01-01T00:00:00+00:00"
    ),
    "#state-mnist_cnn-1: its value is not": described("#state-mnist_cnn-1", value="0" * 64),
}
"""By the finding that it must become."""


def test_what_follows_from_the_records_is_made_again(file: Path, findings: Found) -> None:
    def forge(contents: Contents) -> None:
        for change in FORGED.values():
            change(contents)

    tamper.forge(file, forge)
    found = findings()
    missed = [names for names in FORGED if not any(names in problem for problem in found)]
    assert missed == [], found


PAGE, COMPLETE = "results/small/report/index.html", "results/small/report/complete.json"


def write_page(contents: Contents, page: bytes) -> None:
    """Put another page, and have complete.json fit."""
    assert page != contents[PAGE]
    contents[PAGE] = page
    sums = {"index.html": hashlib.sha256(page).hexdigest()}
    tamper.edit_json(contents, COMPLETE, lambda complete: complete.update(sums))


def other_words(contents: Contents) -> None:
    write_page(contents, contents[PAGE].replace(b"</strong>: ", b"</strong>: not "))


def other_number(contents: Contents) -> None:
    write_page(
        contents,
        re.sub(rb'(<td class="n">0\.\d+)\d</td>', rb"\g<1>x</td>", contents[PAGE], count=1),
    )


def more_words(contents: Contents) -> None:
    write_page(contents, contents[PAGE].replace(b"</main>", b"<p>JAX wins.</p></main>"))


@pytest.mark.parametrize("change", [other_words, other_number, more_words])
def test_the_page_says_what_the_records_make_it_say(
    file: Path, change: Callable[[Contents], None]
) -> None:
    tamper.forge(file, change)
    (found,) = wrong(verify.verify(file))
    assert "report/index.html: is not what the records make it, from" in found


def other_figure(contents: Contents) -> None:
    write_page(contents, contents[PAGE].replace(b"<svg ", b'<svg data-x="1" ', 1))


def other_source(contents: Contents) -> None:
    contents["source/other"] = contents.pop("source/config.yaml")
    contents["source/containers/install.sh"] += b"# something else\n"


@pytest.mark.parametrize("change", [other_figure, other_source])
def test_what_no_record_tells_is_held_by_the_digest_alone(
    file: Path, change: Callable[[Contents], None]
) -> None:
    digest = json.loads(tamper.load(file)[layout.MANIFEST])["digest"]
    tamper.forge(file, change)
    assert wrong(verify.verify(file)) == []
    assert any("not the one published" in w for w in wrong(verify.verify(file, digest=digest)))


def other_code(contents: Contents) -> None:
    name = "source/workflow/lockstep/archive/readme.py"
    contents[name] = contents[name].replace(b"# {title}", b"Title: {title}")
    contents["README.md"] = contents["README.md"].replace(b"# Digits", b"Title: Digits", 1)


def other_template(contents: Contents) -> None:
    name = "source/workflow/lockstep/report/page.html.j2"
    contents[name] = contents[name].replace(b"The answer", b"An answer")
    write_page(contents, contents[PAGE].replace(b"The answer", b"An answer"))


def other_number_of_version(contents: Contents) -> None:
    tamper.edit_json(contents, layout.MANIFEST, lambda told: told.update(lockstep="0.0.9"))
    for name in ("source/workflow/lockstep/__init__.py", layout.CRATE):
        version = f'"{__version__}"'.encode()
        contents[name] = contents[name].replace(version, b'"0.0.9"')
    contents["README.md"] = contents["README.md"].replace(__version__.encode(), b"0.0.9")
    write_page(
        contents, contents[PAGE].replace(b"Lockstep " + __version__.encode(), b"Lockstep 0.0.9")
    )


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (other_code, ["pages"]),
        (other_template, ["page"]),
        (other_number_of_version, ["pages", "page"]),
    ],
)
def test_pages_that_another_version_wrote_are_left_open(
    file: Path, change: Callable[[Contents], None], left: list[str]
) -> None:
    tamper.forge(file, change)
    checks = verify.verify(file)
    assert wrong(checks) == [] and [check.name for check in checks if check.open] == left
