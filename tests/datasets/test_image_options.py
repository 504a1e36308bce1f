"""The options of images in folders: what is wrong with one is said before a file is touched."""

import subprocess
import sys

import pytest

from lockstep.datasets.sources import image_folder
from lockstep.errors import UserError
from lockstep.study import config
from tests.conftest import DIGITS, PATIENCE, environment

SPLITS = "options.splits"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sise": 8}, "options.sise is unknown; did you mean 'size'"),
        ({"size": 0}, "options.size is 0; it must be a whole number from 1"),
        ({"size": True}, "options.size is True"),
        ({"size": 2_000_000}, "options.size is 2000000; it must be a whole number from 1 to 8192"),
        ({"shard": "many"}, "options.shard is 'many'"),
        ({"shard": 100_000}, "options.shard is 100000; it must be a whole number from 1 to 21845"),
        ({"limit": -1}, "options.limit is -1"),
        ({"limit": {"train": -1}}, "options.limit.train is -1"),
        ({"limit": {"trian": 1}}, "options.limit.trian is unknown; did you mean 'train'"),
        ({"classes": []}, r"options.classes is \[\]"),
        ({"corrupt": "ignore"}, "options.corrupt is 'ignore'; it must be refuse or skip"),
        ({"origin": 3}, "options.origin is 3; it must be a text"),
        ({"licence": "x\0y"}, "options.licence is .*, which holds what no text may hold"),
        ({"origin": "\udcff"}, "options.origin is .*, which holds what no text may hold"),
        ({"splits": {"train": "a"}}, f"{SPLITS} is .*; it must name the folders of train and test"),
        ({"splits": {"train": 1, "test": "b"}}, f"{SPLITS}.train is 1; it must be a text"),
        ({"splits": {"train": None, "test": "b"}}, f"{SPLITS}.train is None; it must be a text"),
        ({"splits": {"train": "a", "test": ""}}, f"{SPLITS}.test is ''; it must be the name of"),
        ({"splits": {"train": "/a", "test": "b"}}, f"{SPLITS}.train is '/a'; it must be the name"),
        ({"splits": {"train": "a/../../b", "test": "b"}}, f"{SPLITS}.train is 'a/../../b'"),
    ],
)
def test_options_are_checked(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}"):
        image_folder.check(options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"size": 32, "shard": 500, "classes": 10, "limit": {"train": 100, "test": None}},
        {"classes": ["ant", "bee"], "limit": 5, "corrupt": "skip", "licence": "CC BY 4.0"},
        {"splits": {"train": "deep/learn", "test": "held-out/"}, "origin": "Zürich"},
    ],
)
def test_what_is_right_passes(options: dict) -> None:
    image_folder.check(options)


def test_a_config_with_a_wrong_option_is_refused() -> None:
    entry = {"source": "image_folder", "raw": "raw", "options": {"size": "big"}}
    with pytest.raises(UserError, match="datasets.digits.options.size is 'big'"):
        config.complete(DIGITS | {"datasets": {"digits": entry}})


def test_options_are_checked_where_nothing_can_decode() -> None:
    """As on a login node."""
    line = "import sys; sys.modules |= dict.fromkeys(['numpy', 'PIL', 'h5py']); "
    line += "from lockstep.datasets.sources import image_folder; image_folder.check({'size': 0})"
    command = [sys.executable, "-c", line]
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=PATIENCE
    )
    assert "UserError: options.size is 0" in done.stderr
