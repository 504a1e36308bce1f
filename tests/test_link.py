"""A file under two names, also where there are no links."""

import errno
import os
from pathlib import Path

import pytest

from lockstep.link import link_or_copy
from lockstep.study import Study
from lockstep.training import block


def without_links(source: object, target: object) -> None:
    raise OSError(errno.EPERM, "as exFAT and some network file systems say")


def test_a_link_where_there_are_links(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("content")
    link_or_copy(tmp_path / "one", tmp_path / "two")
    assert (tmp_path / "two").samefile(tmp_path / "one")


def test_final_states_are_published_without_links(
    study_of, monkeypatch: pytest.MonkeyPatch
) -> None:
    study: Study = study_of()
    (name, *_), (run, *_) = study.blocks, study.runs
    final = study.run_folder(run) / "final.safetensors"
    final.parent.mkdir(parents=True)
    final.write_bytes(b"state")
    monkeypatch.setattr(os, "link", without_links)
    block._publish(study, name, [run])
    (published,) = study.states(name).iterdir()
    assert published.read_bytes() == b"state"
    assert not published.samefile(final)
