"""Images really built by an ordinary user with the real Apptainer, and what may go wrong."""

import json
import os
import signal
import subprocess
import zlib
from pathlib import Path

import pytest

from lockstep.images import build
from lockstep.images.mirror import host_mirror
from tests.conftest import PATIENCE, wait_for
from tests.images.conftest import AFRESH, MOVED_ON, Machine, Tiny


def sif_sha256(folder: Path) -> str:
    """Return the sha256 of an image as its manifest has it."""
    return json.loads((folder / "manifest.json").read_text())["sif"]["sha256"]


@pytest.mark.parametrize(
    ("output", "says"),
    [
        (
            "NewConnectionError: [Errno -3] Temporary failure in name resolution\n"
            "ERROR: No matching distribution found for h5py==3.14.0",
            "there is no network",
        ),
        (
            "NewConnectionError: Failed to establish a new connection: [Errno 111] refused\n"
            "ERROR: No matching distribution found for h5py==3.14.0",
            "the package index does not answer",
        ),
        ("ERROR: No matching distribution found for h5py==3.14.0", "does not have what the lock"),
        ("something else", "Apptainer ended with"),
    ],
)
def test_the_first_cause_is_said_not_what_follows_from_it(output: str, says: str) -> None:
    assert says in build.cause_of(output)


class TestBase:
    """The base image."""

    def test_the_cache_holds_the_image_and_its_manifest_and_nothing_else(self, base: Path) -> None:
        assert sorted(path.name for path in base.iterdir()) == ["image.sif", "manifest.json"]

    def test_the_manifest_says_what_is_in_it(self, base: Path) -> None:
        manifest = json.loads((base / "manifest.json").read_text())
        assert manifest["packages"]["h5py"]
        assert manifest["debian"]["python3"] in manifest["debian"].values()
        assert manifest["sif"]["size"] == (base / "image.sif").stat().st_size

    def test_it_is_not_built_again(self, machine: Machine, base: Path, cache: Path) -> None:
        answer = machine.run(*machine.ensure("base", cache=cache))
        assert answer.stdout.strip() == str(base)
        assert "building" not in answer.stderr

    def test_two_builds_have_the_same_bytes(self, machine: Machine, base: Path) -> None:
        """All of it; what pip installs alone: TestDamage."""
        if "images" not in os.environ.get("LOCKSTEP_REQUIRE", "").split(","):
            pytest.skip("builds the base image again: minutes; LOCKSTEP_REQUIRE=images")
        folder = machine.make_folder("twice")
        other = machine.make_folder("elsewhere")
        machine.run(*machine.ensure("base", cache=folder / "cache", build_folder=other))
        assert sif_sha256(folder / "cache" / base.name) == sif_sha256(base)
        assert list(other.iterdir()) == []


def test_two_workflows_build_an_image_once(tiny: Tiny) -> None:
    command = tiny.ensure(f"{nap(tiny)} || true")
    both = [tiny.machine.start(*command)]
    wait_for_build(tiny)
    both.append(tiny.machine.start(*command))
    waits = next(line for line in both[1].stdout if "waiting" in line)
    subprocess.run(["pkill", "-fx", nap(tiny)], check=True)
    texts = [one.communicate(timeout=PATIENCE)[0] for one in both]
    assert [one.returncode for one in both] == [0, 0], (texts, waits)
    assert "lockstep: building" in texts[0] and "waiting" not in texts[0], texts
    assert "lockstep: building" not in texts[1], texts
    assert len(tiny.images) == 1
    assert tiny.leftovers == []


