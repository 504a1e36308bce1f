"""A study's config: what is wrong is said once, with where and what would be right."""

import copy
import json

import pytest
import yaml

from lockstep.errors import UserError
from lockstep.study import Study, config
from tests.conftest import DIGITS, ROOT, lockstep


def with_(path: str, value: object) -> dict:
    """The test study with one key set to another value."""
    changed = copy.deepcopy(DIGITS)
    inner = changed
    *parents, last = path.split("/")
    for key in parents:
        inner = inner.setdefault(key, {})
    inner[last] = value
    return changed


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("seed", [1], "unknown key 'seed' at the top level; did you mean 'seeds'?"),
        ("variants/torch-eager/presicion", "float32", "did you mean 'precision'?"),
        (
            "variants/torch-eager/precision",
            "float16",
            "variants.torch-eager.precision is 'float16'",
        ),
        ("variants/torch-eager/framework", "tensorflow", "variants.torch-eager.framework is"),
        ("variants/torch-eager/mode", "jit", "torch has eager and compile"),
        ("variants/torch-eager/convolution", "im2col", "is for jax variants"),
        ("variants/jax-jit/memory_format", "channels_last", "is for torch variants"),
        ("workloads/mnist_cnn/dataset", "digit", "did you mean 'digits'?"),
        ("workloads/mnist_cnn/epoch", 3, "unknown key 'epoch'; did you mean 'epochs'?"),
        ("workloads/mnist_cnn/optimizer/lr", 0.1, "unknown key 'optimizer.lr'"),
        ("workloads/mnist_cnn/epochs", 0, "epochs is 0; it must be greater than 0"),
        ("workloads/mnist_cnn/epochs", -1, "must be greater than 0"),
        ("workloads/mnist_cnn/epochs", "3", "epochs is '3'; write a whole number, such as its"),
        ("workloads/mnist_cnn/epochs", True, "epochs is true; write a whole number"),
        ("threads", 2.0, "threads is 2.0; write a whole number: 2"),
        ("seeds", 5, "seeds is 5; write a list: [5]"),
        ("seeds", "0-4", "seeds is '0-4'; write a list, such as [0, 1, 2]"),
        ("scales", [1], "scales[0] is 1; write something such as 1x1 or 2x4 (nodes x devices"),
        ("datasets/digits/raw", "", "must not be empty (Folder with raw files that you staged"),
        ("seeds", [1.0], "seeds[0] is 1.0; write a whole number: 1"),
        ("study", "test\n", "study is 'test\\n'; write something such as my-study"),
        ("scales", ["1x1\n"], "scales[0] is '1x1\\n'; write something such as 1x1 or 2x4"),
        ("report/margin", float("nan"), "report.margin is nan; it must be finite"),
        ("checkpoints/seconds", float("inf"), "checkpoints.seconds is inf; it must be finite"),
        ("archive/authors", [{"orcid": "x"}], "archive.authors[0]"),
        (
            "archive/authors",
            [{"name": "Ada", "orcid": "0000-0002-1825-0098"}],
            "orcid is '0000-0002-1825-0098', which has a wrong digit",
        ),
        ("archive/licence", "MTI", "archive.licence is 'MTI'; write an SPDX"),
        ("archive/licence", "apache-2.0", "archive.licence is 'apache-2.0'; write Apache-2.0"),
        ("archive/doi", "https://doi.org/x", "archive.doi"),
        ("variants", yaml.safe_load("{no: {}}"), "key False at variants is not a text"),
        ("variants", yaml.safe_load("{1: {}, b: {}}"), "key 1 at variants is not a text"),
        ("workloads/mnist_cnn", {1: 2}, "key 1 at workloads.mnist_cnn is not a text"),
        (
            "datasets/digits/options",
            yaml.safe_load("{since: 2026-01-01}"),
            "datasets.digits.options.since is 2026-01-01, which YAML reads as a date",
        ),
        ("datasets/digits/options", {"size": 1}, "options.size is unknown; source digits has no"),
        ("datasets/digits/raw", "", "datasets.digits.raw"),
        (
            "paths/results",
            "re{sults}",
            "paths.results is 're{sults}'; write something such as results",
        ),
        ("paths/data", "da\0ta", "must not hold a zero byte"),
        (
            "workloads/mnist_cnn/label_smoothing",
            1.5,
            "is 1.5; it must be at most 1",
        ),
        ("workloads/mnist_cnn/augment/smallest_area", 0.0, "it must be greater than 0"),
        ("workloads/mnist_cnn/optimizer/learning_rate", 1e300, "must be finite, in float32 too"),
        ("workloads/mnist_cnn/optimizer/learning_rate", 10**400, "must be finite, in float32 too"),
        (
            "workloads/mnist_cnn/optimizer",
            {"nesterov": True, "momentum": 0.0},
            "workloads.mnist_cnn: optimizer.nesterov needs a momentum",
        ),
        ("workloads/mnist_cnn/optimizer/name", "adam", "did you mean 'adamw'?"),
        ("workloads/mnist_cnn/optimizer/beta2", 1.0, "optimizer.beta2 is 1.0; it must be below 1"),
        (
            "workloads/mnist_cnn/optimizer",
            {"groups": {"head": {"rate": 2.0}}},
            "'head' is no group of parameters; known are: main",
        ),
        (
            "workloads/mnist_cnn/optimizer",
            {"groups": {"main": {"rat": 2.0}}},
            "unknown key 'optimizer.groups.main.rat'; did you mean 'rate'?",
        ),
        (
            "workloads/mnist_cnn/schedule",
            {"warmup_epochs": 1.0, "warmup_steps": 5},
            "schedule has warmup_epochs and warmup_steps; set one of them",
        ),
        ("workloads/mnist_cnn/accumulation", 3, "accumulation is 3, which does not divide global"),
        ("workloads/mnist_cnn/workload", "no/such", "no/such has no spec.py; a workload is a"),
        ("datasets/digits/source", "no/such.py", "no/such.py, which is no Python file"),
        ("workloads/mnist_cnn/target/metric", "acuracy", "did you mean 'accuracy'?"),
        ("workloads/mnist_cnn/target/metric", "loss", "target.metric is 'loss'; known are: acc"),
        ("workloads/mnist_cnn/target/value", 97.0, "target.value is 97.0; it must be at most 1"),
        ("variants/jax-jit/steps_per_dispatch", 26, "more than the 5 steps of a window"),
        (
            "workloads/mnist_cnn/optimizer/learning_rate",
            yaml.safe_load("1e-5"),
            "is '1e-5'; write a number, such as its default 0.001; for a number write 1.0e-05",
        ),
        (
            "report/device",
            yaml.safe_load("{peak_flops: {bfloat16: 989.0e12}}"),
            "is '989.0e12'; write a number; for a number write 989000000000000.0",
        ),
        ("workloads/mnist_cnn/optimizer/learning_rate", float("nan"), "learning_rate is nan"),
        ("workloads/mnist_cnn/workload", "mnist_cn", "did you mean 'mnist_cnn'?"),
        ("workloads/resnet", {"dataset": "digits"}, "unknown workload 'resnet'"),
        ("datasets/digits/source", "digit", "did you mean 'digits'?"),
        ("scales", ["1x3"], "global_batch is 64, which scale 1x3 (world size 3) does not divide"),
        ("scales", ["0x1"], "scales[0] is '0x1'; write something such as 1x1"),
        ("seeds", [], "seeds is []; it must not be empty: write [0, 1, 2]"),
        ("seeds", [0, 0], "seeds holds 0 twice; keep one of them"),
        ("threads", 0, "threads is 0; it must be at least 1"),
        ("window_steps", "ten", "window_steps is 'ten'; write a whole number, such as 25"),
        ("study", "My Study", "study is 'My Study'; write something such as my-study"),
        ("archive", {"licence": "MIT License"}, "archive.licence is 'MIT License'; write an SPDX"),
        ("archive", {"licence": "ftp://x/y"}, "archive.licence is 'ftp://x/y'; write an SPDX"),
    ],
)
def test_a_mistake_is_named_with_its_remedy(path: str, value: object, says: str) -> None:
    with pytest.raises(UserError, match="^here: ") as error:
        config.complete(with_(path, value), where="here")
    assert says in str(error.value)


