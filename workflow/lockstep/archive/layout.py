"""What an archive holds and what its files are called: the one place that knows."""

import re
import unicodedata
from collections.abc import Iterable

from lockstep.study import Study

SCHEMA = "lockstep-archive/2"
FORMER_MANIFEST = "manifest.json"
"""Of `lockstep-archive/1`, which had no `HASHES`."""

HASHES = "manifest-sha256.txt"
ABOUT = "archive.json"
CRATE = "ro-crate-metadata.json"
README = "README.md"
UPLOAD = "metadata.json"
CITATION = "CITATION.cff"
STUDY = "study/study.json"
SOURCE = "source/"
PACKAGE = f"{SOURCE}workflow/lockstep/"
RESULTS = "results/"
DATA = "data/"

DERIVED = (README, UPLOAD, CITATION, ABOUT, CRATE)
"""Made by archiving itself, in this order; then `HASHES`, which lists all others."""

RECORDS = ("summary.json", "epochs.csv", "windows.csv", "steps.npz")
"""What a run must have to be finished, besides its final state."""
FINAL = "final.safetensors"

LARGEST_LIST, LARGEST_RECORD, LARGEST_TABLE = 16 << 20, 4 << 20, 64 << 20
"""In bytes: `HASHES` and the description; a record of a run, block or job; other JSON or CSV."""

_RUN = r"runs/[^/]+/[^/]+/[^/]+/seed-[0-9]+/"
STUDY_FILES: dict[str, str] = {
    r"study\.json|repetitions\.json": "",
    r"parity/[^/]+/(verdict|passed)\.json": "",
    r"parity/[^/]+/[^/]+\.npz": "traces",
    r"weights/[^/]+/seed-[0-9]+\.safetensors": "checkpoints",
    r"blocks/.+\.json": "",
    _RUN + r"(summary|run|failure)\.json": "",
    _RUN + r"(epochs|windows)\.csv": "",
    _RUN + r"steps\.npz": "",
    _RUN + r"log\.txt": "",
    _RUN + re.escape(FINAL): "checkpoints",
    r"report/(index\.html|report\.json|complete\.json)": "",
    r"report/tables/[^/.][^/]*\.csv": "",
    r"report/figures/[^/.][^/]*\.(svg|png)": "",
    r"logs/(?!archive\.log).+\.(log|json)": "",
}
"""The files of a study's folder that are archived, as patterns of their paths, and the part of
`archive.include` that asks for them (empty: always). What no pattern names is never archived:
TensorBoard's and W&B's files repeat the tables, and name machines, folders and variables.
"""

NAMED_BY_CONFIG = ("parity/", "blocks/", "weights/")
"""Below the study's folder, where the config says what each file is called."""


def part(path: str) -> str | None:
    """Return the part of `archive.include` that a file of a study's folder belongs to.

    Returns:
        An empty text for what is always archived, None for what never is.
    """
    for pattern, option in STUDY_FILES.items():
        if re.fullmatch(pattern, path):
            return option
    return None


def named(study: Study) -> set[str]:
    """Return what the config asks for of parity, blocks and weights, below the study's folder."""
    paths = [study.manifest(block) for block in study.blocks]
    for workload in study.config["workloads"]:
        paths += [study.verdict(workload), study.passed(workload)]
        paths += [study.trace(workload, variant) for variant in study.traces()]
        paths += [study.weights(workload, seed) for seed in study.config["seeds"]]
    return {path.relative_to(study.root).as_posix() for path in paths}


def too_large(name: str, size: int) -> str | None:
    """Return why a file is larger than verifying reads at once, None if it is not."""
    if name in (HASHES, CRATE, ABOUT):
        limit = LARGEST_LIST
    elif not name.endswith((".json", ".csv")) or name.startswith(SOURCE):
        return None
    else:
        record = re.match(r"results/[^/]+/(runs|blocks|logs|parity)/", name)
        limit = LARGEST_RECORD if record else LARGEST_TABLE
    if size <= limit:
        return None
    return f"has {size / (1 << 20):.1f} MiB, more than the {limit >> 20} MiB that are read"


# Safe names -----------------------------------------------------------------------------------

LONGEST, LONGEST_PART = 1000, 255  # in bytes


def unsafe(names: Iterable[str]) -> str | None:
    """Return what is wrong with the first name that could leave its folder, or with the first two
    that could meet in one file; None if no name can.
    """
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    for name in names:
        problem = _problem(name)
        if problem:
            return f"a file called {name[:300]!r}, {problem}"
        folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
        if folded in files:
            return f"{files[folded]!r} and {name!r}, which are one file where case does not count"
        files[folded] = name
        parts = folded.split("/")
        for depth in range(1, len(parts)):
            folders.setdefault("/".join(parts[:depth]), name)
    for folded in sorted(files.keys() & folders.keys()):
        return f"the file {files[folded]!r}, which is also a folder, of {folders[folded]!r}"
    return None


def _problem(name: str) -> str | None:
    try:
        parts = name.encode().split(b"/")
    except UnicodeEncodeError:
        return "which is not UTF-8"
    if not name or sum(map(len, parts)) > LONGEST or max(map(len, parts)) > LONGEST_PART:
        return "which is empty or very long"
    if name.startswith("/") or name[1:2] == ":":
        return "which is absolute"
    if "\\" in name or any(unicodedata.category(c) == "Cc" for c in name):
        return "which has characters that no name should have"
    if any(part in (b"", b".", b"..") for part in parts):
        return "which points out of its folder or to a folder"
    return None


ENCODING = {
    ".json": "application/json", ".csv": "text/csv", ".html": "text/html", ".md": "text/markdown",
    ".cff": "application/yaml", ".txt": "text/plain",
}  # fmt: skip


def encoding(path: str) -> str:
    """Return a file's media type, by its name."""
    return ENCODING.get("." + path.rpartition(".")[2], "text/plain")
