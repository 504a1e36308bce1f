"""Who made a study and what may be done with it, as its config says; and as a crate says it."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lockstep.study import Study

Add = Callable[..., Any]

NOBODY = {"name": "Not named: the study's config has no archive.authors", "url": "./"}
NO_PUBLISHER = {"name": "Not named: the study's config has no archive.publisher", "url": "./"}
NO_AFFILIATION = {"name": "No affiliation stated", "url": "./"}
NO_LICENCE = "No licence stated: all rights reserved"


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
        publisher=section.get("publisher") or (affiliated[0] if affiliated else NO_PUBLISHER),
        citation=section.get("citation"),
    )


def identifier(author: Mapping[str, Any]) -> str:
    """Return how the crate calls an author."""
    if author.get("orcid"):
        return f"https://orcid.org/{author['orcid']}"
    return "#nobody" if author is NOBODY else f"#person-{_slug(author['name'])}"


def add_author(add: Add, author: Mapping[str, Any]) -> Any:
    """Add an author to a crate."""
    if author is NOBODY:
        return add_organization(add, NOBODY)
    # Stated or not, it must be there: the recommended level of the profile asks for it.
    affiliation = add_organization(add, author.get("affiliation") or NO_AFFILIATION)
    return add(identifier(author), "Person", name=author["name"], affiliation=affiliation)


def add_organization(add: Add, organization: Mapping[str, str]) -> Any:
    """Add an organization to a crate."""
    slug = _slug(organization["name"])
    name = "#nobody" if organization is NOBODY else f"#organization-{slug}"
    return add(name, "Organization", name=organization["name"], url=organization["url"])


def add_licence(add: Add, licence: str | None) -> Any:
    """Add a licence to a crate."""
    if licence is None:
        return add("#no-licence", "CreativeWork", name=NO_LICENCE, description=NO_LICENCE)
    if "://" in licence:
        return add(licence, "CreativeWork", name=licence, description=f"See {licence}")
    address = f"https://spdx.org/licenses/{licence}"
    return add(address, "CreativeWork", name=licence, description=f"SPDX licence {licence}")


def _slug(text: str) -> str:
    """Return a name as a part of an identifier: another one for every other name."""
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    if plain == text.lower().replace(" ", "-"):
        return plain
    return f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:8]}".lstrip("-")
