"""What must not leave the machine: secrets, and paths that say whose machine it was.

In logs and configs, of which no record has the hash, both are replaced. In the source and in
records a secret stops the archive, with file and line.
"""

import functools
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lockstep.archive.zip_container import CHUNK
from lockstep.study import Study

FILES = re.compile(
    r"\.env(\.(?!example$|sample$|template$).*)?|\.(netrc|pypirc|npmrc|pgpass|git-credentials|htpasswd)"
    r"|_netrc|.*\.(pem|key|p12|pfx|jks|keystore|kdbx)|id_(rsa|dsa|ecdsa|ed25519)(?!.*\.pub$).*"
    r"|(kaggle|credentials|client_secrets?[^/]*|service[-_]account[^/]*)\.json",
    re.IGNORECASE,
)
"""Names of files that hold keys and passwords."""

_KEY = rb"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----"
_WORD = rb"(?:password|passwd(?!=\d)|passphrase|secret|token|(?:api|access|auth|secret)[_-]?key)"
_SCHEME = rb"(?:basic|bearer|digest|token)"
_PUBLIC = rb"(?!(?:[\w.-]+\.)?(?:example(?:\.\w+)?|invalid|test|localhost)\b)"

RULES = {kind: (hints.encode().split(), re.compile(pattern)) for kind, hints, pattern in (
    ("GitHub token", "gh", rb"gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{40,}"),
    ("GitLab token", "gl", rb"gl(?:pat|rt|dt|ptt|soat|cbt|ft)-[A-Za-z0-9_-]{20,}"),
    ("Hugging Face token", "hf_ api_org_", rb"(?:api_org|hf)_[A-Za-z0-9]{30,}"),
    ("PyPI token", "pypi-", rb"pypi-[A-Za-z0-9_-]{32,}"),
    ("npm token", "npm_", rb"(?<![A-Za-z0-9])npm_[A-Za-z0-9]{36}(?![A-Za-z0-9])"),
    ("Google API key", "aiza", rb"(?<![\w+/-])AIza[\w-]{35}(?![\w+/-])"),
    ("Google OAuth secret", "gocspx-", rb"GOCSPX-[\w-]{20,}"),
    ("Google OAuth token", "ya29.", rb"(?<![\w+/-])ya29\.[\w-]{20,}"),
    ("OpenAI or Anthropic key", "sk-", rb"(?<![\w-])sk-[A-Za-z0-9_-]{20,}"),
    ("Slack token", "xox", rb"xox[abeprs]-[A-Za-z0-9-]{20,}"),
    ("Slack webhook", "hooks.slack", rb"hooks\.slack\.com/(?:services|workflows)/[\w/]{20,}"),
    ("Discord webhook", "/webhooks/", rb"discord(?:app)?\.com/api/webhooks/[0-9]{10,}/[\w-]{20,}"),
    ("Teams webhook", "webhook.office", rb"webhook\.office\.com/webhookb2/[\w@/-]{20,}"),
    ("Discord token", ".", rb"(?<![\w.])[MNO][\w-]{23,25}\.[\w-]{6}\.[\w-]{27,38}(?![\w.])"),
    ("Telegram token", ":aa", rb"(?<!\d)[0-9]{8,10}:AA[\w-]{33}(?![\w-])"),
    ("AWS access key", "akia asia abia acca",
     rb"(?<![A-Za-z0-9])(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}(?!\w)"),
    ("Azure storage key", "accountkey", rb"AccountKey=[A-Za-z0-9+/=]{80,}"),
    ("Stripe key", "k_live_", rb"[rs]k_live_[0-9a-zA-Z]{20,}"),
    ("Square token", "sq0csp-", rb"sq0csp-[\w-]{40,}"),
    ("SendGrid key", "sg.", rb"(?<![\w+/-])SG\.[\w-]{20,24}\.[\w-]{39,50}"),
    ("Mailchimp key", "-us", rb"(?<![0-9a-f])[0-9a-f]{32}-us[0-9]{1,2}(?!\d)"),
    ("Twilio key", "sk", rb"(?<![A-Za-z0-9])SK[0-9a-f]{32}(?![0-9a-f])"),
    ("JSON web token", "eyj", rb"eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"),
    ("private key", "-----begin", _KEY + rb"[\s\S]*?(?:-----END [A-Z ]*-----|\Z)"),
    ("password in an address", "://",
     rb"(?P<kept>://)(?:[^/\s:@\"'<>{}$]*:[^/\s\"'<>{}$]+|(?<=tp://|ps://)[^/\s:@\"'<>{}$]+)"
     rb"(?=@(?!sha256:)" + _PUBLIC + rb")"),
    ("bearer token", "bearer", rb"(?i)(?P<kept>bearer )[\w.~+/-]{16,}=*"),
    ("password in .netrc", "machine",
     rb"(?i)(?P<kept>machine\s+\S+\s+login\s+\S+\s+password\s+)\S+"),
    ("W&B key", "key token login wandb",
     rb"(?i)(?P<kept>(?:key|token|login|wandb)\W{1,4}(?:is )?)[0-9a-f]{40}(?![0-9a-f])"),
    ("Kaggle key", 'kaggle "key"',
     rb"(?i)(?P<kept>(?:kaggle_key|\"key\")\s*[:=]\s*\"?)[0-9a-f]{32}(?![0-9a-f])"),
)}  # fmt: skip
"""What secrets of known kinds look like, with texts (in lower case) one of which each contains."""

