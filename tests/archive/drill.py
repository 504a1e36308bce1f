"""`make drill-archive`: a thousand changed bytes and three hundred other changes, all found?

    python -m tests.archive.drill results/demo.crate.zip

prints how many were found and named, how fast archives are made and checked, and ends with 1 if
anything was not found.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from lockstep import files
from lockstep.archive import layout, opened, verify
from lockstep.errors import UserError
from tests.archive import tamper
from tests.archive.conftest import grow, wrong
from tests.archive.tamper import Contents
from tests.conftest import ROOT

BYTES, STRUCTURES, ANYTHING = 1000, 200, 100
LEAF = "any value of a record, all hashes fit"
FILE = "any file changed, renamed or removed, all hashes fit"
SIZES = (0, 384 << 20, 2 << 30)

Change = tuple[str, str, Callable[[Contents], None], bool]
"""Kind, a word that a finding must hold, the change, and whether all hashes are made to fit."""


def main(archive: Path) -> int:
    """Run the drill; returns the exit status."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(shutil.copy(archive, Path(scratch) / "drill.crate.zip"))
        assert wrong(verify.verify(copy)) == [], "the archive must hold before it is changed"
        missed = [*single_bytes(copy, random.Random(1)), *structures(copy, random.Random(2))]
        missed += anything(copy, random.Random(3))
        for problem in missed:
            print(f"NOT FOUND: {problem}")
        speeds(archive, study_of(copy), Path(scratch))
    return 1 if missed else 0


def study_of(copy: Path) -> str:
    """The archived study's name."""
    return json.loads(tamper.load(copy)[layout.MANIFEST])["study"]


def found(copy: Path, digest: str | None = None) -> list[str]:
    """What verifying finds; a file that it refuses is a finding too."""
    try:
        return wrong(verify.verify(copy, digest=digest))
    except UserError as refusal:
        return [str(refusal)]


def single_bytes(copy: Path, chance: random.Random) -> Iterator[str]:
    """Change one byte at a time, anywhere in the file; yield those that are not found or named."""
    size, began, counted = copy.stat().st_size, time.monotonic(), Counter[str]()
    for _ in range(BYTES):
        place, bits = chance.randrange(size), chance.randrange(1, 256)
        name = tamper.owner(copy, place)
        tamper.flip(copy, place, bits)
        findings = found(copy)
        counted["found"] += bool(findings)
        named = any(word in finding for word in _words(name) for finding in findings)
        counted["named"] += named
        tamper.flip(copy, place, bits)
        if not named:
            yield f"byte {place} of {name or 'the directory'} (xor {bits}): {findings}"
    seconds = (time.monotonic() - began) / BYTES
    print(f"changed bytes: {counted['found']} of {BYTES} found, {counted['named']} named, "
          f"{1000 * seconds:.0f} ms each")  # fmt: skip


def _words(name: str) -> tuple[str, ...]:
    """What a finding must name: the member, or the directory behind the last one."""
    return (name,) if name else ("(in the directory)", "the end of the file")


# Structures -----------------------------------------------------------------------------------


def structures(copy: Path, chance: random.Random) -> Iterator[str]:
    """Change what members there are and what they say; yield the changes that are not found."""
    original = tamper.load(copy)
    tried, seen = Counter[str](), Counter[str]()
    makers = (removed, added, renamed, edited)
    for number in range(STRUCTURES):
        kind, names, change, fits = makers[number % len(makers)](original, chance, number)
        contents = dict(original)
        change(contents)
        tamper.store(copy, tamper.reseal(contents) if fits else contents)
        findings = found(copy)
        tried[kind] += 1
        hit = any(names in finding for finding in findings)
        seen[kind] += hit
        if not hit:
            yield f"{kind}: {names}: {findings[:2]}"
    tamper.store(copy, original)
    for kind, count in sorted(tried.items()):
        print(f"{kind}: {seen[kind]} of {count} found and named")
    print(f"changed structures: {sum(seen.values())} of {STRUCTURES} found and named")


