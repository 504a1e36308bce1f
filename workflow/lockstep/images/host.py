"""What this host must have for images: findings, each with its remedy.

`python -m lockstep doctor` prints them; a build stops at the first that fails.
"""

import getpass
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from lockstep import files
from lockstep.errors import UserError

NETWORK = {"nfs", "nfs4", "lustre", "gpfs", "beegfs", "cifs", "smb3", "ceph", "afs", "9p", "pvfs2"}
GIB = 1 << 30
FUSE = Path("/dev/fuse")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing looked at.

    Attributes:
        subject: what it is.
        found: what was found, in a few words.
        remedy: what to do about it; None if all is right.
        fatal: whether images cannot work without.
    """

    subject: str
    found: str
    remedy: str | None = None
    fatal: bool = True

    @property
    def fails(self) -> bool:
        """Whether something must be done before images can be used."""
        return self.remedy is not None and self.fatal


def require(*findings: Finding) -> None:
    """Stop at the first finding that fails.

    Raises:
        UserError: says what was found and the remedy.
    """
    for finding in findings:
        if finding.fails:
            raise UserError(f"{finding.subject}: {finding.found}; {finding.remedy}")


def apptainer() -> Finding:
    """Is Apptainer here, and does its `build` know what ours asks for?"""
    if shutil.which("apptainer") is None:
        return Finding(
            subject="apptainer",
            found="not installed, or not on PATH",
            remedy="load its module or have it installed (1.4 or later); without it set "
            "images.enabled to false",
        )
    version = _output("apptainer", "--version").strip().removeprefix("apptainer version ")
    known = _output("apptainer", "build", "--help")
    missing = [o for o in ("--build-arg", "--mksquashfs-args", "--fakeroot") if o not in known]
    if missing:
        return Finding(
            subject="apptainer",
            found=f"{version} is too old: its build has no {' and no '.join(missing)}",
            remedy="install 1.4 or later",
        )
    return Finding(subject="apptainer", found=version)


def user_namespaces() -> Finding:
    """Can this user make a user namespace? Apptainer without setuid runs in one."""
    if shutil.which("unshare") is None:
        return Finding(
            subject="user namespaces",
            found="not known, since unshare is not on PATH",
            remedy="have util-linux installed",
            fatal=False,
        )
    answer = subprocess.run(
        ["unshare", "--user", "--map-root-user", "true"], capture_output=True, text=True
    )
    if answer.returncode == 0:
        return Finding(subject="user namespaces", found="allowed")
    return Finding(
        subject="user namespaces",
        found=f"refused ({answer.stderr.strip()})",
        remedy="an administrator can allow them: sysctl user.max_user_namespaces=15000, "
        "kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0; not "
        "inside a chroot or a container without them",
    )


def subordinate_ids(user: str | None = None, etc: Path = Path("/etc")) -> Finding:
    """Has this user a range of subordinate ids? Without, a build depends on fakeroot."""
    user = user or getpass.getuser()
    owners = {user, str(os.getuid())}
    missing = []
    for name in ("subuid", "subgid"):
        path = etc / name
        lines = path.read_text().splitlines() if path.is_file() else []
        if not any(line.split(":")[0] in owners for line in lines):
            missing.append(str(path))
    helpers = [name for name in ("newuidmap", "newgidmap") if shutil.which(name) is None]
    if not missing and not helpers:
        return Finding(subject="subordinate ids", found=f"{user} has them")
    lacking = ([f"no entry of {user} in {' and '.join(missing)}"] if missing else []) + (
        [f"no {' and no '.join(helpers)}"] if helpers else []
    )
    return Finding(
        subject="subordinate ids",
        found=", ".join(lacking),
        remedy=f"an administrator runs: usermod --add-subuids 100000-165535 --add-subgids "
        f"100000-165535 {user}, and installs the package uidmap or shadow-utils; or build on "
        "another machine and name the images under images.ready",
        fatal=shutil.which("fakeroot") is None,
    )


def fuse() -> Finding:
    """Can an image be mounted? Otherwise Apptainer unpacks it at every start."""
    built = _output("apptainer", "buildcfg", missing="")
    own = re.search(r"^LIBEXECDIR=(\S+)", built, re.MULTILINE)  # where packages bring their own
    places = [*([f"{own[1]}/apptainer/bin"] if own else []), os.environ.get("PATH", "")]
    names = ("squashfuse_ll", "squashfuse")
    helpers = any(shutil.which(name, path=":".join(places)) for name in names)
    if FUSE.exists() and os.access(FUSE, os.R_OK | os.W_OK) and helpers:
        return Finding(subject="FUSE", found="images can be mounted")
    if "APPTAINER_SUID_INSTALL=1" in built:
        return Finding(subject="FUSE", found="not needed, Apptainer is installed setuid")
    return Finding(
        subject="FUSE",
        found="/dev/fuse cannot be opened" if helpers else "squashfuse is not installed",
        remedy="an administrator runs chmod 0666 /dev/fuse and installs squashfuse; until then "
        "every start unpacks the whole image (minutes, and twice the space)",
        fatal=False,
    )


def build_folder(folder: Path) -> Finding:
    """Can a root file system grow here? Network file systems know no subordinate ids."""
    kind, options = mount_of(folder)
    subject = f"build folder {folder}"
    remedy = "set images.build_folder (or TMPDIR) to a folder on a local disk"
    if kind in NETWORK or kind.startswith("fuse."):
        return Finding(
            subject=subject, found=f"is on a network file system ({kind})", remedy=remedy
        )
    for option in ("noexec", "ro"):
        if option in options:
            return Finding(subject=subject, found=f"is mounted {option}", remedy=remedy)
    if not os.access(folder, os.W_OK | os.X_OK):
        return Finding(subject=subject, found="cannot be written", remedy=remedy)
    try:
        lacking = _lacking(folder)
    except OSError as error:
        return Finding(subject=subject, found=f"cannot be written ({error})", remedy=remedy)
    if lacking:
        return Finding(subject=subject, found=f"has no {lacking} (it is on {kind})", remedy=remedy)
    return Finding(subject=subject, found=f"on {kind}")


def _lacking(folder: Path) -> str | None:
    """Return what of a root file system cannot be kept in a folder, by trying."""
    with tempfile.TemporaryDirectory(prefix=".lockstep-", dir=folder) as probe:
        file, link = Path(probe, "file"), Path(probe, "link")
        try:
            link.symlink_to(file)
        except OSError as error:
            if error.errno in files.FULL:
                raise
            return "symbolic links"
        file.touch()
        for mode in (0o755, 0o600):
            try:
                file.chmod(mode)
            except OSError:
                return "permissions"
            if file.stat().st_mode & 0o777 != mode:
                return "permissions"
    return None


def space(
    folder: Path,
    needed: int,
    purpose: str,
    *,
    remedy: str = "free some, or name another folder (images.build_folder, images.cache)",
) -> Finding:
    """Is there enough space for what is about to be written?"""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    subject = f"space in {folder}"
    if free >= needed:
        return Finding(subject=subject, found=f"{free / GIB:.1f} GiB free")
    return Finding(
        subject=subject,
        found=f"{free / GIB:.1f} GiB free, but {purpose} needs {needed / GIB:.1f} GiB",
        remedy=remedy,
    )


def driver(cuda: str, needed: str) -> Finding:
    """Is the NVIDIA driver new enough for the CUDA generation?"""
    subject = "NVIDIA driver"
    if shutil.which("nvidia-smi") is None:
        return Finding(subject=subject, found="none on this node, images run on its CPU")
    query = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    version = _output(*query).strip().splitlines()
    if not version or not re.match(r"\d", version[0]):
        return Finding(
            subject=subject,
            found="nvidia-smi is here but finds no GPU",
            remedy="look at it on a GPU node",
            fatal=False,
        )
    if numbers(version[0]) >= numbers(needed):
        return Finding(subject=subject, found=f"{version[0]}, {cuda} needs {needed}")
    other = " or set images.cuda to cuda12" if cuda == "cuda13" else ""
    return Finding(
        subject=subject,
        found=f"{version[0]} is too old: {cuda} needs {needed}",
        remedy=f"have the driver updated{other}",
    )


def mount_of(folder: Path, mounts: str | None = None) -> tuple[str, set[str]]:
    """Return kind and options of the file system that holds a folder."""
    text = Path("/proc/self/mountinfo").read_text() if mounts is None else mounts
    best, answer = -1, ("unknown", set[str]())
    for line in text.splitlines():
        fields, _, rest = line.partition(" - ")
        point = fields.split()[4].encode().decode("unicode_escape")
        if folder.is_relative_to(point) and len(point) >= best:
            best, answer = len(point), (rest.split()[0], set(fields.split()[5].split(",")))
    return answer


def numbers(version: str) -> tuple[int, ...]:
    """Return a version's numbers, which compare as they should."""
    return tuple(map(int, re.findall(r"\d+", version)))


def _output(*command: str, missing: str = "") -> str:
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return missing
    return answer.stdout + answer.stderr
