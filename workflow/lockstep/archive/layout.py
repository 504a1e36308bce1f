"""What an archive holds and what it is called in there: the one place that knows."""

import re

SCHEMA = "lockstep-archive/1"

MANIFEST = "manifest.json"
CRATE = "ro-crate-metadata.json"
README = "README.md"
UPLOAD = "metadata.json"
CITATION = "CITATION.cff"
STUDY = "study/study.json"
SOURCE = "source/"
DIFFERENCE = "source.diff"
RESULTS = "results/"
DATA = "data/"

MADE_LAST = (README, UPLOAD, CITATION, CRATE, MANIFEST)
"""Made by archiving itself, in this order: each may tell of the ones before."""

RECORDS = ("summary.json", "epochs.csv", "windows.csv", "steps.npz")
"""What a run must have to be finished, besides its final state."""

FINAL = "final.safetensors"

_RUN = r"runs/[^/]+/[^/]+/[^/]+/seed-[0-9]+/"
KEPT = tuple(
    re.compile(pattern)
    for pattern in (
        r"study\.json|repetitions\.json",
        r"parity/[^/]+/(verdict|passed)\.json",
        r"blocks/.+\.json",
        _RUN + r"(summary|run|failure)\.json",
        _RUN + r"(epochs|windows)\.csv",
        _RUN + r"steps\.npz|" + _RUN + r"log\.txt",
        r"report/(index\.html|report\.json|complete\.json)",
        r"report/tables/[^/]+\.csv",
        r"report/figures/[^/]+\.(svg|png)",
        r"logs/(?!archive\.log).+\.(log|json)",
    )
)
"""Of a study's folder, by what it is called: what is not listed is never archived. TensorBoard's
and W&B's files repeat the tables, and hold names of machines, folders and variables.
"""

TRACES = re.compile(r"parity/[^/]+/[^/]+\.npz")
STATES = re.compile(rf"weights/[^/]+/seed-[0-9]+\.safetensors|{_RUN}{re.escape(FINAL)}")


def kept(path: str, *, traces: bool = True, states: bool = True) -> bool:
    """Whether a file of a study's folder, by its path below it, belongs into an archive."""
    if any(pattern.fullmatch(path) for pattern in KEPT):
        return True
    return bool((traces and TRACES.fullmatch(path)) or (states and STATES.fullmatch(path)))


def known(path: str, study: str) -> bool:
    """Whether an archive of a study may hold a file of this name."""
    if path.startswith(SOURCE):
        return True
    below = f"{RESULTS}{study}/"
    if path.startswith(below):
        return kept(path.removeprefix(below))
    if re.fullmatch(DATA + r"datasets/[^/]+/(manifest\.json|[^/]+\.h5)", path):
        return True
    if re.fullmatch(DATA + r"images/[^/]+/(manifest\.json|image\.sif)", path):
        return True
    return path in (*MADE_LAST, STUDY, DIFFERENCE)


_UNSEEN = re.compile(SOURCE + r"(.*/)?(__pycache__/.*|[^/]*\.(pyc|so|pth))")
_BESIDE = re.compile(SOURCE + r"workflow/(?!lockstep/)([^/]+\.py|[^/]+/__init__\.py)")
_AT_TOP = re.compile(SOURCE + r"workflow/[^/]+")


def shadows(path: str, *, link: bool) -> bool:
    """Whether Python could run a file of the source in place of the code that is compared.

    Compiled code goes before its text, and what lies beside the package before what is installed.

    Args:
        link: whether it is one, which may lead to a package.
    """
    if _UNSEEN.fullmatch(path) or _BESIDE.fullmatch(path):
        return True
    return link and _AT_TOP.fullmatch(path) is not None


ENCODING = {
    ".json": "application/json",
    ".csv": "text/csv",
    ".html": "text/html",
    ".md": "text/markdown",
    ".npz": "application/zip",
    ".h5": "application/x-hdf5",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".cff": "application/yaml",
    ".smk": "text/x-python",
    ".safetensors": "application/octet-stream",
    ".sif": "application/octet-stream",
}


def encoding(path: str) -> str:
    """Return a file's media type, by its name."""
    return ENCODING.get("." + path.rpartition(".")[2], "text/plain")
