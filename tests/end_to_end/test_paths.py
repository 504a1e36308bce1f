"""Where a study's files are may be named as a person likes, and what a person staged stays."""

from pathlib import Path

from tests.end_to_end.checkout import Checkout, small


def test_folders_with_spaces(tmp_path: Path, home: Path) -> None:
    checkout = Checkout.make(tmp_path / "lock step", home)
    paths = {"results": str(tmp_path / "my results"), "data": str(tmp_path / "it's data")}
    weights = f"{paths['results']}/small/weights/mnist_cnn/seed-0.safetensors"
    checkout.snakemake("datasets", weights, study=small(paths=paths))
    assert Path(weights).is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"lock step", "my results", "it's data"}
    # What follows a failure finds the study, too, and says how far it came.
    (checkout.root / "raw").mkdir()
    (checkout.root / "raw" / "junk").touch()
    broken = small(paths=paths, datasets__digits={"source": "mnist", "raw": "raw"})
    said = checkout.snakemake("parity", study=broken, status=2)
    assert "study small: 2 runs missing" in said.text
    assert Path(paths["results"], "small", "report", "index.html").is_file()


def test_only_what_is_not_staged_is_downloaded(tmp_path: Path, home: Path) -> None:
    checkout = Checkout.make(tmp_path / "lockstep", home)
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "train-images-idx3-ubyte").touch()
    workload = small()["workloads"]["mnist_cnn"]
    study = small(
        datasets={"a": {"source": "mnist", "raw": str(raw)}, "b": {"source": "mnist"}},
        workloads={
            "one": workload | {"workload": "mnist_cnn", "dataset": "a"},
            "two": workload | {"workload": "mnist_cnn", "dataset": "b"},
        },
    )
    said = checkout.snakemake("datasets", "--dry-run", "--printshellcmds", study=study)
    assert 'download --study "$LOCKSTEP_STUDY" --dataset b ' in said.text
    assert "--dataset a --workers 2 2>" in said.text  # is preprocessed from there


def test_a_place_that_cannot_be_written(tmp_path: Path, home: Path) -> None:
    checkout = Checkout.make(tmp_path / "lockstep", home)
    (tmp_path / "file").touch()
    paths = {"results": str(tmp_path / "file")}
    said = checkout.snakemake(study=small(paths=paths), status=2)
    assert len(said.lines) == 1
    assert f"but {tmp_path / 'file'} is a file; choose a folder" in said.lines[0]
    assert "Traceback" not in said.text


def test_a_key_that_is_given_twice(tmp_path: Path, home: Path) -> None:
    checkout = Checkout.make(tmp_path / "lockstep", home)
    checkout.write(small())
    path = checkout.root / "study.yaml"
    path.write_text(path.read_text() + "seeds: [7]\n")
    said = checkout.snakemake("--dry-run", status=2)
    assert said.lines == [said.lines[0]]
    assert "key 'seeds' is given twice; keep one" in said.lines[0]
