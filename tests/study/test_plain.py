"""What is wrong with a config as a file is one line, too."""

from pathlib import Path

import pytest
from snakemake.utils import update_config

from lockstep.errors import UserError
from lockstep.study import plain


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"seeds: [1]\nseeds: [2]\n", "line 2: key 'seeds' is given twice"),
        (b"a: {b: 1,\n  b: 2}\n", "line 2: key 'b' is given twice"),
        (b"study: caf\xe9\n", "is not UTF-8 (byte 10)"),
        (b"a: " + b"[" * 3000, "nested too deeply"),
        (b"- a\n", "holds no keys"),
        (b"a: [\n", "line 2, column 1: not valid YAML"),
    ],
)
def test_a_file_that_is_no_config(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match="config.yaml: ") as error:
        plain.read(path)
    assert says in str(error.value)


def test_a_config_is_changed_key_by_key_as_snakemake_has_it() -> None:
    config = {"a": {"b": 1, "c": {"d": 2}}, "e": [1]}
    by = {"a": {"c": {"f": 3}, "g": 4}, "e": [2], "h": {"i": 5}}
    both = plain.changed(config, by)
    assert both == {"a": {"b": 1, "c": {"d": 2, "f": 3}, "g": 4}, "e": [2], "h": {"i": 5}}
    update_config(config, by)
    assert both == config


def test_merged_keys_may_be_given_again(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\n")
    assert plain.read(path)["b"] == {"x": 3, "y": 2}
