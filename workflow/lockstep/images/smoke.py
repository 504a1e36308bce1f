"""Does an image work? Each is entered as a job would enter it, before anybody may use it."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from lockstep.errors import UserError
from lockstep.images import enter
from lockstep.images.identity import CONTAINERS, locked_versions, normalised

SCRIPTS = CONTAINERS / "smoke"
TIMEOUT = 900  # seconds; a first compilation takes half a minute


def test(
    name: str,
    image: Path,
    scratch: Path,
    *,
    lock: Path | None,
    scripts: Path = SCRIPTS,
    minimum_driver: str | None = None,
) -> dict[str, Any]:
    """Import what the image is for, train a step in it, and compare its packages with the lock.

    Args:
        name: `base`, `torch` or `jax`: which script is run.
        scratch: folder for caches; removed by the caller.
        lock: the packages that it must hold, and no others; None for an image from elsewhere.
        scripts: the folder with the scripts.
        minimum_driver: NVIDIA driver that its CUDA needs, where that is known.

    Returns:
        `python`, `packages` and `debian`: the versions found.

    Raises:
        UserError: says what does not work.
    """
    print(f"lockstep: testing image {name}", file=sys.stderr)
    leave = enter.Pass(
        image=str(image.absolute()),
        identity="smoke-test",
        name=name,
        writable=(str(scratch / "smoke"),),
        readable=(str(scripts),),
        caches=str(scratch / "smoke"),
        minimum_driver=minimum_driver,
    )
    (scratch / "smoke").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch) as private:
        environment = {
            **os.environ,
            "LOCKSTEP_RENDEZVOUS": private,
            "LOCKSTEP_LAUNCHER": str(os.getpid()),
        }
        environment["PYTHONPATH"] = str(enter.package_folder())
        try:
            answer = subprocess.run(
                enter.command(leave, [str(scripts / f"{name}.py")]),
                env=environment,
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
                cwd=scratch / "smoke",
                timeout=TIMEOUT,
            )
        except subprocess.TimeoutExpired as error:
            raise UserError(f"image {name} does not work: no answer in {TIMEOUT} s") from error
    if answer.returncode:
        raise UserError(
            f"image {name} does not work and is not kept: its smoke test "
            f"({scripts / name}.py) ended with status {answer.returncode}:\n"
            f"{(answer.stdout + answer.stderr).strip()[-3000:]}"
        )
    found = json.loads(answer.stdout.splitlines()[-1])
    packages = {normalised(name): version for name, version in found["packages"].items()}
    found["packages"] = dict(sorted(packages.items()))
    if lock is not None:
        _compare(name, locked_versions(lock), found["packages"])
    return found


def _compare(name: str, locked: dict[str, str], found: dict[str, str]) -> None:
    differing = [
        f"{package} is {found.get(package, 'missing')} instead of {locked.get(package, 'absent')}"
        for package in sorted(locked.keys() | found.keys())
        if locked.get(package) != found.get(package)
    ]
    if differing:
        raise UserError(f"image {name} is not what its lock says: {'; '.join(differing[:5])}")