ASSIGNED = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rb"(?P<kept>authorization\\?[\"']?\s*[:=]\s*(?:\\?[\"'])?(?:%b )?)(?!%b )"
        rb"[^][\s\"'\\,;(){}]{6,}" % (_SCHEME, _SCHEME),
        rb"(?P<kept>%b\s*[:=]\s*)(?=[^\s\"'\\]*\d)[^][\s\"'\\,;&(){}$]{8,}" % _WORD,
        rb"(?P<kept>%b\\?[\"']?\s*[:=]\s*\\?[\"'])[^][\s\"'\\(){}$]{8,}(?=\\?[\"'])" % _WORD,
        rb"(?P<kept>(?<!/)(?:password|passwd|passphrase)\\?[\"']?\s*[:=]\s*\\?[\"'])"
        rb"[^][\"'\\(){}$\r\n]{8,}(?=\\?[\"'])",
        rb"(?P<kept>client[_-]?secret\s*[:=]\s*)(?![a-z]{,12}(?![\w-]))[^][\s\"'\\,;&(){}$]{8,}",
        rb"(?P<kept>--[\w-]*%b\\?[\"']?(?:\s+|,\s*)\\?[\"']?)(?=[^\s\"'\\]*\d)"
        rb"[^][\s\"'\\,;&(){}$<>-][^][\s\"'\\,;&(){}$<>]{7,}" % _WORD,
    )
)
"""What stands behind a word that says it is any secret. Code has such words for what is none, so
these are looked for in logs, configs and records only. Numbers of JSON stay numbers.
"""
HINTS = (b"authorization", b"passw", b"passphrase", b"secret", b"token", b"key")

SECRET_NAME = re.compile(
    r"TOKEN|SECRET|PASSW|PASSPHRASE|PASS$|_PWD$|(^|_)PAT$|CREDENTIAL|_KEY$|API_?KEY|ACCESS_KEY|"
    r"(^|_)AUTH(_|$)|AUTHORIZATION",
    re.IGNORECASE,
)
SHORTEST = 8  # of a variable's value that counts as a secret: shorter ones stand in every text
WORD = re.compile(r"[a-z]{,12}")  # stands in every text too, and is no secret worth the name

ALLOWED = b"pragma: allowlist secret"
"""In a line of the source, what looks like a secret and is none (detect-secrets reads it too)."""