@pytest.mark.parametrize("licence", ["MIT", "GPL-3.0+", "https://example.org/licence", None])
def test_a_licence_is_an_identifier_or_an_address(licence: str | None) -> None:
    complete = config.complete({**DIGITS, "archive": {"licence": licence}})
    assert complete["archive"]["licence"] == licence


def test_a_missing_key_is_named() -> None:
    raw = copy.deepcopy(DIGITS)
    del raw["variants"]
    with pytest.raises(UserError, match="key 'variants' is missing at the top level"):
        config.complete(raw)


def test_the_configs_in_the_repository_are_valid() -> None:
    for path in (ROOT / "config.yaml", ROOT / "demo" / "config.yaml"):
        assert Study(config.load(path)).runs


def test_a_complete_config_is_known_as_one() -> None:
    for path in (ROOT / "config.yaml", ROOT / "demo" / "config.yaml"):
        complete = json.loads(json.dumps(config.load(path)))
        config.check_complete(complete)
        complete["archive"]["licence"] = "MIT License"  # older studies could have it
        config.check_complete(complete)
        del complete["archive"]  # younger than the first studies
        config.check_complete(complete)
        for section in ("images", "blocks", "threads", "variants"):
            with pytest.raises(UserError):
                config.check_complete({k: v for k, v in complete.items() if k != section})


def test_the_demo_shows_its_learning_rate() -> None:
    raw = yaml.safe_load((ROOT / "demo" / "config.yaml").read_text())
    assert raw["workloads"]["mnist_cnn"]["optimizer"]["learning_rate"] == 0.01


def test_the_default_recipe_is_the_known_one() -> None:
    recipe = config.load(ROOT / "config.yaml")["workloads"]["mnist_cnn"]
    assert (recipe["epochs"], recipe["global_batch"]) == (10, 64)
    assert recipe["optimizer"]["learning_rate"] == 0.001
    assert recipe["optimizer"]["momentum"] == 0.9
    assert not recipe["drop_last"]


def test_the_command_line_ends_with_status_2_and_no_traceback(tmp_path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(with_("seed", 1)))
    done = lockstep("check", path, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "did you mean 'seeds'?" in done.stderr


@pytest.mark.parametrize("text", ["", "[1, 2]", "a: [", "\x00"])
def test_a_file_that_is_no_config_is_refused(tmp_path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(UserError):
        config.load(path)


def test_without_a_command_help_is_printed() -> None:
    done = lockstep()
    assert "make demo" in done.stdout
    assert len(done.stdout.splitlines()) < 50
