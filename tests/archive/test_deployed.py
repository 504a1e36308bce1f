"""What comes after training, in an archive: its record always, exported models on request."""

from pathlib import Path
from typing import Any

import pytest

from lockstep.archive import layout
from tests.report.report_studies import TWO, config

TOP = "results/planted/deploy/mnist_cnn"
MODEL = f"{TOP}/artefacts/torch/export/model.pt2"
ROW = {"framework": "torch", "route": "export",
       "artefact": {"files": {"model.pt2": {"bytes": 5, "sha256": "abc"}}}}  # fmt: skip
RECORD = {"routes": [ROW, {"framework": "jax", "route": "eager"}]}


def study(root: Path, **more: Any) -> Any:
    return layout.named_as_archived(config(root, variants=TWO, seeds=1, **more))


def read(name: str) -> Any:
    return RECORD if name == f"{TOP}/record.json" else None


def test_the_record_names_the_models(tmp_path: Path) -> None:
    assert layout.artefacts(study(tmp_path, deploy={}), read) == {MODEL: "abc"}
    assert layout.artefacts(study(tmp_path), read) == {}


@pytest.mark.parametrize("asked", [True, False])
def test_models_are_missing_only_where_they_are_asked_for(tmp_path: Path, asked: bool) -> None:
    include = {"include": {"artefacts": asked}}
    found = layout.missing(study(tmp_path, deploy={}, archive=include), [], read)
    assert "deploy/mnist_cnn/record.json" in found
    assert ("deploy/mnist_cnn/artefacts/torch/export/model.pt2" in found) == asked
