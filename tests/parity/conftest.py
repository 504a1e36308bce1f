"""What tests of the ladder share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import pictures
from tests.parity.faults import Ground


@pytest.fixture(scope="module")
def ground(
    tmp_path_factory: pytest.TempPathFactory, digits: Path, caches: Path
) -> Iterator[Ground]:
    """Where both frameworks climb with faults."""
    folder = tmp_path_factory.mktemp("faults")
    coloured = pictures.write(folder / "pictures", pictures.coloured())
    yield Ground(folder, {"digits": digits, "pictures": coloured}, caches)
