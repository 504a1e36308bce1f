"""What must not leave the machine: secrets, and paths that tell whose machine it was.

Only texts that no record's hash is taken of are rewritten (configs, logs, what a run's processes
were told); the records themselves hold no paths. The manifest says which files were rewritten.
"""

import functools
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lockstep.archive.container import CHUNK
from lockstep.study import Study

SECRET_NAME = re.compile(
    r"TOKEN|SECRET|PASSW|PASSPHRASE|PASS$|_PWD$|(^|_)PAT$|CREDENTIAL|_KEY$|API_?KEY|ACCESS_KEY|"
    r"(^|_)AUTH(_|$)|AUTHORIZATION",
    re.I,
)
SHORTEST = 8  # of a variable's value that counts as a secret: shorter ones stand in every text
WORD = re.compile(r"[a-z]{,12}")  # stands in every text too, and is no secret worth the name

SHAPES = tuple(
    re.compile(shape)
    for shape in (
        rb"gh[pousr]_[A-Za-z0-9]{30,}",
        rb"github_pat_[A-Za-z0-9_]{40,}",
        rb"gl(?:pat|rt|dt|ptt|soat|cbt|ft)-[A-Za-z0-9_-]{20,}",
        rb"hf_[A-Za-z0-9]{30,}",
        rb"pypi-[A-Za-z0-9_-]{32,}",
        rb"(?<![A-Za-z0-9])npm_[A-Za-z0-9]{36}(?![A-Za-z0-9])",
        rb"(?<![\w+/-])AIza[\w-]{35}(?![\w+/-])",  # an embedded picture may have these letters too
        rb"(?<![\w-])sk-[A-Za-z0-9_-]{20,}",
        rb"xox[abprs]-[A-Za-z0-9-]{20,}",
        rb"(?:AKIA|ASIA)[A-Z0-9]{16}",
        rb"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
        rb"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----[\s\S]*?"
        rb"-----END [A-Z ]*PRIVATE KEY(?: BLOCK)?-----",
    )
)
"""What tokens of well-known services look like."""

SECRET_WORD = (
    rb"(?:password|passwd(?!=\d)|passphrase|secret|token|(?:api|access|auth|secret)[_-]?key)"
)

BEHIND = tuple(
    re.compile(shape)
    for shape in (
        rb"(://)[^/\s:@\"']*:[^/\s\"']+(?=@(?!sha256:))",
        rb"(https?://)[^/\s:@\"']+(?=@(?!sha256:))",
        rb"(earer )[A-Za-z0-9._~+/-]{16,}=*",
    )
)
"""What stands behind a word: names and passwords in addresses (of an image, it is its name)."""

SCHEME = rb"(?:basic|bearer|digest|token)"

NAMED = tuple(
    re.compile(shape, re.I)
    for shape in (
        rb"(authorization\s*[:=]\s*(?:%b )?)(?!%b )[^][\s\"'\\,;(){}]{6,}" % (SCHEME, SCHEME),
        rb"(authorization\\?[\"']?\s*[:=]\s*\\?[\"'](?:%b )?)(?!%b )[^][\s\"'\\,;]{6,}"
        % (SCHEME, SCHEME),
        rb"(%b\s*[:=]\s*)(?=[^\s\"'\\]*\d)[^][\s\"'\\,;&(){}$]{8,}" % SECRET_WORD,
        rb"(%b\\?[\"']?\s*[:=]\s*\\?[\"'])[^][\s\"'\\(){}$]{8,}(?=\\?[\"'])" % SECRET_WORD,
        rb"((?<!/)(?:password|passwd|passphrase)\\?[\"']?\s*[:=]\s*\\?[\"'])[^][\"'\\(){}$\r\n]{8,}"
        rb"(?=\\?[\"'])",
        rb"(client[_-]?secret\s*[:=]\s*)(?![a-z]{,12}(?![\w-]))[^][\s\"'\\,;&(){}$]{8,}",
        rb"(--[\w-]*%b\\?[\"']?(?:\s+|,\s*)\\?[\"']?)(?=[^\s\"'\\]*\d)[^][\s\"'\\,;&(){}$<>-]"
        rb"[^][\s\"'\\,;&(){}$<>]{7,}" % SECRET_WORD,
        rb"((?:key|token|login|wandb)\W{1,4}(?:is )?)[0-9a-f]{40}(?![0-9a-f])",
    )
)
"""What stands behind a word that says it is a secret. Code has such words too, for what is none, so
these are not looked for in what is compared by its hash. Numbers of JSON stay numbers.
"""
HINTS = (b"authorization", b"passw", b"passphrase", b"secret", b"token", b"key", b"login", b"wandb")

