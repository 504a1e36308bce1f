"""What Linux tells of who had the CPUs: waiting threads, foreign work, load. Standard library only.

Where the kernel does not tell, as in a sandbox without `/proc`, nothing is raised: what is returned
is None, and `RunDelay.problem` says why.
"""

import contextlib
import os
import resource
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

TASKS = "/proc/self/task"
STAT = Path("/proc/stat")
PRESSURE = Path("/proc/pressure/cpu")
TICKS = os.sysconf("SC_CLK_TCK")  # a second


class RunDelay:
    """How long this process's threads were ready to run and waited for a CPU.

    The second field of `/proc/self/task/*/schedstat` (nanoseconds), summed. The files stay open, as
    to open one takes longer than to read it. What a thread waited between the last reading and its
    own end is lost.
    """

    def __init__(self) -> None:
        self._files: dict[str, int] = {}  # descriptor by thread
        self._seen: dict[str, int] = {}  # nanoseconds by thread
        self._ended = 0
        self.problem: str | None = None

    def seconds(self, *, look: bool = True) -> float | None:
        """Return seconds since the process began, of all threads that were seen.

        Args:
            look: for new threads, which takes as long as to read those that are known.
        """
        if self.problem is None:
            try:
                self._read(look)
            except (OSError, ValueError, IndexError) as error:
                self.problem = f"run delays cannot be read: {error}"
                self.close()
        return None if self.problem else (self._ended + sum(self._seen.values())) / 1e9

    def _read(self, look: bool) -> None:
        for thread, file in list(self._files.items()):
            try:
                self._seen[thread] = _delay(file)
            except ProcessLookupError:  # it has ended; another may have its number by now
                os.close(self._files.pop(thread))
                self._ended += self._seen.pop(thread)
        if not look:
            return
        for thread in {entry.name for entry in os.scandir(TASKS)} - self._files.keys():
            try:
                file = os.open(f"{TASKS}/{thread}/schedstat", os.O_RDONLY)
            except FileNotFoundError:
                if Path(TASKS, thread).exists():
                    raise  # the kernel keeps no such file
                continue  # it has ended since it was listed
            self._files[thread], self._seen[thread] = file, 0
            with contextlib.suppress(ProcessLookupError):  # the next reading finds it so again
                self._seen[thread] = _delay(file)

    def close(self) -> None:
        """Close the files."""
        while self._files:
            os.close(self._files.popitem()[1])


def _delay(file: int) -> int:
    return int(os.pread(file, 64, 0).split()[1])


def involuntary_switches() -> int:
    """Return how often a thread of this process has lost its CPU to another thread."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


@dataclass(frozen=True, kw_only=True)
class CpuTime:
    """Seconds of some CPUs since the machine began.

    Attributes:
        at: when it was read (`time.monotonic`).
        idle, steal: seconds that these CPUs were idle, or withheld by the machine below a virtual
            one; precise to 10 ms a CPU, idle ones summed by the kernel and not sampled.
        own: seconds that this process and its children had, on any CPU.
        pressure: seconds in which something on the whole machine waited for a CPU; None if the
            kernel does not tell.
    """

    at: float
    idle: float
    steal: float
    own: float
    pressure: float | None


def cpu_time(cpus: Iterable[int]) -> CpuTime | None:
    """Read what `CpuTime` holds of some CPUs; None where the kernel does not tell."""
    wanted = {f"cpu{cpu}" for cpu in cpus}
    at, own = time.monotonic(), own_seconds()
    idle = steal = 0
    try:
        for line in STAT.read_text().splitlines():
            name, *fields = line.split()
            if name in wanted:
                idle += int(fields[3]) + int(fields[4])  # with waiting for disks
                steal += int(fields[7])
                wanted.remove(name)
            if not wanted:
                break
    except (OSError, ValueError, IndexError):
        return None
    if wanted:
        return None
    return CpuTime(at=at, idle=idle / TICKS, steal=steal / TICKS, own=own, pressure=_pressure())


def foreign(before: CpuTime, after: CpuTime, cpus: int) -> float:
    """Return the share of so many CPUs that neither this process had, nor nobody."""
    seconds = cpus * (after.at - before.at)
    known = after.idle - before.idle + after.steal - before.steal + after.own - before.own
    return max(0.0, 1 - known / seconds)


def own_seconds() -> float:
    """Return the seconds of CPU time of this process, of its children and of theirs."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    living = sum(map(_seconds_of, _descendants(os.getpid())))
    return time.process_time() + ended.ru_utime + ended.ru_stime + living


def _descendants(process: int) -> list[int]:
    found: list[int] = []
    try:
        for thread in Path(f"/proc/{process}/task").iterdir():
            for child in map(int, (thread / "children").read_text().split()):
                found += [child, *_descendants(child)]
    except OSError:  # it has ended
        pass
    return found


def _seconds_of(process: int) -> float:
    try:
        return _ticks(Path(f"/proc/{process}/stat").read_text()) / TICKS
    except (OSError, ValueError, IndexError):
        return 0.0


def parent(process: int) -> int | None:
    """Return the process that started a process; None if that is not known."""
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return None


def _ticks(stat: str) -> int:
    """Return user and system time from a process's `stat`, whose name may hold anything."""
    return sum(map(int, stat.rpartition(")")[2].split()[11:13]))


def _pressure() -> float | None:
    try:
        some = PRESSURE.read_text().splitlines()[0]
        return int(some.rpartition("total=")[2]) / 1e6
    except (OSError, ValueError, IndexError):
        return None


def load() -> float | None:
    """Return how many threads ran or waited during the last minute, on the whole machine."""
    try:
        return os.getloadavg()[0]
    except OSError:
        return None


@dataclass(frozen=True, kw_only=True)
class Busy:
    """A process of somebody's.

    Attributes:
        share: of one CPU that it had.
    """

    name: str
    process: int
    share: float


def busiest(seconds: float, besides: Sequence[int] = ()) -> list[Busy]:
    """Watch the machine for some seconds; returns its processes, the busiest first.

    Those that end or begin meanwhile are not seen.

    Args:
        besides: processes that do not count.
    """
    before, begin = _all_processes(), time.monotonic()
    time.sleep(seconds)
    after, passed = _all_processes(), time.monotonic() - begin
    found = [
        Busy(name=name, process=process, share=(ticks - before[process][1]) / TICKS / passed)
        for process, (name, ticks) in after.items()
        if process in before and process not in besides
    ]
    return sorted(found, key=lambda busy: -busy.share)


def _all_processes() -> dict[int, tuple[str, int]]:
    """Return name and ticks of every process that can be seen."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text()
            found[int(path.parent.name)] = (text.partition("(")[2].rpartition(")")[0], _ticks(text))
        except (OSError, ValueError, IndexError):
            continue
    return found
