"""Who made a study and what may be done with it, as its config says."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lockstep.study import Study

Add = Callable[..., Any]

NOBODY = {"name": "Not named: the study's config has no archive.authors", "url": "./"}
NO_LICENCE = "No licence stated: all rights reserved"
SPDX = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")


@dataclass(frozen=True, kw_only=True)
class About:
    """What an archive says of itself.

    Attributes:
        authors: as in the config; at least one, who may be an organization without a name.
        licence: SPDX identifier or URL; None if the config states none.
        publisher: `name` and `url`.
    """

    title: str
    description: str
    keywords: Sequence[str]
    authors: Sequence[Mapping[str, Any]]
    licence: str | None
    publisher: Mapping[str, str]
    citation: str | None

    @property
    def named(self) -> bool:
        """Whether the config names authors."""
        return self.authors[0] is not NOBODY


def about(study: Study) -> About:
    """Return what a study's config says of its archive."""
    section = study.config.get("archive", {})
    authors = section.get("authors") or [NOBODY]
    affiliated = [a["affiliation"] for a in authors if a.get("affiliation")]
    frameworks = sorted({v["framework"] for v in study.config["variants"].values()})
    title = section.get("title") or f"Lockstep study {study.name}"
    said = section.get("description") or (
        f"A comparison of {', '.join(study.config['variants'])} on "
        f"{', '.join(study.config['workloads'])}: {len(study.runs)} runs."
    )
    return About(
        title=title,
        description=said if said.endswith(".") else said + ".",
        keywords=section.get("keywords") or ["benchmark", "reproducibility", *frameworks],
        authors=authors,
        licence=section.get("licence"),
        publisher=section.get("publisher") or (affiliated[0] if affiliated else NOBODY),
        citation=section.get("citation"),
    )


def identifier(author: Mapping[str, Any]) -> str:
    """Return how the crate calls an author."""
    if author.get("orcid"):
        return f"https://orcid.org/{author['orcid']}"
    return "#organization-unnamed" if author is NOBODY else f"#person-{_slug(author['name'])}"


def add_author(add: Add, author: Mapping[str, Any]) -> Any:
    """Add an author to a crate."""
    if author is NOBODY:
        return add_organization(add, NOBODY)
    affiliation = add_organization(add, author.get("affiliation") or NOBODY)
    return add(identifier(author), "Person", name=author["name"], affiliation=affiliation)


def add_organization(add: Add, organization: Mapping[str, str]) -> Any:
    """Add an organization to a crate."""
    if organization is NOBODY:
        name = "#organization-unnamed"
    else:
        name = f"#organization-{_slug(organization['name'])}"
    url = organization.get("url") or "./"
    return add(name, "Organization", name=organization["name"], url=url)


def add_licence(add: Add, licence: str | None) -> Any:
    """Add a licence to a crate."""
    if licence is None:
        return add("#no-licence", "CreativeWork", name=NO_LICENCE, description=NO_LICENCE)
    if "://" in licence:
        return add(licence, "CreativeWork", name=licence, description=f"See {licence}")
    address = f"https://spdx.org/licenses/{licence}"
    return add(address, "CreativeWork", name=licence, description=f"SPDX licence {licence}")


# Files for others -----------------------------------------------------------------------------


def upload(told: About, date: str) -> bytes:
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


def citation(told: About, date: str) -> bytes:
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


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "unnamed"