def _results(original: Contents) -> list[str]:
    """Files of which the config says that they must be there."""
    kinds = ("summary.json", "epochs.csv", "windows.csv", "steps.npz", "verdict.json", "run.json")
    return sorted(name for name in original if name.endswith(kinds))


def removed(original: Contents, chance: random.Random, number: int) -> Change:
    """Without a file; every second time with a manifest and a description that fit."""
    name = chance.choice(_results(original))
    fits = number % 8 < 4
    below = name.split("/", 2)[2]
    return "file removed", below if fits else name, lambda c: c.pop(name) and None, fits


def added(original: Contents, chance: random.Random, number: int) -> Change:
    """With a file that the workflow did not make."""
    folder = chance.choice(_results(original)).rpartition("/")[0]
    name = f"{folder}/added-{number}.bin"
    return "file added", name, lambda c: c.update({name: b"x" * number}), number % 8 < 4


def renamed(original: Contents, chance: random.Random, number: int) -> Change:
    """With a file under another name."""
    name = chance.choice(_results(original))
    other = f"{name}.old"
    return "file renamed", other, lambda c: c.update({other: c.pop(name)}), number % 8 < 4


def edited(original: Contents, chance: random.Random, number: int) -> Change:
    """With a record that tells another story, and every hash made to fit."""
    name = chance.choice([n for n in original if n.endswith("/summary.json")])
    run = "/".join(name.split("/")[3:7])

    def slower(told: dict) -> None:
        factor = chance.uniform(1.001, 2)
        for key in told["steady"]["step_seconds"]:
            told["steady"]["step_seconds"][key] *= factor

    def better(told: dict) -> None:
        told["metrics"]["test_accuracy"] += chance.uniform(1e-4, 1e-2)

    def lower_loss(told: dict) -> None:
        told["metrics"]["test_loss"] *= chance.uniform(0.5, 0.999)

    def other_seed(told: dict) -> None:
        told["contract"]["determined_by"]["seed"] += 1

    def other_batches(told: dict) -> None:
        told["batches"] = f"{chance.getrandbits(256):064x}"

    def other_steps(told: dict) -> None:
        told["steps"] += 1

    def table(column: str) -> Callable[[Contents], None]:
        factor, path = chance.uniform(0.5, 0.99), name.replace("summary.json", "windows.csv")
        return lambda contents: tamper.edit_table(contents, path, column, factor)

    changes = [(change, "report/") for change in (slower, better, lower_loss)]
    changes += [(change, run) for change in (other_seed, other_batches, other_steps)]
    choices = [(lambda c, by=by: tamper.edit_json(c, name, by), says) for by, says in changes]
    choices += [(table("loss"), run), (table("seconds"), run)]
    change, says = chance.choice(choices)
    return "record edited, all hashes fit", says, change, True


# Anything -------------------------------------------------------------------------------------


def anything(copy: Path, chance: random.Random) -> Iterator[str]:
    """Change what may be told nowhere else, and make every hash fit; yield what is not found.

    The published digest must find all of it; what is found without it, is counted beside.
    """
    original, tried = tamper.load(copy), Counter[str]()
    with_digest, without = Counter[str](), Counter[str]()
    digest = json.loads(original[layout.MANIFEST])["digest"]
    for number in range(ANYTHING):
        contents = dict(original)
        kind, what = (leaf, file_of_any_kind)[number % 2](contents, chance)
        tamper.store(copy, tamper.reseal(contents, blocks=kind == LEAF))
        findings = found(copy, digest)
        tried[kind] += 1
        by_digest = [problem for problem in findings if "not the one published" in problem]
        with_digest[kind] += bool(by_digest)
        without[kind] += len(findings) > len(by_digest)
        if not findings:
            yield f"{kind}: {what}"
    tamper.store(copy, original)
    for kind, count in sorted(tried.items()):
        print(f"{kind}: {with_digest[kind]} of {count} found by the published digest, "
              f"{without[kind]} without it")  # fmt: skip