class TestFailure:
    """Nothing partial stays where it would be used."""

    def test_a_step_that_fails_leaves_nothing(self, tiny: Tiny) -> None:
        answer = tiny.machine.run(*tiny.ensure("echo some words; exit 3"), status=1)
        assert "image base could not be built" in answer.stderr
        assert "some words" in answer.stderr
        assert tiny.images == tiny.leftovers == []

    def test_a_wrong_hash_is_explained(self, tiny: Tiny) -> None:
        wrong = "jinja2==3.1.5 --hash=sha256:" + "0" * 64 + "\n"
        answer = tiny.machine.run(*tiny.ensure("wheels", lock=wrong), status=1)
        assert "a package is not the one that the lock pins" in answer.stderr
        assert "containers/README.md" in answer.stderr
        assert tiny.images == tiny.leftovers == []

    def test_a_mirror_that_has_moved_on_is_told_from_one_that_does_not_answer(
        self, tiny: Tiny
    ) -> None:
        lock = "# of long ago\npython3=0.1\n"
        command = tiny.ensure("debian_packages", debian=lock, debian_mirror=host_mirror())
        answer = tiny.machine.run(*command, status=1)
        assert MOVED_ON in answer.stderr
        assert "containers/lock.sh debian" in answer.stderr
        assert "# of long ago" in answer.stderr
        silent = [part.replace(host_mirror(), "http://127.0.0.1:9/debian") for part in command]
        answer = tiny.machine.run(*silent, status=1)
        assert MOVED_ON not in answer.stderr
        assert "the Debian mirror does not answer" in answer.stderr
        assert tiny.images == tiny.leftovers == []

    def test_packages_that_the_lock_does_not_name_are_removed(self, tiny: Tiny) -> None:
        """A registry's Debian has some, also such as Debian protects from removal."""
        steps = (
            "cp /mnt/sources.list /etc/apt/; apt='apt-get -qq -o APT::Sandbox::User=root'; "
            "$apt update; $apt install --yes --no-install-recommends login mount; "
            "dpkg-query -W -f 'it is there: ${Package}' login; "
            "debian_packages; finish"
        )
        answer = tiny.machine.run(*tiny.ensure(steps, debian_mirror=host_mirror()))
        assert "it is there" in answer.stderr
        assert len(tiny.images) == 1

    def test_an_image_that_fails_its_smoke_test_is_not_kept(self, tiny: Tiny) -> None:
        steps = "rm -r /opt/lockstep/lib/python3*/site-packages/h5py"
        answer = tiny.machine.run(*tiny.ensure(steps), status=1)
        assert "does not work and is not kept" in answer.stderr
        assert "No module named 'h5py'" in answer.stderr
        assert tiny.images == tiny.leftovers == []

    def test_an_image_with_other_packages_than_its_lock_is_not_kept(self, tiny: Tiny) -> None:
        answer = tiny.machine.run(*tiny.ensure(lock="nothing==1.0\n"), status=1)
        assert "is not what its lock says" in answer.stderr
        assert tiny.images == tiny.leftovers == []

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_build_that_is_told_to_stop_cleans_up(self, tiny: Tiny, number: int) -> None:
        process = tiny.machine.start(*tiny.ensure(nap(tiny)))
        wait_for_build(tiny)
        tell(tiny, number)
        process.communicate(timeout=PATIENCE)
        assert process.returncode != 0
        assert tiny.images == tiny.leftovers == []

    def test_what_a_killed_build_left_is_removed_by_the_next(self, tiny: Tiny) -> None:
        command = tiny.ensure(f"[ -e /mnt/go ] || {nap(tiny)}")
        process = tiny.machine.start(*command)
        wait_for_build(tiny)
        tell(tiny, signal.SIGKILL)
        process.communicate(timeout=PATIENCE)
        assert tiny.images == []
        assert len(tiny.leftovers) == 1
        definition = tiny.folder / "containers" / "base.def"
        definition.write_text(definition.read_text().replace(nap(tiny), "true"))
        tiny.machine.run(*command)
        assert len(tiny.images) == 1
        assert tiny.leftovers == []


class TestDamage:
    """A damaged image in the cache."""

    def test_is_found_by_its_hash_and_built_again(self, tiny: Tiny) -> None:
        # As the base image has it, so that the second build shows whether its bytes are the same.
        command = tiny.ensure(f"{AFRESH}; wheels; forget_bytecode; finish")
        tiny.machine.run(*command)
        (folder,) = tiny.images
        sound = sif_sha256(folder)
        middle = (folder / "image.sif").stat().st_size // 2
        with open(folder / "image.sif", "r+b") as stream:
            stream.seek(middle)
            byte = stream.read(1)
            stream.seek(middle)
            stream.write(bytes([byte[0] ^ 1]))
        answer = tiny.machine.run(*command)
        assert "building base-" in answer.stderr
        assert "instead of" in answer.stderr
        assert sif_sha256(folder) == sound
        again = tiny.machine.run(*command)
        assert "building" not in again.stderr


def nap(tiny: Tiny) -> str:
    """Return a command that takes long, and that nothing else on this machine runs."""
    return f"sleep {600 + zlib.crc32(str(tiny.folder).encode()) % 10**6}"


def wait_for_build(tiny: Tiny) -> None:
    """Wait until the last step of a definition runs."""
    asked = ["pgrep", "-fx", nap(tiny)]
    wait_for(lambda: subprocess.run(asked, capture_output=True).returncode == 0)


def tell(tiny: Tiny, number: int) -> None:
    """Send a signal to the process that builds."""
    script = f"ensure.py base .*{tiny.folder}"
    found = subprocess.run(
        ["pgrep", "-f", f"^[^ ]*python[^ ]* .*{script}"], capture_output=True, text=True
    )
    (process,) = found.stdout.split()
    subprocess.run(["kill", f"-{int(number)}", process], check=True)