HOMES = re.compile(rb"/(?:home|Users)/[^/\s\"':,;)\]}]+")
REMOVED = b"[removed]"


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What is looked for on this machine besides: values of variables, and its paths."""

    values: tuple[tuple[bytes, bytes], ...]  # each with what is put in its place, the longest first
    paths: tuple[tuple[bytes, bytes], ...]  # likewise

    def secrets(self, text: bytes, *, assigned: bool) -> Iterator[tuple[int, str]]:
        """Yield where a text holds secrets, and of what kind they are.

        Args:
            assigned: look also for what only a word before it says is a secret.
        """
        for value, name in self.values:
            for match in re.finditer(re.escape(value), text):
                yield match.start(), f"the value of {name.decode()[1:-1]}"
        for kind, pattern in _patterns(text, assigned):
            for match in pattern.finditer(text):
                line = text[text.rfind(b"\n", 0, match.start()) + 1 :].partition(b"\n")[0]
                if ALLOWED not in line:
                    yield match.start(), kind

    def clean(self, text: bytes) -> bytes:
        """Return a text without secrets and without paths of this machine."""
        for value, name in self.values:
            text = text.replace(value, name)
        for _, pattern in _patterns(text, assigned=True):
            text = pattern.sub(_removed, text)
        return self.without_paths(text)

    def without_paths(self, text: bytes) -> bytes:
        """Return a text without paths of this machine."""
        for place, placeholder in self.paths:
            if place in text:
                text = _whole(place).sub(placeholder.replace(b"\\", rb"\\"), text)
        return HOMES.sub(b"$HOME", text)


def _patterns(text: bytes, assigned: bool) -> Iterator[tuple[str, re.Pattern[bytes]]]:
    """Yield the rules of which a text has a hint: most texts have few."""
    lower = text.lower()
    for kind, (hints, rule) in RULES.items():
        if any(hint in lower for hint in hints):
            yield kind, rule
    if assigned and any(hint in lower for hint in HINTS):
        yield from (("password or token", rule) for rule in ASSIGNED)


def _removed(match: re.Match[bytes]) -> bytes:
    return (match.groupdict().get("kept") or b"") + REMOVED


@functools.cache
def _whole(place: bytes) -> re.Pattern[bytes]:
    """Return what finds a path, but not within a longer name: /root is not part of /rooted.

    Before it may stand an option of one letter, or the letter of an escaped end of line. The path
    comes first, and what stands before it is looked at then: so a search is fifty times as fast.
    """
    path = re.escape(place)
    before = rb"(?:(?<![\w.-]%b)|(?<=-[A-Za-z]%b)|(?<=\\[nrt]%b))" % (path, path, path)
    return re.compile(path + before + rb"(?![\w-])")


def here(study: Study, checkout: Path, environment: Mapping[str, str] | None = None) -> Rules:
    """Return the rules for a study on this machine."""
    environment, config = os.environ if environment is None else environment, study.config
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
    values = {
        spelled: f"[${name}]".encode()
        for name, value in environment.items()
        if SECRET_NAME.search(name)
        for line in (value, *value.splitlines())
        if len(line) >= SHORTEST and not line.startswith("/") and not WORD.fullmatch(line)
        for spelled in _spelled(line)
    }
    return Rules(values=_longest_first(values), paths=_longest_first(paths))


def _spelled(text: str) -> tuple[bytes, ...]:
    """Return how a text stands in a text file, and in JSON."""
    return text.encode(errors="surrogateescape"), json.dumps(text)[1:-1].encode()


def _longest_first(found: Mapping[bytes, bytes]) -> tuple[tuple[bytes, bytes], ...]:
    """Return what is replaced in this order: else what begins alike would leave its tail."""
    return tuple(sorted(found.items(), key=lambda item: (-len(item[0]), item)))


# Large texts ----------------------------------------------------------------------------------

_OPEN_KEY = re.compile(_KEY + rb"(?![\s\S]*-----END )")
LARGEST_KEY = 1 << 16


def parts(stream: BinaryIO) -> Iterator[bytes]:
    """Yield a text in parts of whole lines, which no private key spans, in bounded memory."""
    held = b""
    while piece := stream.read(CHUNK):
        new = len(held)
        held += piece
        end = max(held.rfind(b"\n", new), held.rfind(b"\r", new)) + 1
        opened = _OPEN_KEY.search(held, max(0, end - LARGEST_KEY), end)
        end = opened.start() if opened else end
        if end:
            yield held[:end]
            held = held[end:]
    yield held