REMOVED = b"[removed]"
HOMES = re.compile(rb"/(?:home|Users)/[^/\s\"':,;)\]}]+")

BEGINNING = 8000
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
            "$HOME": environment.get("HOME"),
        }
        paths: dict[bytes, bytes] = {}
        for placeholder, place in places.items():
            if place and len(Path(place).parts) > 1 and Path(place).is_absolute():
                for path in (place.rstrip("/"), str(Path(place).resolve())):
                    for spelled in _spelled(path):
                        paths.setdefault(spelled, placeholder.encode())
        secrets = {
            spelled: f"[${name}]".encode()
            for name, value in environment.items()
            if SECRET_NAME.search(name)
            for line in (value, *value.splitlines())
            if _is_secret(line)
            for spelled in _spelled(line)
        }
        return cls(secrets=_longest_first(secrets), paths=_longest_first(paths))

    def clean(self, text: bytes, *, paths: bool = True, named: bool = True) -> bytes:
        """Return a text without secrets.

        Args:
            paths: paths of this machine go too.
            named: so does what is a secret only because a word before it says so.
        """
        for secret, name in self.secrets:
            text = text.replace(secret, name)
        for shape in SHAPES:
            text = shape.sub(REMOVED, text)
        for shape in BEHIND:
            text = shape.sub(rb"\1" + REMOVED, text)
        if named:
            lower = text.lower()
            if any(hint in lower for hint in HINTS):
                for shape in NAMED:
                    text = shape.sub(rb"\1" + REMOVED, text)
        if paths:
            for place, placeholder in self.paths:
                text = _whole(place).sub(placeholder.replace(b"\\", rb"\\"), text)
            text = HOMES.sub(b"$HOME", text)
        return text

    def of_source(self) -> "Rules":
        """Return the rules for what people wrote: there, /root is no place of this machine."""
        return Rules(
            secrets=self.secrets, paths=tuple(pair for pair in self.paths if pair[0] != b"/root")
        )


@functools.cache
def _whole(place: bytes) -> re.Pattern[bytes]:
    """Return what finds a path, but not within a longer name: /root is not part of /rooted.

    Before it may stand an option of one letter, or the letter of an escaped end of line. The path
    comes first, and what stands before it is looked at then: so a search is fifty times as fast.
    """
    path = re.escape(place)
    before = rb"(?:(?<![\w.-]%b)|(?<=-[A-Za-z]%b)|(?<=\\[nrt]%b))" % (path, path, path)
    return re.compile(path + before + rb"(?![\w-])")


def _spelled(text: str) -> tuple[bytes, ...]:
    """Return how a text stands in a text file, and in JSON."""
    return text.encode(errors="surrogateescape"), json.dumps(text)[1:-1].encode()


def _is_secret(value: str) -> bool:
    return len(value) >= SHORTEST and not value.startswith("/") and not WORD.fullmatch(value)


def _longest_first(found: Mapping[bytes, bytes]) -> tuple[tuple[bytes, bytes], ...]:
    """Return what is replaced in this order: else what begins alike would leave its tail."""
    return tuple(sorted(found.items(), key=lambda item: (-len(item[0]), item)))


# Large texts ----------------------------------------------------------------------------------

KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----(?![\s\S]*-----END )")
LARGEST_KEY = 1 << 16


def parts(stream: BinaryIO) -> Iterator[bytes]:
    """Yield a text in parts of whole lines, which no private key spans, in bounded memory."""
    held = b""
    while piece := stream.read(CHUNK):
        new = len(held)
        held += piece
        end = max(held.rfind(b"\n", new), held.rfind(b"\r", new)) + 1
        opened = KEY.search(held, max(0, end - LARGEST_KEY), end)
        end = opened.start() if opened else end
        if end:
            yield held[:end]
            held = held[end:]
    yield held


def is_text(path: str) -> bool:
    """Whether a file is one that is looked through, by its name."""
    return path.endswith(TEXT)


def is_binary(content: bytes) -> bool:
    """Whether what begins like this is no text, as git sees it."""
    return b"\0" in content[:BEGINNING]


def here(study: Study, checkout: Path) -> Rules:
    """Return the rules for a study in this process."""
    return Rules.of(study, os.environ, checkout)
