"""`make drill-archive`: random changes of an archive; which are found with its published sha256,
and which without it?

    python -m tests.archive.drill results/demo.crate.zip

prints how many were found. It ends with 1 if a change is not found below the published sha256, or
if a changed byte, a changed list of files or a record that contradicts another is not found without
it.
"""

import functools
import operator
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from lockstep import files
from lockstep.archive import layout
from lockstep.errors import UserError
from tests.archive import tamper
from tests.archive.archived import findings
from tests.archive.tamper import Contents

BYTES, EACH = 500, 20

Change = Callable[[Contents, random.Random], str]
"""Changes the contents; returns what a finding must name."""


def main(archive: Path) -> int:
    """Run the drill; returns the exit status."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(shutil.copy(archive, Path(scratch) / "drill.crate.zip"))
        assert findings(copy) == [], "the archive must hold before it is changed"
        missed = [*single_bytes(copy, random.Random(1)), *changes(copy, random.Random(2))]
        for problem in missed:
            print(f"NOT FOUND: {problem}")
    return 1 if missed else 0


def found(copy: Path) -> list[str]:
    """What verifying finds; a file that it refuses is a finding too."""
    try:
        return findings(copy)
    except UserError as refusal:
        return [str(refusal)]


def single_bytes(copy: Path, chance: random.Random) -> Iterator[str]:
    """Change one byte at a time, anywhere in the file; yield those that are not found."""
    size, counted = copy.stat().st_size, Counter[str]()
    for _ in range(BYTES):
        place, bits = chance.randrange(size), chance.randrange(1, 256)
        name = tamper.owner(copy, place)
        tamper.flip(copy, place, bits)
        problems = found(copy)
        tamper.flip(copy, place, bits)
        counted["found"] += bool(problems)
        counted["named"] += any((name or copy.name) in problem for problem in problems)
        if not problems:
            yield f"byte {place} of {name or 'the directory'} (xor {bits})"
    print(f"a byte anywhere: {counted['found']} of {BYTES} found, {counted['named']} by name")


def changes(copy: Path, chance: random.Random) -> Iterator[str]:
    """Change what members there are and what they say; yield what is not found and must be."""
    original, sha256 = tamper.load(copy), files.sha256_file(copy)
    for kind, (change, fits, must) in KINDS.items():
        seen = Counter[str]()
        for _ in range(EACH):
            contents = dict(original)
            name = change(contents, chance)
            tamper.store(copy, tamper.reseal(contents) if fits else contents)
            published, problems = files.sha256_file(copy) != sha256, found(copy)
            seen["published"] += published
            seen["without"] += bool(problems)
            seen["named"] += any(name in problem for problem in problems)
            if not published or (must and not problems):
                yield f"{kind}: {name}"
        print(f"{kind}: {seen['published']} of {EACH} found by the published sha256, "
              f"{seen['without']} without it, {seen['named']} by name")  # fmt: skip


# Changes --------------------------------------------------------------------------------------


def _record(contents: Contents, chance: random.Random) -> str:
    """A file of which the config says that it must be there."""
    return chance.choice(sorted(name for name in contents if name.endswith(RECORDS)))


def _below(name: str) -> str:
    return name.split("/", 2)[2]


RECORDS = ("summary.json", "epochs.csv", "windows.csv", "steps.npz", "verdict.json", "run.json")


def removed(contents: Contents, chance: random.Random) -> str:
    name = _record(contents, chance)
    del contents[name]
    return _below(name)


def added(contents: Contents, chance: random.Random) -> str:
    folder = _record(contents, chance).rpartition("/")[0]
    name = f"{folder}/added-{chance.randrange(1000)}.bin"
    contents[name] = b"x" * chance.randrange(1, 100)
    return name


def renamed(contents: Contents, chance: random.Random) -> str:
    name = _record(contents, chance)
    contents[f"{name}.old"] = contents.pop(name)
    return _below(name)


def _summary(contents: Contents, chance: random.Random) -> str:
    return chance.choice(sorted(name for name in contents if name.endswith("/summary.json")))


def _other(value: object, factor: float) -> object:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return value * factor + 1 if number else f"not {value}"


def contradicting(contents: Contents, chance: random.Random) -> str:
    """A record that says something that another file of its run does not."""
    name = _summary(contents, chance)
    path, factor = chance.choice(CONTRADICTIONS), chance.uniform(1.001, 2)
    table, _, column = path.partition(": ")
    if column:
        tamper.edit_table(contents, name.replace("summary.json", table), column, factor)
    else:
        tamper.edit_json(
            contents, name, lambda told: tamper.put(told, path, lambda old: _other(old, factor))
        )
    return "/".join(name.split("/")[3:7])


CONTRADICTIONS = (
    "steady.step_seconds.median", "steady.step_seconds.p95", "metrics.test_accuracy",
    "metrics.test_loss", "contract.determined_by.seed", "batches", "steps",
    "windows.csv: loss", "windows.csv: seconds", "epochs.csv: test_accuracy",
)  # fmt: skip
"""A field of a summary, or a column of a table."""


def any_value(contents: Contents, chance: random.Random) -> str:
    """Any value of a run's summary."""
    name = _summary(contents, chance)

    def change(told: dict) -> None:
        *parents, last = chance.choice(sorted(_leaves(told), key=str))
        inner = functools.reduce(operator.getitem, parents, told)
        inner[last] = _other(inner[last], 1.01)

    tamper.edit_json(contents, name, change)
    return _below(name)


def _leaves(value: object, path: tuple = ()) -> Iterator[tuple]:
    for key, part in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(part, dict | list):
            yield from _leaves(part, (*path, key))
        else:
            yield (*path, key)


def any_file(contents: Contents, chance: random.Random) -> str:
    """A byte of any file, its name, or the file itself."""
    made = (layout.HASHES, layout.CRATE)
    name = chance.choice(sorted(n for n in contents if n not in made and contents[n]))
    how = chance.choice(("changed", "renamed", "removed"))
    content = bytearray(contents.pop(name))
    if how == "changed":
        content[chance.randrange(len(content))] ^= chance.randrange(1, 256)
    if how != "removed":
        contents[f"{name}.old" if how == "renamed" else name] = bytes(content)
    return name


KINDS: dict[str, tuple[Change, bool, bool]] = {
    "a file removed": (removed, False, True),
    "a file added": (added, False, True),
    "a file renamed": (renamed, False, True),
    "a file removed, all hashes fit": (removed, True, True),
    "a file added, all hashes fit": (added, True, False),
    "a file renamed, all hashes fit": (renamed, True, True),
    "a record contradicting another, all hashes fit": (contradicting, True, True),
    "any value of a summary, all hashes fit": (any_value, True, False),
    "any file changed, renamed or removed, all hashes fit": (any_file, True, False),
}
"""What is changed, whether hashes are made to fit, and whether it must be found all the same."""


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