def leaf(contents: Contents, chance: random.Random) -> tuple[str, str]:
    """Change a value of a run's record, whichever it is."""
    name = chance.choice(sorted(n for n in contents if n.endswith("/summary.json")))
    told = json.loads(contents[name])
    *parents, last = chance.choice(sorted(_leaves(told), key=str))
    inner = told
    for key in parents:
        inner = inner[key]
    value = inner[last]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    inner[last] = value * 1.01 + 1 if number else f"not {value}"
    contents[name] = json.dumps(told, indent=2).encode() + b"\n"
    return LEAF, f"{name}: {[*parents, last]}"


def _leaves(value: object, path: tuple = ()) -> Iterator[tuple]:
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in inner:
        if isinstance(part, dict | list):
            yield from _leaves(part, (*path, key))
        else:
            yield (*path, key)


def file_of_any_kind(contents: Contents, chance: random.Random) -> tuple[str, str]:
    """Change a byte of a file, rename it or leave it out, whichever file it is."""
    made = (layout.MANIFEST, layout.CRATE)
    name = chance.choice(sorted(n for n in contents if n not in made and contents[n]))
    how = chance.choice(("changed", "renamed", "removed"))
    content = bytearray(contents.pop(name))
    if how == "changed":
        content[chance.randrange(len(content))] ^= chance.randrange(1, 256)
    if how != "removed":
        contents[f"{name}.old" if how == "renamed" else name] = bytes(content)
    return FILE, f"{name} {how}"


# Speed ----------------------------------------------------------------------------------------


def speeds(archive: Path, study: str, scratch: Path) -> None:
    """Compare with the programs that people know, over the same files, small and large."""
    for size in SIZES:
        root = scratch / f"study-{size}"
        try:
            speed(archive.resolve().parent.parent, study, root, size)
        finally:
            files.remove(root)


def speed(beside: Path, study: str, root: Path, size: int) -> None:
    """Measure with a copy of the study whose dataset is larger by `size`."""
    shutil.copytree(
        beside / "results" / study,
        root / "results" / study,
        ignore=shutil.ignore_patterns("cache", "states"),
    )
    shutil.copytree(beside / "data" / "datasets", root / "data" / "datasets")
    grow(root, study, size)
    file, told = root / "results" / f"{study}.crate.zip", f"results/{study}/study.json"
    theirs, tree = root / "theirs.zip", root / "tree"
    made = timed(lambda: lockstep(root, "archive", "--study", told), clear=file)
    with zipfile.ZipFile(file) as members:
        members.extractall(tree)
    paths = sorted(str(path) for path in tree.rglob("*") if path.is_file())
    zipped = timed(lambda: run(["zip", "-1", "-q", "-r", str(theirs), "."], tree), clear=theirs)
    theirs.unlink()
    summed = timed(lambda: run(["sha256sum", *paths], tree))
    hashed = timed(lambda: form_and_content(file))
    checked = timed(lambda: lockstep(file.parent, "verify", file.name))
    started = timed(lambda: lockstep(root, "--version"))
    total = file.stat().st_size / 1e6
    print(f"{total:.0f} MB in {len(paths)} files (starting Python takes {started:.2f} s)")
    for what, seconds in (
        ("python -m lockstep archive", made),
        ("zip -1", zipped),
        ("verify: form and content", hashed),
        ("sha256sum", summed),
        ("python -m lockstep verify", checked),
    ):
        print(f"  {what}: {seconds:.2f} s, {total / seconds:.0f} MB/s")


def form_and_content(file: Path) -> None:
    """The part of verifying that grows with size."""
    with open(file, "rb") as stream:
        assert not opened.hashes(opened.read(file, stream)).wrong


def lockstep(folder: Path, *arguments: str) -> None:
    """Run the command line as a person does."""
    run([sys.executable, "-m", "lockstep", *arguments], folder)


def run(command: list[str], folder: Path) -> None:
    """Run a program to its end."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow")}
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)


def timed(work: Callable[[], None], *, clear: Path | None = None) -> float:
    """Return the seconds that the faster of two tries took: the first warms the disk's cache.

    Args:
        clear: what the work makes, removed before each try.
    """
    seconds = []
    for _ in range(2):
        if clear is not None:
            clear.unlink(missing_ok=True)
        began = time.monotonic()
        work()
        seconds.append(time.monotonic() - began)
    return min(seconds)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
