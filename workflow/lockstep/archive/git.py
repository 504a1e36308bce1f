"""Asks git about a checkout, so that the answer does not depend on how a person's git is set.

But for what a person ignores everywhere: that was never meant for others.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from lockstep.archive import redact

SETTINGS = (
    "core.quotepath=off",
    "core.attributesFile=/dev/null",
    "core.autocrlf=false",
    "core.safecrlf=false",
    "core.looseCompression=1",  # binary patches are packed with it
    "diff.suppressBlankEmpty=false",
    "diff.indentHeuristic=true",
)
ENVIRONMENT = {
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_LITERAL_PATHSPECS": "1",
    "LC_ALL": "C",
}
DROPPED = ("GIT_DIFF_OPTS", "GIT_EXTERNAL_DIFF", "GIT_ATTR_SOURCE")

PATCH = (
    "diff-index", "-p", "--cached", "--full-index", "--no-renames", "--no-ext-diff",
    "--no-textconv", "--no-color", "--unified=3", "--inter-hunk-context=0",
    "--diff-algorithm=default", "--src-prefix=a/", "--dst-prefix=b/", "--submodule=short",
    "--ignore-submodules=none",
)  # fmt: skip

SUBMODULE = b"160000"


def run(root: Path, *arguments: str, **environment: str) -> bytes:
    """Return what git prints.

    Raises:
        subprocess.CalledProcessError: it fails.
        FileNotFoundError: it is not installed.
    """
    inherited = {key: value for key, value in os.environ.items() if key not in DROPPED}
    settings = [word for setting in SETTINGS for word in ("-c", setting)]
    done = subprocess.run(
        ["git", *settings, *arguments],
        cwd=root,
        env={**inherited, **ENVIRONMENT, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    return done.stdout


def names(listing: bytes) -> list[str]:
    """Return the names in what git lists with `-z`."""
    return [os.fsdecode(name) for name in listing.split(b"\0") if name]


def difference(root: Path, **own: str) -> bytes:
    """Return how an index differs from the commit; what is binary comes last.

    A patch of a binary file is packed: a secret in one would not be found. What attributes call
    binary is shown as text, and so is a file of which one of the two versions is a text.

    Args:
        own: the environment that names the index.
    """
    changed = dict(_changed(root, **own))
    binary = [name for name, contents in changed.items() if _binary(root, contents, **own)]
    text = sorted({*changed} - {*binary})
    found = b""
    # Without a name git would compare all files.
    if text:
        found += run(root, *PATCH, "--text", "HEAD", "--", *text, **own)
    if binary:
        found += run(root, *PATCH, "--binary", "HEAD", "--", *binary, **own)
    return found


def _changed(root: Path, **own: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each file that differs, with the names of its contents before and after."""
    listing = run(root, "diff-index", "--cached", "--raw", "--no-abbrev", "--no-renames",
                  "--ignore-submodules=none", "-z", "HEAD", **own).split(b"\0")  # fmt: skip
    for about, name in zip(listing[::2], listing[1::2]):
        before, after, old, new, _ = about.lstrip(b":").split(b" ")
        contents = [
            content.decode()
            for mode, content in ((before, old), (after, new))
            if mode != SUBMODULE and content.strip(b"0")
        ]
        yield os.fsdecode(name), contents


def _binary(root: Path, contents: list[str], **own: str) -> bool:
    """Whether each of these contents is binary, and there is one."""
    return bool(contents) and all(
        redact.is_binary(run(root, "cat-file", "blob", content, **own)) for content in contents
    )
