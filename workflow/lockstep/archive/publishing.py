"""The files that are for people and for services: README, a deposit's metadata, how to cite."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lockstep import __version__
from lockstep.archive import layout, people, readme, settings, written
from lockstep.archive.findings import Check
from lockstep.study import Study

SPDX = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")


def pages(
    study: Study,
    told: people.About,
    *,
    source: Mapping[str, Any],
    state: str,
    missing: Sequence[str],
    date: str,
) -> dict[str, bytes]:
    """Return the contents of all of them by name; nothing else decides what they say.

    Args:
        told: what the config says of the archive.
        source: `commit` (None if that is not known) and `note`, of the workflow's source.
        state: whether the study is complete, in a sentence.
        missing: what a complete one has besides; an archive of less has another name.
        date: of publication.
    """
    archive = study.partial_archive() if missing else study.archive()
    return {
        layout.README: readme.readme(
            study,
            told,
            source,
            state,
            include=settings.include(study),
            file=archive.name,
            version=__version__,
        ),
        layout.UPLOAD: upload(told, date),
        layout.CITATION: citation(told, date),
    }


def check(study: Study, manifest: Mapping[str, Any], crate: Path, package: Path) -> Check:
    """Are they what config and records make them?

    Args:
        crate: the description, which has the date.
        package: the archived code, which wrote them.
    """
    graph = json.loads(crate.read_bytes())["@graph"]
    (date,) = (entity["datePublished"] for entity in graph if entity["@id"] == "./")
    told, missing = people.about(study), manifest["missing"]
    state = readme.state(study, missing)
    made = pages(study, told, source=manifest["source"], state=state, missing=missing, date=date)
    listed = manifest["files"]
    wrong = [
        f"{name}: is not what config and records make it"
        for name, content in made.items()
        if name in listed and not _same(listed[name], content)
    ]
    if wrong and not written.alike(__name__, manifest, package):
        says = "not those of this version of Lockstep; another one wrote them"
        return Check(name="pages", says=says, open=True)
    says = f"{', '.join(made)} are what config and records make them"
    return Check(name="pages", says=says, wrong=wrong)


def _same(line: Mapping[str, Any], content: bytes) -> bool:
    return bool(line["sha256"] == hashlib.sha256(content).hexdigest())


# For services ---------------------------------------------------------------------------------


def upload(told: people.About, date: str) -> bytes:
    """Return the metadata that a data repository's upload takes (the form of Zenodo's deposits)."""
    metadata: dict[str, Any] = {
        "title": told.title,
        "upload_type": "dataset",
        "description": told.description,
        "creators": [_creator(author) for author in told.authors],
        "keywords": list(told.keywords),
        "publication_date": date,
        "access_right": "open" if told.licence else "closed",
    }
    if told.licence:
        metadata["license"] = told.licence.lower() if SPDX.fullmatch(told.licence) else told.licence
    if told.citation:
        metadata["notes"] = f"Please cite: {told.citation}"
    return json.dumps({"metadata": metadata}, indent=2, ensure_ascii=False).encode() + b"\n"


def _creator(author: Mapping[str, Any]) -> dict[str, str]:
    found = {"name": author["name"]}
    if author.get("orcid"):
        found["orcid"] = author["orcid"]
    if author.get("affiliation"):
        found["affiliation"] = author["affiliation"]["name"]
    return found


def citation(told: people.About, date: str) -> bytes:
    """Return ``CITATION.cff`` of an archive: how to cite the data in it."""
    lines = [
        "cff-version: 1.2.0",
        "message: Please cite this archive if you use what is in it.",
        "type: dataset",
        f"title: {_quoted(told.title)}",
        f"date-released: {date}",
        "authors:",
    ]
    for author in told.authors:
        lines.append(f"  - name: {_quoted(author['name'])}")
        if author.get("orcid"):
            lines.append(f"    orcid: https://orcid.org/{author['orcid']}")
    if told.licence and SPDX.fullmatch(told.licence):
        lines.append(f"license: {told.licence}")
    elif told.licence:
        lines.append(f"license-url: {_quoted(told.licence)}")
    return "\n".join([*lines, ""]).encode()


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
