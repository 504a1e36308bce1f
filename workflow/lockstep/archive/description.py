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
from lockstep.archive.layout import Read, include
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

{summary}

{state}

This is the archive of study `{study}`, made by Lockstep {version}. It is a zip file whose members
are stored without compression, and a Workflow Run RO-Crate: `ro-crate-metadata.json` describes it
for machines. Nothing in it has to be executed to be read.

| | |
|---|---|
| `results/{study}/report/index.html` | the report, for a browser; its numbers are beside it |
| `results/{study}/runs/` | a folder per run: `summary.json` (with everything that could explain a \
difference), `epochs.csv`, `windows.csv`, `steps.npz` (loss and checksum of every step) |
| `results/{study}/parity/` | whether the frameworks computed the same, and what it was judged by |
| `results/{study}/logs/` | what each job printed, and what it ran on and with |
| `results/{study}/study.json` | the complete config, as it was run |
| `study/study.json` | the same without places of that machine, to run it again |
| `source/` | the workflow and its package: {source} |
| `source/containers/` | definitions and locks of images |
| `data/` | what datasets and images were, with source, licence and hashes |
| `manifest-sha256.txt` | the sha256 of every file, as `sha256sum` writes it |
| `archive.json` | whether the study is complete, and which files were rewritten |

{left_out}

## Is it unchanged?

Compare the sha256 of the zip file with the one that was published:

    sha256sum {file}

Once it is unzipped, `sha256sum -c manifest-sha256.txt` compares every file with its hash. Lockstep
does both, and makes the report's numbers again from the records (`make setup` in `source/` installs
what that needs, which is neither PyTorch nor JAX):

    python -m lockstep verify {file} --sha256 SHA256

## Run it again

    python -m lockstep reproduce {file} --into FOLDER --sha256 SHA256

says what it will run, asks, runs it, and compares every loss with those in here.

Licence: {licence}. Authors: {authors}.{citation}
"""

LEFT_OUT = {
    "images": "the images (they are built from the definitions and locks)",
    "data": "the datasets themselves (the workflow obtains them again)",
    "checkpoints": "initial weights (a function of workload and seed) and final states",
    "artefacts": "exported models (made again from a final state; their hashes are in the records)",
    "traces": "the traces of parity (the verdicts hold what was found in them)",
}
"""Of the optional parts; the hashes of all of them are in the records."""


def readme(study: Study, about: Mapping[str, Any], read: Read) -> bytes:
    """Return ``README.md``.

    Args:
        study: whose paths are names in the archive.
        about: the content of ``archive.json``.
        read: returns the JSON of an archived file.
    """
    told, chosen, source = study.config.get("archive", {}), include(study.config), about["source"]
    archive = study.partial_archive() if about["missing"] else study.archive()
    left_out = [text for part, text in LEFT_OUT.items() if not chosen[part]
                and (part != "artefacts" or study.deployed)]  # fmt: skip
    return TEXT.format(
        title=title(study),
        summary=summary(study),
        state=state(study, about["missing"], read),
        study=study.name,
        version=__version__,
        source=source["note"] + (f", commit {source['commit']}" if source["commit"] else ""),
        left_out="Left out: " + "; ".join(left_out) + "." if left_out else "Nothing is left out.",
        file=archive.name,
        licence=told.get("licence") or NO_LICENCE,
        authors=", ".join(author["name"] for author in told.get("authors") or []) or "not named",
        citation=f"\nPlease cite: {told['citation']}." if told.get("citation") else "",
    ).encode()


# For services ---------------------------------------------------------------------------------


def upload(study: Study, date: str) -> bytes:
    """Return the metadata that a data repository's upload takes (the form of Zenodo's deposits)."""
    told = study.config.get("archive", {})
    licence, cited = told.get("licence"), told.get("citation")
    metadata = {
        "title": title(study),
        "upload_type": "dataset",
        "description": summary(study),
        "creators": [
            _stated(
                name=author["name"],
                orcid=author.get("orcid"),
                affiliation=(author.get("affiliation") or {}).get("name"),
            )
            for author in told.get("authors") or []
        ],
        "keywords": keywords(study),
        "publication_date": date,
        "access_right": "open" if licence else "closed",
        **_stated(
            license=licence if "://" in str(licence) else str(licence or "").lower(),
            doi=told.get("doi"),
            version=told.get("version"),
            contributors=[
                {"name": f"{f['name']} {f.get('grant') or ''}".strip(), "type": "Funder"}
                for f in told.get("funding") or []
            ],
            notes=f"Please cite: {cited}" if cited else None,
        ),
    }
    return json.dumps({"metadata": metadata}, indent=2, ensure_ascii=False).encode() + b"\n"


def _stated(**fields: Any) -> dict[str, Any]:
    """Return those fields that say something."""
    return {key: value for key, value in fields.items() if value}


def citation(study: Study, date: str) -> bytes:
    """Return ``CITATION.cff`` of an archive: how to cite the data in it."""
    told = study.config.get("archive", {})
    licence = told.get("licence") or ""
    fields = {
        "cff-version": "1.2.0",
        "message": "Please cite this archive if you use what is in it.",
        "type": "dataset",
        "title": title(study),
        "date-released": date,
        **_stated(doi=told.get("doi"), version=told.get("version")),
        # The format wants authors; an anonymous work is said to be one.
        "authors": [
            {"name": author["name"]}
            | ({"orcid": f"https://orcid.org/{author['orcid']}"} if author.get("orcid") else {})
            for author in told.get("authors") or [{"name": "anonymous"}]
        ],
        **_stated(**{"license-url" if "://" in licence else "license": licence}),
    }
    return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=1000).encode()
