"""What TensorBoard shows of a run that was interrupted."""

import struct
import time
from pathlib import Path
from types import SimpleNamespace

from tensorboardX.proto.event_pb2 import Event, SessionLog

from lockstep.training import tracking


def logged(folder: Path, begun_at: int, *steps: int) -> None:
    """One attempt of a run."""
    spec = SimpleNamespace(folder=str(folder))
    board = tracking._tensorboard(spec, begun_at)  # type: ignore[arg-type]
    for step in steps:
        board.add_scalar("loss/train", 1.0, step)
    board.close()
    time.sleep(1.1)  # event files are named after the second in which they begin


def shown(folder: Path) -> list[int]:
    """The steps of the points that TensorBoard shows: a start purges from its step on."""
    points: list[int] = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            event = Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]
            if event.HasField("session_log") and event.session_log.status == SessionLog.START:
                points = [step for step in points if step < event.step]
            if event.HasField("summary"):
                points.append(event.step)
    return points


def test_a_resumed_run_keeps_the_point_at_its_checkpoint(tmp_path: Path) -> None:
    logged(tmp_path, 0, 5, 10, 15)
    logged(tmp_path, 10, 15, 20)
    assert shown(tmp_path) == [5, 10, 15, 20]


def test_a_run_that_begins_again_shows_no_point_twice(tmp_path: Path) -> None:
    logged(tmp_path, 0, 5, 10)
    logged(tmp_path, 0, 5)
    assert shown(tmp_path) == [5]
