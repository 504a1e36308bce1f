"""The files that are for people and for services: README, a deposit's metadata, how to cite.

What they say is a function of config, records and ``archive.json`` alone, so verifying makes them
again and compares.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from lockstep import __version__
from lockstep.archive import layout
from lockstep.archive.archived_study import include
from lockstep.archive.completeness import Read
from lockstep.study import Study

NO_LICENCE = "No licence stated: all rights reserved"


def title(study: Study) -> str:
    """Return what the archive is called."""
    return study.config.get("archive", {}).get("title") or f"Lockstep study {study.name}"


def summary(study: Study) -> str:
    """Return what the archive is of, in a sentence or more."""
    text = study.config.get("archive", {}).get("description") or (
        f"A comparison of {', '.join(study.config['variants'])} on "
        f"{', '.join(study.config['workloads'])}: {len(study.runs)} runs."
    )
    return text if text.endswith(".") else f"{text}."


def keywords(study: Study) -> list[str]:
    """Return the archive's keywords."""
    frameworks = sorted({v["framework"] for v in study.config["variants"].values()})
    given = study.config.get("archive", {}).get("keywords")
    return list(given or ["benchmark", "reproducibility", *frameworks])


def state(study: Study, missing: Sequence[str], read: Read) -> str:
    """Return one sentence that says whether the study is complete, and what is missing."""
    found = [read(f"{study.run_folder(run)}/summary.json") for run in study.runs]
    counted = Counter(s.get("status") if isinstance(s, dict) else "missing" for s in found)
    said = ", ".join(f"{number} {status}" for status, number in counted.most_common())
    runs = f"{len(study.runs)} runs ({said})"
    if not missing:
        return f"The study is complete: {runs}."
    shown = ", ".join(f"`{name}`" for name in missing[:3])
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    return f"THE STUDY IS NOT COMPLETE: {runs}; {len(missing)} files are missing ({shown}{more})."


TEXT = """\
# {title}

{description}

{state}

This is the archive of study `{study}`, made by Lockstep {version}. It is a zip file whose members
are stored without compression, and a Workflow Run RO-Crate: `{crate}`
describes it for machines. Nothing in it has to be executed to be read.

{table}

{left_out}

## Is it unchanged?

Compare the sha256 of the zip file with the one that was published:

    sha256sum {file}

Once it is unzipped, `sha256sum -c {hashes}` compares every file with its hash. Lockstep does
both, and makes the report's numbers again from the records (`make setup` in `source/` installs what
that needs, which is neither PyTorch nor JAX):

    python -m lockstep verify {file} --sha256 SHA256

## Run it again

    python -m lockstep reproduce {file} --into FOLDER --sha256 SHA256

says what it will run, asks, runs it, and compares every loss with those in here.

Licence: {licence}. Authors: {authors}.{citation}
"""

LEFT_OUT = {
    "images": "the images (they are built from the definitions and locks; their identities and "
    "hashes are in the records)",
    "data": "the datasets themselves (the workflow obtains them again; `data/` has their hashes)",
    "checkpoints": "initial weights and final states (their hashes are in the records; initial "
    "weights are a function of workload and seed)",
    "traces": "the traces of parity (the verdicts hold what was found in them)",
}


def readme(study: Study, about: Mapping[str, Any], read: Read) -> bytes:
    """Return ``README.md``.

    Args:
        study: whose paths are names in the archive.
        about: the content of ``archive.json``.
        read: returns the JSON of an archived file.
    """
    told, chosen, source = study.config.get("archive", {}), include(study.config), about["source"]
    archive = study.partial_archive() if about["missing"] else study.archive()
    left_out = [text for part, text in LEFT_OUT.items() if not chosen[part]]
    commit = source["note"] + (f", commit {source['commit']}" if source["commit"] else "")
    return TEXT.format(
        title=title(study),
        description=summary(study),
        state=state(study, about["missing"], read),
        study=study.name,
        version=__version__,
        crate=layout.CRATE,
        hashes=layout.HASHES,
        table=_table(study, commit, [part for part in ("images", "data") if chosen[part]]),
        left_out="Left out: " + "; ".join(left_out) + "." if left_out else "Nothing is left out.",
        file=archive.name,
        licence=told.get("licence") or NO_LICENCE,
        authors=", ".join(author["name"] for author in told.get("authors") or []) or "not named",
        citation=f"\nPlease cite: {told['citation']}." if told.get("citation") else "",
    ).encode()


