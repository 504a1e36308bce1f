"""What must not leave the machine: secrets, and paths that tell whose machine it was.

Only texts that no record's hash is taken of are rewritten (configs, logs, what a run's processes
were told); the records themselves hold no paths. The manifest says which files were rewritten.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lockstep.study import Study

SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|_KEY$|API_?KEY|ACCESS_KEY|AUTH", re.I)
SHORTEST = 8  # of a variable's value that counts as a secret: shorter ones stand in every text

SHAPES = tuple(
    re.compile(shape)
    for shape in (
        rb"gh[pousr]_[A-Za-z0-9]{30,}",
        rb"github_pat_[A-Za-z0-9_]{40,}",
        rb"glpat-[A-Za-z0-9_-]{20,}",
        rb"hf_[A-Za-z0-9]{30,}",
        rb"xox[abprs]-[A-Za-z0-9-]{20,}",
        rb"(?:AKIA|ASIA)[A-Z0-9]{16}",
        rb"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
        rb"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?-----END [A-Z ]*PRIVATE KEY-----",
        rb"(?<=://)[^/\s:@\"']+:[^/\s@\"']+(?=@)",
        rb"(?<=[Bb]earer )[A-Za-z0-9._~+/-]{16,}=*",
    )
)
"""What tokens of well-known services look like, and names with passwords in addresses."""

REMOVED = b"[removed]"
HOMES = re.compile(rb"/(?:home|Users)/[^/\s\"':,;)\]}]+")

TEXT = (".json", ".log", ".txt", ".csv", ".html", ".svg", ".diff")


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What is replaced by what, in this order."""

    secrets: tuple[tuple[bytes, bytes], ...]
    paths: tuple[tuple[bytes, bytes], ...]

    @classmethod
    def of(cls, study: Study, environment: Mapping[str, str], checkout: Path) -> "Rules":
        """Return the rules for a study on this machine."""
        config = study.config
        places = {
            "$RESULTS": config["paths"]["results"],
            "$DATA": config["paths"]["data"],
            **{f"$RAW/{k}": entry["raw"] for k, entry in config["datasets"].items()},
            "$IMAGE_CACHE": config["images"]["cache"],
            "$BUILD": config["images"]["build_folder"],
            **{f"$READY/{k}": path for k, path in config["images"]["ready"].items()},
            "$CHECKOUT": str(checkout),
            "$FOLDER": str(Path.cwd()),
            "$HOME": environment.get("HOME"),
        }
        paths: dict[bytes, bytes] = {}
        for placeholder, place in places.items():
            if place and len(Path(place).parts) > 1 and Path(place).is_absolute():
                for spelled in (place.rstrip("/"), str(Path(place).resolve())):
                    paths.setdefault(spelled.encode(), placeholder.encode())
        secrets = {
            value.encode(): f"[${name}]".encode()
            for name, value in environment.items()
            if SECRET_NAME.search(name) and len(value) >= SHORTEST and not value.startswith("/")
        }
        longest_first = sorted(paths.items(), key=lambda item: (-len(item[0]), item))
        return cls(secrets=tuple(sorted(secrets.items())), paths=tuple(longest_first))

    def clean(self, text: bytes, *, paths: bool = True) -> bytes:
        """Return a text without secrets and, if `paths`, without paths of this machine."""
        for secret, name in self.secrets:
            text = text.replace(secret, name)
        for shape in SHAPES:
            text = shape.sub(REMOVED, text)
        if paths:
            for place, placeholder in self.paths:
                # Not within a longer name: /root is not part of /rooted.
                whole = rb"(?<![\w.-])" + re.escape(place) + rb"(?![\w-])"
                text = re.sub(whole, placeholder.replace(b"\\", rb"\\"), text)
            text = HOMES.sub(b"$HOME", text)
        return text


def is_text(path: str) -> bool:
    """Whether a file is one that is looked through, by its name."""
    return path.endswith(TEXT)


def here(study: Study, checkout: Path) -> Rules:
    """Return the rules for a study in this process."""
    return Rules.of(study, os.environ, checkout)
