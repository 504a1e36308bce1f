"""Shards made by several processes, interrupted and gone on with, are the same bytes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lockstep import files
from lockstep.datasets import prepare, sharded
from lockstep.datasets.reader import Reader
from lockstep.errors import UserError
from lockstep.study import Study, config
from tests.conftest import DIGITS, PATIENCE, kill, lockstep, runs, slowly, small_disk, wait_for
from tests.datasets import pictures

OPTIONS = {"size": 64, "shard": 7}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 and 30 images: 18 and 5 shards."""
    return pictures.folder(tmp_path_factory.mktemp("data") / "raw", 40, 10, size=(500, 375))


def make(raw: Path, folder: Path, workers: int = 1, part: tuple[int, int] = (1, 1)) -> Path:
    entry = {"source": "image_folder", "options": OPTIONS}
    prepare.prepare("animals", entry, "id", raw, folder, workers=workers, part=part)
    return folder


@pytest.fixture(scope="module")
def made(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process makes at one go."""
    return content(make(raw, tmp_path_factory.mktemp("alone") / "made"))


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def study_on(raw: Path, tmp_path: Path) -> Study:
    """A study whose dataset is that folder, as the workflow writes it for the stages."""
    animals = {"source": "image_folder", "raw": str(raw), "options": OPTIONS}
    paths = {"results": str(tmp_path / "results"), "data": str(tmp_path / "data")}
    study = Study(config.complete(DIGITS | {"datasets": {"digits": animals}, "paths": paths}))
    study.write()
    return study


def started(study: Study) -> subprocess.Popen:
    """Start to preprocess; each shard takes a while, so that what is to happen meanwhile does."""
    command = [sys.executable, "-m", "lockstep", "preprocess", "--study", str(study.path)]
    return subprocess.Popen(
        [*command, "--dataset", "digits", "--workers", "2"],
        env=slowly(study.root.parents[1], ".h5", 0.2),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def workers(process: subprocess.Popen) -> list[int]:
    """The processes that it started to make shards."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(c) for c in children if b"spawn_main" in Path(f"/proc/{c}/cmdline").read_bytes()]


def test_shards_have_a_fixed_number_of_examples(made: dict[str, bytes], raw: Path) -> None:
    assert len([name for name in made if name.startswith("train-")]) == 18
    assert len([name for name in made if name.startswith("test-")]) == 5
    assert sharded.shard_examples((256, 256, 3)) == 1365
    assert sharded.shard_examples((32, 32, 3)) == 8192


def test_several_processes_make_the_same_bytes(
    raw: Path, made: dict[str, bytes], tmp_path: Path
) -> None:
    assert content(make(raw, tmp_path / "made", workers=3)) == made
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_what_is_killed_goes_on_and_makes_the_same_bytes(
    raw: Path, made: dict[str, bytes], tmp_path: Path
) -> None:
    study = study_on(raw, tmp_path)
    folder = study.dataset_folder("digits")
    partial = folder.with_name(f".{folder.name}.partial")
    finished: dict[str, int] = {}
    for wanted in (4, 9):
        process = started(study)
        wait_for(lambda count=wanted: len(list(partial.glob("notes/*.json"))) >= count, process)
        helpers = workers(process)
        os.kill(process.pid, 9)  # it alone: they must notice
        process.communicate(timeout=PATIENCE)
        wait_for(lambda those=helpers: not any(map(runs, those)))
        assert not folder.exists()
        for note in partial.glob("notes/*.json"):
            path = partial / "shards" / f"{note.stem}.h5"
            assert finished.setdefault(path.name, path.stat().st_ino) == path.stat().st_ino
    done = lockstep("preprocess", "--study", study.path, "--dataset", "digits")
    assert " were there" in done.stderr
    # The study's identity stands in the manifest; all else is the same.
    assert {name: text for name, text in content(folder).items() if name != "manifest.json"} == {
        name: text for name, text in made.items() if name != "manifest.json"
    }
    assert all((folder / name).stat().st_ino == inode for name, inode in finished.items())
    assert not partial.exists()


def test_a_killed_group_of_processes_goes_on(
    raw: Path, made: dict[str, bytes], tmp_path: Path
) -> None:
    study = study_on(raw, tmp_path)
    folder = study.dataset_folder("digits")
    process = started(study)
    wait_for(lambda: list(folder.parent.glob(".*.partial/notes/*.json")), process)
    assert kill(process) == -9
    lockstep("preprocess", "--study", study.path, "--dataset", "digits", "--workers", "1")
    assert sorted(content(folder)) == sorted(made)
    assert Reader(study.dataset_manifest("digits"), "train").examples == 120


def test_parts_made_apart_are_completed_together(
    raw: Path, made: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for part in ((3, 3), (1, 3), (2, 3)):
        make(raw, tmp_path / "made", part=part)
        assert not (tmp_path / "made").exists()
    capsys.readouterr()
    assert content(make(raw, tmp_path / "made")) == made
    assert "150 of 150 images, 0 images/s, 150 were there" in capsys.readouterr().err


def test_two_at_once_make_it_once(raw: Path, made: dict[str, bytes], tmp_path: Path) -> None:
    """Two studies may share their data; the second waits for the first, and finds its work."""
    study = study_on(raw, tmp_path)
    folder = study.dataset_folder("digits")
    first = started(study)
    wait_for(lambda: list(folder.parent.glob(".*.partial/notes/*.json")), first)
    second = started(study)
    said = [process.communicate(timeout=PATIENCE)[1] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), said
    assert "150 of 150 images" in said[0]
    assert "images" not in said[1]
    assert sorted(content(folder)) == sorted(made)


def test_a_changed_original_changes_its_shard_alone(tmp_path: Path) -> None:
    raw = pictures.folder(tmp_path / "raw", 14, 2)
    make(raw, tmp_path / "made", part=(1, 2))  # train-00000, 2, 4 and test-00000
    before = {p.name: p.stat().st_ino for p in tmp_path.glob(".made.partial/shards/*.h5")}
    path = raw / "train/ant/0001.jpg"
    path.write_bytes(pictures.jpeg(pictures.pixels(77, 90, 70)))
    after = content(make(raw, tmp_path / "made"))
    assert after == content(make(raw, tmp_path / "anew"))
    same = {
        name for name, inode in before.items() if (tmp_path / "made" / name).stat().st_ino == inode
    }
    assert set(before) - same == {"train-00000.h5"}


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"stamp": 1}'])
def test_a_damaged_note_tells_of_nothing_that_is_finished(tmp_path: Path, content: str) -> None:
    raw = pictures.folder(tmp_path / "raw", 14, 2)
    make(raw, tmp_path / "made", part=(1, 2))
    note = tmp_path / ".made.partial/notes/train-00002.json"
    known = files.read_json(note)
    note.write_text(content or json.dumps({**known, "entry": {}}))
    make(raw, tmp_path / "made")
    assert files.read_json(tmp_path / "made/manifest.json")["splits"]["train"]["examples"] == 42


def test_bad_files_do_not_undo_the_good_shards(tmp_path: Path) -> None:
    raw = pictures.folder(tmp_path / "raw", 14, 2)
    good = (raw / "train/cat/0000.jpg").read_bytes()
    (raw / "train/cat/0000.jpg").write_bytes(good[:-100])
    with pytest.raises(UserError, match="1 files cannot be decoded .*finished shards are kept"):
        make(raw, tmp_path / "made", workers=2)
    kept = {p.name: p.stat().st_ino for p in tmp_path.glob(".made.partial/shards/*.h5")}
    assert len(kept) == 6, "all but the one of it"
    (raw / "train/cat/0000.jpg").write_bytes(good)
    make(raw, tmp_path / "made", workers=2)
    assert all((tmp_path / "made" / name).stat().st_ino == inode for name, inode in kept.items())


def test_what_another_machine_or_process_is_writing_stays(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts may overlap, and two machines have processes of one number."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    shard = tmp_path / ".made.partial" / "shards" / "train-00000.h5"
    left = []
    for node, number in (("here", ended.pid), ("here", os.getppid()), ("there", ended.pid)):
        name = os.uname_result((sys.platform, node, "", "", ""))
        with monkeypatch.context() as patch:
            patch.setattr(os, "uname", lambda name=name: name)
            patch.setattr(os, "getpid", lambda number=number: number)
            patch.setattr(files, "remove", lambda path: None)  # as if it was killed
            with pytest.raises(KeyboardInterrupt), files.atomic(shard) as temporary:
                temporary.touch()
                left.append(temporary)
                raise KeyboardInterrupt
    here = os.uname_result((sys.platform, "here", "", "", ""))
    monkeypatch.setattr(os, "uname", lambda: here)
    make(raw, tmp_path / "made", part=(1, 20))
    assert [path.exists() for path in left] == [False, True, True]


def test_what_other_options_have_left_behind_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    raw = pictures.folder(tmp_path / "raw", 1, 1)
    for name in ("animals-aaaaaaaaaaaa", "animals-small-aaaaaaaaaaaa"):
        (tmp_path / f".{name}.partial/shards").mkdir(parents=True)
    make(raw, tmp_path / "animals-bbbbbbbbbbbb", part=(1, 2))
    make(raw, tmp_path / "animals-bbbbbbbbbbbb")
    told = [line for line in capsys.readouterr().err.splitlines() if "remove it unless" in line]
    assert len(told) == 2
    assert f"{tmp_path}/.animals-aaaaaaaaaaaa.partial holds 0.0 GB" in told[0]


def test_a_full_disk_is_told_and_gone_on_from(
    raw: Path, made: dict[str, bytes], tmp_path: Path
) -> None:
    with small_disk(tmp_path / "small", "1m") as small:
        with pytest.raises(UserError, match="no space left on device; free some space"):
            make(raw, small / "made", workers=2)
        assert not list(small.glob(".made.partial/shards/*.tmp"))
        assert list(small.glob(".made.partial/notes/*.json")), "what was finished is kept"
        subprocess.run(["mount", "-o", "remount,size=20m", small], check=True)
        assert content(make(raw, small / "made")) == made


def test_a_worker_that_is_killed_is_told(raw: Path, tmp_path: Path) -> None:
    study = study_on(raw, tmp_path)
    process = started(study)
    folder = study.dataset_folder("digits")
    wait_for(lambda: list(folder.parent.glob(".*.partial/notes/*.json")), process)
    os.kill(workers(process)[0], 9)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    assert "lockstep: error: a process that preprocessed was killed" in said
    assert "Traceback" not in said


def test_a_batch_is_gathered_from_many_shards(raw: Path, made: dict, tmp_path: Path) -> None:
    folder = make(raw, tmp_path / "made", workers=2)
    reader = Reader(folder / "manifest.json", "train")
    everything = [shard.arrays["image"] for shard in reader.shards]
    indices = np.random.default_rng(0).permutation(120).reshape(10, 12)
    images, labels = reader.take(indices).values()
    np.testing.assert_array_equal(images, np.concatenate(everything)[indices])
    assert (labels == indices // 40).all()


def test_two_folders_of_one_name_are_two_datasets(raw: Path, tmp_path: Path) -> None:
    one, two = study_on(raw, tmp_path), study_on(tmp_path / "other", tmp_path)
    assert one.dataset_folder("digits") != two.dataset_folder("digits")


def test_one_relative_path_in_two_places_is_two_datasets(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two checkouts may share their data."""
    study, names = study_on(Path("raw"), tmp_path), []
    for place in (raw.parent, tmp_path):
        monkeypatch.chdir(place)
        names.append(study.dataset_folder("digits"))
    assert names[0] != names[1]
    monkeypatch.chdir(raw.parent)
    assert study_on(raw, tmp_path).dataset_folder("digits") == names[0]
