"""What a person at the terminal of a workflow sees besides the log of a stage."""

import os
import termios
from collections.abc import Iterator

import pytest

from lockstep import terminal
from tests.conftest import lockstep


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A terminal that a workflow names; yields where what it shows can be read."""
    master, slave = os.openpty()
    termios.tcsetwinsize(slave, (24, 100))
    monkeypatch.setenv(terminal.TERMINAL, os.ttyname(slave))
    os.set_blocking(master, False)
    yield master
    os.close(master)
    os.close(slave)


def test_a_line_is_in_the_log_and_on_the_terminal(
    watched: int, capsys: pytest.CaptureFixture
) -> None:
    terminal.say("it waits")
    assert capsys.readouterr().err == "lockstep: it waits\n"
    assert os.read(watched, 1 << 16).decode() == "lockstep: it waits\r\n"


def test_where_nobody_watches_there_is_no_bar(capsys: pytest.CaptureFixture) -> None:
    with terminal.bar("ladder", 2) as advance:
        advance(1)
    assert capsys.readouterr().err == ""


def test_the_ladder_shows_how_far_it_is(watched: int, study_of) -> None:
    study = study_of(parity={"steps": 3, "float32_steps": 2})
    done = lockstep(
        *("trace", "--study", study.path, "--workload", "mnist_cnn", "--variant", "torch-eager")
    )
    shown = os.read(watched, 1 << 16).decode()
    for precision, steps in (("float64", 3), ("float32", 2), ("twin", 2)):
        assert f"parity of torch-eager in {precision}: " in shown
        assert f"/{steps} [" in shown
    assert "\r" not in done.stderr
