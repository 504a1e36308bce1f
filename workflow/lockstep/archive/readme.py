"""The first thing that a stranger reads in an archive."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from lockstep.archive import layout, people
from lockstep.report import load
from lockstep.study import Study

TEXT = """\
# {title}

{description}

{state}

This is the archive of study `{study}`, made by Lockstep {version}: a zip file whose members are
stored as they are, and a Workflow Run RO-Crate (`{crate}`
describes it for machines). Nothing in it has to be executed to be read.

{table}

{left_out}

## Is it unchanged, and do its numbers follow from its records?

With Lockstep (its source is in here; `make setup` in `source/` installs what this needs, which is
neither PyTorch nor JAX):

    python -m lockstep verify {file}

Without it, `sha256sum` of any file must be what `manifest.json` says.

## Run it again

    python -m lockstep reproduce {file} --into FOLDER

says what it will run, runs it, and compares every loss with the ones in here.

Licence: {licence}. Authors: {authors}.{citation}
"""


def _table(study: Study, source: str, parts: Sequence[str]) -> str:
    top = f"results/{study.name}"
    kinds = "datasets and images" if study.config["images"]["enabled"] else "datasets"
    also = f", and the {' and '.join(parts)} themselves" if parts else ""
    rows = {
        f"{top}/report/index.html": "the report, for a browser; its numbers are beside it",
        f"{top}/runs/": "a folder a run: `summary.json` (with everything that could explain a "
        "difference), `epochs.csv`, `windows.csv`, `steps.npz` (loss and checksum of every step)",
        f"{top}/parity/": "whether the frameworks computed the same, and what it was judged by",
        f"{top}/logs/": "what each job said, and what it ran on and with",
        f"{top}/study.json": "the complete config, as it was run",
        layout.STUDY: "the same without places of that machine, to run it again",
        layout.SOURCE: f"the workflow and its package: {source}",
        f"{layout.SOURCE}containers/": "definitions and locks of the images",
        layout.DATA: f"what the {kinds} were, with source, licence and hashes{also}",
        layout.MANIFEST: "size and sha256 of every file, and a digest of itself",
    }
    lines = ["| | |", "|---|---|", *(f"| `{name}` | {says} |" for name, says in rows.items())]
    return "\n".join(lines)


def readme(study: Study, told: people.About, source: Mapping[str, Any], said: str, *,
           include: dict[str, bool], file: str, version: str) -> bytes:  # fmt: skip
    """Return ``README.md``.

    Args:
        source: its `note`, and `commit` or None.
        said: whether the study is complete, in a sentence.
        file: what the archive is called.
    """
    lacks = {
        "images": "the images (they are built from the definitions and locks; their identities and "
        "hashes are in the records)",
        "data": "the datasets themselves (the workflow obtains them again; their hashes are in "
        "`data/`)",
        "checkpoints": "initial weights and final states (hashes are in the records; the initial "
        "weights are a function of workload and seed)",
        "traces": "the traces of parity (the verdicts hold what was found in them)",
    }
    left_out = [text for part, text in lacks.items() if not include[part]]
    parts = [part for part in ("images", "data") if include[part]]
    names = [author["name"] for author in told.authors]
    commit = source["note"] + (f", commit {source['commit']}" if source["commit"] else "")
    text = TEXT.format(
        title=told.title,
        description=told.description,
        state=said,
        study=study.name,
        version=version,
        crate=layout.CRATE,
        table=_table(study, commit, parts),
        left_out="Left out: " + "; ".join(left_out) + "." if left_out else "Nothing is left out.",
        file=file,
        licence=told.licence or people.NO_LICENCE,
        authors=", ".join(names),
        citation=f"\nPlease cite: {told.citation}." if told.citation else "",
    )
    return text.encode()


def state(study: Study, missing: Sequence[str]) -> str:
    """Return one sentence that says whether the study is complete, and what is missing."""
    runs = load.load(study).runs
    counted = Counter(run.status for run in runs)
    said = ", ".join(f"{number} {status}" for status, number in counted.most_common())
    if not missing:
        return f"The study is complete: {len(runs)} runs ({said})."
    shown = ", ".join(f"`{name}`" for name in missing[:3])
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    return (
        f"THE STUDY IS NOT COMPLETE: {len(runs)} runs ({said}); {len(missing)} files are missing "
        f"({shown}{more})."
    )