def _table(study: Study, source: str, parts: Sequence[str]) -> str:
    top = f"results/{study.name}"
    kinds = "datasets and images" if study.config["images"]["enabled"] else "datasets"
    also = f", and the {' and '.join(parts)} themselves" if parts else ""
    rows = {
        f"{top}/report/index.html": "the report, for a browser; its numbers are beside it",
        f"{top}/runs/": "a folder per run: `summary.json` (with everything that could explain a "
        "difference), `epochs.csv`, `windows.csv`, `steps.npz` (loss and checksum of every step)",
        f"{top}/parity/": "whether the frameworks computed the same, and what it was judged by",
        f"{top}/logs/": "what each job printed, and what it ran on and with",
        f"{top}/study.json": "the complete config, as it was run",
        layout.STUDY: "the same without places of that machine, to run it again",
        layout.SOURCE: f"the workflow and its package: {source}",
        f"{layout.SOURCE}containers/": "definitions and locks of the images",
        layout.DATA: f"what the {kinds} were, with source, licence and hashes{also}",
        layout.HASHES: "the sha256 of every file, as `sha256sum` writes it",
        layout.ABOUT: "whether the study is complete, and which files were rewritten",
    }
    lines = ["| | |", "|---|---|", *(f"| `{name}` | {says} |" for name, says in rows.items())]
    return "\n".join(lines)


# For services ---------------------------------------------------------------------------------


def upload(study: Study, date: str) -> bytes:
    """Return the metadata that a data repository's upload takes (the form of Zenodo's deposits)."""
    told = study.config.get("archive", {})
    metadata: dict[str, Any] = {
        "title": title(study),
        "upload_type": "dataset",
        "description": summary(study),
        "creators": [_creator(author) for author in told.get("authors") or []],
        "keywords": keywords(study),
        "publication_date": date,
        "access_right": "open" if told.get("licence") else "closed",
    }
    if told.get("licence"):
        licence = told["licence"]
        metadata["license"] = licence if "://" in licence else licence.lower()
    for key in ("doi", "version"):
        if told.get(key):
            metadata[key] = told[key]
    if told.get("funding"):
        names = [" ".join(filter(None, (f["name"], f.get("grant")))) for f in told["funding"]]
        metadata["contributors"] = [{"name": name, "type": "Funder"} for name in names]
    if told.get("citation"):
        metadata["notes"] = f"Please cite: {told['citation']}"
    return json.dumps({"metadata": metadata}, indent=2, ensure_ascii=False).encode() + b"\n"


def _creator(author: Mapping[str, Any]) -> dict[str, str]:
    place = author.get("affiliation") or {}
    found = {"name": author["name"], "orcid": author.get("orcid"), "affiliation": place.get("name")}
    return {key: value for key, value in found.items() if value}


def citation(study: Study, date: str) -> bytes:
    """Return ``CITATION.cff`` of an archive: how to cite the data in it."""
    told = study.config.get("archive", {})
    fields = {
        "cff-version": "1.2.0",
        "message": "Please cite this archive if you use what is in it.",
        "type": "dataset",
        "title": title(study),
        "date-released": date,
        **{key: told[key] for key in ("doi", "version") if told.get(key)},
        # The format wants authors; an anonymous work is said to be one.
        "authors": [
            {"name": author["name"]}
            | ({"orcid": f"https://orcid.org/{author['orcid']}"} if author.get("orcid") else {})
            for author in told.get("authors") or [{"name": "anonymous"}]
        ],
    }
    if told.get("licence"):
        fields["license-url" if "://" in told["licence"] else "license"] = told["licence"]
    return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=1000).encode()
