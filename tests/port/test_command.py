"""`lockstep port` as a person calls it: the page's example breaks and is mended; bad input."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lockstep.__main__ import main
from tests.conftest import ROOT

FIRST, SECOND = 'padding="SAME"', "nnx.gelu(self.fc(x))"


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The pair of docs/porting.md."""
    page = (ROOT / "docs/porting.md").read_text()
    path = tmp_path / "pair.py"
    path.write_text(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0])
    return path


def test_the_pages_example_breaks_and_is_mended(
    example: Path, capsys: pytest.CaptureFixture
) -> None:
    page = (ROOT / "docs/porting.md").read_text()

    def shown() -> list[str]:
        """What was printed, without the differences' last digits."""
        return [
            re.sub(r"\d\.\de[+-]\d\d", "", line) for line in capsys.readouterr().out.splitlines()
        ]

    def on_page(lines: list[str]) -> None:
        paged = [re.sub(r"\d\.\de[+-]\d\d", "", line).strip() for line in page.splitlines()]
        for line in filter(None, map(str.strip, lines)):
            assert line in paged

    assert main(["port", str(example)]) == 2
    on_page(shown())
    assert not example.with_suffix(".map.json").exists()
    assert main(["port", str(example), "--accept"]) == 1
    on_page(shown())
    text = example.read_text()
    example.write_text(text.replace(FIRST, "padding=[(1, 1), (1, 1)]"))
    assert main(["port", str(example)]) == 1
    on_page(shown())
    text = example.read_text()
    example.write_text(text.replace(SECOND, "nnx.gelu(self.fc(x), approximate=False)"))
    files = [
        "--json",
        str(example.with_name("port.json")),
        "--html",
        str(example.with_name("port.html")),
    ]
    assert main(["port", str(example), *files]) == 0
    on_page(shown())
    found = json.loads(example.with_name("port.json").read_text())
    assert found["passed"] and [f["name"] for f in found["findings"]] == ["float64", "float32"]
    assert "is the same model" in example.with_name("port.html").read_text()


BASE = """
import numpy as np, torch, jax, jax.numpy as jnp
from torch import nn
torch_model = nn.Linear(3, 2)
jax_params = {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)}
def jax_model(p, x):
    return x @ p["kernel"] + p["bias"]
batch = np.ones((4, 3), np.float32)
"""

WRONG = {
    "no batch": ("batch = None", "batch is missing"),
    "no module": ("torch_model = 3", "torch_model must be a torch.nn.Module, not int"),
    "another shape": (
        "batch = np.ones((4, 5), np.float32)",
        "cannot be called with the batch (float32 (4, 5))",
    ),
    "parameters missing": ("del jax_params", "jax_model is a function of parameters"),
    "one more parameter": ('jax_params["scale"] = jnp.ones(7)', "no line for JAX's scale (7,)"),
    "outputs": (
        "jax_call = lambda model, batch: (jax_model(model, batch),) * 2",
        "outputs of another structure: PyTorch gives 1 floating arrays",
    ),
    "an unknown name": ("def torch_cal(): pass", "did you mean 'torch_call'?"),
    "no such checkpoint": ("torch_checkpoint = 'none.pt'", "there is no file"),
    "one loss": ("def torch_loss(y, b): return y.sum()", "one is missing"),
    "a map to nothing": ("parameters = {'weight': 'kernels'}", "which JAX does not have"),
    "an id beyond the table": (
        "torch_model = nn.Embedding(3, 2)\ndel jax_params\nfrom flax import nnx\n"
        "jax_model = nnx.Embed(3, 2, rngs=nnx.Rngs(0))\nbatch = np.array([0, 1, 7])",
        "JAX clamps them or gives NaN: the batch has 7, and the table has 3 rows",
    ),
    "raises": ("1 / 0", "ZeroDivisionError: division by zero (pair.py:"),
}


@pytest.mark.parametrize("name", WRONG)
def test_bad_input_is_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    line, expected = WRONG[name]
    path = tmp_path / "pair.py"
    path.write_text(BASE + line + "\n")
    assert main(["port", str(path), "--accept", "--precision", "float64"]) == 2
    told = capsys.readouterr().err.strip()
    assert expected in told and len(told.splitlines()) == 1, told


def test_a_checkpoint_of_something_else_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    import torch

    torch.save({"weight": torch.ones(5, 5)}, tmp_path / "other.pt")
    path = tmp_path / "pair.py"
    path.write_text(BASE + "torch_checkpoint = 'other.pt'\n")
    assert main(["port", str(path), "--accept"]) == 2
    assert "not a checkpoint of torch_model: " in capsys.readouterr().err


NOTED = {
    "nan on one side": (
        "jax_call = lambda p, x: jnp.log(jax_model(p, x) - 1e9)",
        1,
        "0 of 8 values are not finite in PyTorch, 8 of 8 in JAX",
    ),
    "input in place": (
        "torch_call = lambda m, x: m(x.add_(1))\njax_call = lambda p, x: jax_model(p, x + 1)",
        0,
        "note: the PyTorch module changes its input in place",
    ),
    "control flow": (
        "jax_call = lambda p, x: jax_model(p, x) if x.sum() > 0 else x",
        0,
        "note: the JAX model's control flow depends on data",
    ),
}


@pytest.mark.parametrize("name", NOTED)
def test_what_is_odd_is_said(name: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    line, status, expected = NOTED[name]
    path = tmp_path / "pair.py"
    path.write_text(BASE + line + "\n")
    assert main(["port", str(path), "--accept"]) == status
    assert expected in capsys.readouterr().out


def test_a_linen_model_that_wants_a_random_stream_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "pair.py"
    path.write_text(
        BASE
        + """
from flax import linen
del jax_params
class Noisy(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(2)(x) + jax.random.normal(self.make_rng("noise"), ())
jax_model = Noisy()
"""
    )
    assert main(["port", str(path), "--accept"]) == 2
    assert "jax_model asks for a random stream" in capsys.readouterr().err


NORM = """
import flax.linen as linen
import numpy as np
from torch import nn


class Norm(linen.Module):
    @linen.compact
    def __call__(self, x, train=False):
        return linen.BatchNorm(not train, epsilon=1e-5, momentum=0.9)(x)


torch_model, jax_model = nn.Sequential(nn.BatchNorm1d(4)), Norm
batch = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)


def jax_call(model, x):
    return model(x)
"""


def test_a_call_that_is_not_told_of_training_is_not_taken_for_a_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "norm.py"
    path.write_text(NORM)
    assert main(["port", str(path), "--accept"]) == 0
    capsys.readouterr()
    assert main(["port", str(path), "--train"]) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert f"{path}: jax_call is not told of training" in told
    told_of = NORM.replace("(model, x)", "(model, x, train)").replace("model(x)", "model(x, train)")
    path.write_text(told_of)
    assert main(["port", str(path), "--train"]) == 1, "the running variance is another estimator"
    assert "statistics 0.running_var is the first that differs" in capsys.readouterr().out


def test_no_package_is_imported_before_the_command_runs() -> None:
    look = "import sys, lockstep.__main__; print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert not {"torch", "jax", "numpy", "snakemake", "h5py", "yaml"} & set(told.stdout.split())
