"""Which archive of Debian the host's own apt uses."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lockstep.errors import UserError

APT = Path("/etc/apt")
SUITES = {
    *("oldoldstable", "oldstable", "stable", "testing", "unstable", "sid"),
    *("bullseye", "bookworm", "trixie", "forky", "duke"),
}


def host_mirror(apt: Path = APT) -> str:
    """Return the first archive of Debian that the host's apt uses.

    Others that it may use (of Docker, of a vendor) have other components, suites or keys.

    Raises:
        UserError: the host has no apt, or its apt knows no archive of Debian.
    """
    own = [apt / "sources.list", apt / "sources.list.d" / "debian.sources"]
    more = [path for kind in ("sources", "list") for path in apt.glob(f"sources.list.d/*.{kind}")]
    for path in (*own, *sorted(set(more) - set(own))):
        if path.is_file():
            for source in _sources(path):
                if source.is_debian:
                    return source.uri
    raise UserError(
        f"{apt}: names no archive of Debian, so no Debian root can be made from it; set "
        "images.debian_mirror, or images.base to a container image (docker:NAME@sha256:DIGEST)"
    )


@dataclass(frozen=True, kw_only=True)
class _Source:
    """An archive as apt's lists name it."""

    uri: str
    suites: list[str]
    components: list[str]
    key: str

    @property
    def is_debian(self) -> bool:
        """Whether it is one of Debian's packages, by all that the list says."""
        return (
            "main" in self.components
            and not SUITES.isdisjoint(self.suites)
            and (not self.key or "debian-archive" in self.key)
        )


def _sources(path: Path) -> Iterator[_Source]:
    """Yield the archives of a list, in either of apt's two formats."""
    text = re.sub(r"^[ \t]*#.*\n?", "", path.read_text(errors="replace"), flags=re.MULTILINE)
    if path.suffix == ".list":
        for line in text.splitlines():
            found = re.match(r"\s*deb\s+(?:\[([^]]*)\]\s*)?(\S+)\s+(\S+)\s*(.*)", line)
            if found:
                options, uri, suite, components = found.groups(default="")
                key = re.search(r"signed-by=(\S+)", options)
                yield _Source(
                    uri=uri,
                    suites=[suite],
                    components=components.partition("#")[0].split(),
                    key=key[1] if key else "",
                )
        return
    for stanza in re.split(r"\n\s*\n", text):
        fields = {
            name.lower(): value
            for name, value in re.findall(
                r"^([\w-]+):[ \t]*(.*(?:\n[ \t].*)*)", stanza, re.MULTILINE
            )
        }
        uris = fields.get("uris", "").split()
        if uris and "deb" in fields.get("types", "").split() and fields.get("enabled") != "no":
            yield _Source(
                uri=uris[0],
                suites=fields.get("suites", "").split(),
                components=fields.get("components", "").split(),
                key=fields.get("signed-by", ""),
            )
