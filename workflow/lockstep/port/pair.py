"""A pair of models, described by one Python file of a person's own.

Names that the file defines, of which `torch_model`, `jax_model` and `batch` are obligatory:

`torch_model`        a `torch.nn.Module`, or a function that makes it
`jax_model`          a Flax NNX or Linen module or a function that makes it; or, with `jax_params`,
                     a function ``f(params, *batch)``, or ``f(params, **batch)`` if the batch is
                     a dictionary
`jax_params`         its tree of parameters; for Linen its variables (made by `init` if absent)
`batch`              an example batch of NumPy arrays: one, a tuple, a dictionary, or a function
                     that makes it
`torch_call`, `jax_call`   ``f(model, batch)``: how a model is called, if not with the batch alone
`torch_checkpoint`, `jax_checkpoint`   a file of weights (safetensors, .pt, .npz)
`ported`             True if both sides hold the same weights already, which is then checked, too
`parameters`         the map of parameters (`lockstep.port.lines`)
`unused`             names of parameters that the other side does not have, and need not have
`torch_loss`, `jax_loss`   ``f(outputs, batch)``: a scalar whose gradients are compared
`torch_optimizer`    ``f(parameters)``: a `torch.optim` optimizer
`jax_optimizer`      an optax transformation
`precision`          float64, float32 or bfloat16, if the models compute in one alone
"""

import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lockstep.errors import UserError, nearest
from lockstep.port import PRECISIONS
from lockstep.port.seen import leaves

NEEDED = ("torch_model", "jax_model", "batch")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """What a pair's file says; see the module."""

    path: Path
    torch_model: Any
    jax_model: Any
    batch: Any
    jax_params: Any = None
    torch_call: Callable | None = None
    jax_call: Callable | None = None
    torch_checkpoint: Path | None = None
    jax_checkpoint: Path | None = None
    ported: bool = False
    parameters: Any = None
    unused: tuple[str, ...] = ()
    torch_loss: Callable | None = None
    jax_loss: Callable | None = None
    torch_optimizer: Callable | None = None
    jax_optimizer: Any = None
    precision: str | None = None

    @property
    def looked_at(self) -> str:
        """The precision in which the order of calls is looked at."""
        return self.precision or "float32"

    def converted(self, convert: Callable[[Any], Any]) -> Any:
        """Return the batch with each of its arrays converted; what is None stays so."""

        def within(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: within(item) for key, item in value.items()}
            if isinstance(value, (list, tuple)):
                return tuple(within(item) for item in value)
            return None if value is None else convert(value)

        return within(self.batch)

    @property
    def map_file(self) -> Path:
        """Where an accepted map of parameters lies."""
        return self.path.with_suffix(".map.json")


def load(path: Path) -> Pair:
    """Run a pair's file and return what it describes.

    Raises:
        UserError: the file is missing or raises; or a name is missing, or is not what it must be.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; it describes the pair of models")
    specification = importlib.util.spec_from_file_location("lockstep_pair", path)
    if specification is None or specification.loader is None:
        raise UserError(f"{path}: not a Python file (its name must end with .py)")
    module = importlib.util.module_from_spec(specification)
    sys.modules["lockstep_pair"] = module
    sys.path.insert(0, str(path.resolve().parent))
    try:
        specification.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"{path}: {cause_of(error)}") from error
    finally:
        sys.path.remove(str(path.resolve().parent))
    return described(path, vars(module))


def described(path: Path, given: Mapping[str, Any]) -> Pair:
    """Return the pair that some names describe; see `load`."""
    known = Pair.__dataclass_fields__.keys() - {"path"}
    for name in NEEDED:
        if given.get(name) is None:
            raise UserError(f"{path}: {name} is missing; it must define {', '.join(NEEDED)}")
    for name in given:
        if name.startswith(("torch_", "jax_")) and name not in known and callable(given[name]):
            raise UserError(f"{path}: {name} is not a name of a pair; {nearest(name, known)}")
    found = {name: given[name] for name in known if given.get(name) is not None}
    for name in ("torch_checkpoint", "jax_checkpoint"):
        if name in found:
            found[name] = path.parent / found[name]
            if not found[name].is_file():
                raise UserError(f"{path}: {name}: there is no file {found[name]}")
    for name in ("torch_call", "jax_call", "torch_loss", "jax_loss", "torch_optimizer"):
        if name in found and not callable(found[name]):
            raise UserError(f"{path}: {name} must be a function, not {type(found[name]).__name__}")
    if found.get("precision", PRECISIONS[0]) not in PRECISIONS:
        raise UserError(
            f"{path}: precision is {found['precision']!r}; it must be one of "
            f"{', '.join(PRECISIONS)}"
        )
    if ("torch_loss" in found) != ("jax_loss" in found):
        raise UserError(f"{path}: torch_loss and jax_loss belong together; one is missing")
    if ("torch_optimizer" in found) != ("jax_optimizer" in found):
        raise UserError(f"{path}: torch_optimizer and jax_optimizer belong together")
    for name in ("torch_model", "jax_params", "batch"):
        value = found.get(name)
        if inspect.isfunction(value) or inspect.isclass(value):
            found[name] = _made(path, name, value)
    model = found["jax_model"]
    if (inspect.isfunction(model) or inspect.isclass(model)) and "jax_params" not in found:
        if any(p.default is p.empty for p in inspect.signature(model).parameters.values()):
            raise UserError(
                f"{path}: jax_model is a function of parameters, and jax_params is missing"
            )
        found["jax_model"] = _made(path, "jax_model", model)
    found["unused"] = tuple(found.get("unused", ()))
    arrays = dict(leaves(found["batch"]))
    if not arrays or not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise UserError(f"{path}: batch must be NumPy arrays (one, a tuple or a dictionary)")
    return Pair(path=path, **found)


def _made(path: Path, name: str, function: Any) -> Any:
    try:
        return function()
    except Exception as error:
        raise UserError(f"{path}: {name}() raised {cause_of(error)}") from error


def cause_of(error: BaseException) -> str:
    """Return an exception in one line: its kind, its message, and the line of code it is from."""
    traceback, where = error.__traceback__, ""
    own = str(Path(__file__).resolve().parent)
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        if not file.startswith((own, "<")) and "site-packages" not in file:
            where = f" ({Path(file).name}:{traceback.tb_lineno})"
        traceback = traceback.tb_next
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}{where}"


def shapes(batch: Any) -> str:
    """Return a batch's arrays as text: names, dtypes and shapes."""
    found = (f"{name} {leaf.dtype} {tuple(leaf.shape)}".strip() for name, leaf in leaves(batch))
    return ", ".join(found)


def called(function: Callable, batch: Any, **flags: bool) -> Any:
    """Call a model with a batch, and with those flags (`train`) that it has a parameter for."""
    if flags:
        try:
            known = inspect.signature(function).parameters
        except (TypeError, ValueError):
            known = {}  # type: ignore[assignment]
        flags = {name: value for name, value in flags.items() if name in known}
    if isinstance(batch, dict):
        return function(**batch, **flags)
    return (
        function(*batch, **flags) if isinstance(batch, (tuple, list)) else function(batch, **flags)
    )


def flags(train: bool) -> dict[str, bool]:
    """Return how models are told whether they are trained, in their several spellings."""
    return {"train": train, "training": train, "is_training": train, "deterministic": not train}
