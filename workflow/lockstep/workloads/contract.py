"""What a workload says of itself without any framework.

A workload is a folder with three files:

`spec.py`         `WORKLOAD: Workload`, below. NumPy alone.
`torch_model.py`  the same model in PyTorch, and
`flax_model.py`   in Flax, Linen or NNX. Both have

    build(model, settings) -> module         model: the recipe's; settings: `Settings`
    names(model) -> naming.Names             neutral names -> their own
    forward(module, batch, random, train) -> outputs      arrays by name, (B, …)
    loss(outputs, batch, recipe) -> terms    by name, (B,): the sum over an example's units
    metrics(outputs, batch, recipe) -> (sums, columns)    by name, (B,) and (B, …)

and, where they are needed,

    augment(batch, recipe, data) -> batch    integers, on the device; the checksum is of the result
    inputs(batch, dtype) -> batch            from integers to what the model computes with
    taps(model) -> {name: path}              layers to compare (`lockstep.workloads.taps`)

A batch is a mapping from names to arrays on the device: those that `Workload.arrays` declares,
`real`, float32 ``(B,)``, 1 for examples and 0 for padding, and numbers of the step
(`Workload.scalars`). An engine adds the terms, sums over real examples and ranks, and divides by
the global weight. It calls `module` in `forward` alone, and once: in PyTorch it may be wrapped.

`random` gives random numbers that both frameworks share (`lockstep.workloads.randomness`):
`dropout(x, site, rate)`, `words(site, count)` and `integers(site, shape, limit)`. It takes them
from the batch's array `key`, which a workload that uses it declares (`KEY`) and draws (`key_draw`).
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

from lockstep.datasets import arrays, keys
from lockstep.datasets.arrays import Array, Ragged, Stored

__all__ = ["Array", "Ragged", "Stored"]

AXIS = "data"
"""The axis over devices: in a compiled training step over several, a Flax model is shown one's part
of a batch, and a mean over the whole is `jax.lax.pmean(x, AXIS)` (see `batch_norm_flax`)."""

MOST_LENGTHS = 8  # each has programs of its own, which JAX and torch.compile compile

EVALUATION = -1  # the epoch of evaluations, to which every one of them draws the same

Model = Mapping[str, Any]
Recipe = Mapping[str, Any]
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One tensor that the model computes with, in neutral naming and layout.

    Attributes:
        name: such as ``conv1.kernel``.
        shape: neutral layout: dense ``(in, out)``, convolution ``(height, width, in, out)``,
            embedding ``(rows, width)``.
        bound: initial values are uniform in ``[-bound, bound)``; 0 with `constant` for others.
        constant: initial value where `bound` is 0 (a normalisation's scale is 1).
        std: if positive, initial values are normal with this standard deviation instead.
        decay: whether weight decay applies.
        group: of the recipe's `optimizer.groups`, for another rate, decay, optimizer or update.
        trained: False freezes it in both frameworks: one that the loss does not identify, or one
            that a recipe keeps.
        ids: of a table, the integer array of a batch whose values are the rows that it is looked up
            by, and nothing else reads the table: then a group's update may be `touched_rows`.
        column: of `ids`, which alone are this table's; all if None.
    """

    name: str
    shape: tuple[int, ...]
    bound: float = 0.0
    constant: float = 0.0
    std: float = 0.0
    decay: bool = True
    group: str = "main"
    trained: bool = True
    ids: str = ""
    column: int | None = None


@dataclass(frozen=True, kw_only=True)
class Buffer:
    """One tensor that no gradient reaches, such as a running mean or a table of positions.

    Attributes:
        constant: its initial value, unless it is computed.
        value: computes it, ``shape``.
        dtype: that of an integer stays; a floating one follows the precision.
    """

    name: str
    shape: tuple[int, ...]
    constant: float = 0.0
    value: Callable[[], np.ndarray] | None = None
    dtype: str = "float32"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """Something that evaluation reports beside the loss.

    Attributes:
        higher: whether more is better.
        unit: `share` for one of [0, 1], empty for a plain number.
    """

    name: str
    higher: bool = True
    unit: str = "share"


@dataclass(frozen=True, kw_only=True)
class Data:
    """What a workload is told of its dataset.

    Attributes:
        name: of the dataset's entry in a config.
        arrays: as stored, by name.
        facts: what else the source says of it, such as `classes`.
        length: what the batch at hand is padded to; 0 for a workload without `lengths`.
    """

    name: str
    arrays: Mapping[str, Array]
    facts: Mapping[str, Any] = field(default_factory=dict)
    length: int = 0

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> "Data":
        """Return what a dataset's manifest says."""
        facts = {"classes": manifest.get("classes"), **manifest.get("facts", {})}
        return cls(name=manifest["name"], arrays=arrays.of_manifest(manifest), facts=facts)


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Random integers of an example.

    Attributes:
        make: from the number of examples, a seed and an epoch to all examples' integers,
            ``(examples, …)``; those of one depend on seed, epoch and the example alone.
        evaluation: whether evaluations have them, too: those of seed 0 and epoch `EVALUATION`.
    """

    name: str
    make: Callable[[int, int, int], np.ndarray]
    evaluation: bool = False


KEY = Array(name="key", dtype="int32", shape=(2,))
"""The array that `random` takes its numbers from."""


def key_draw() -> Draw:
    """Return the draw of `KEY`."""

    def make(examples: int, seed: int, epoch: int) -> np.ndarray:
        words = keys.words(examples, "key", seed, epoch)
        return words.astype("<u8").view("<i4").reshape(examples, 2)

    return Draw(name="key", make=make, evaluation=True)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What `build` is told beside the recipe's `model`.

    Attributes:
        dtype: of activations and of the operands of products, such as ``bfloat16``.
        param_dtype: of parameters.
        devices: over how many a batch is split.
        variant: its complete config: `convolution`, `attention` and the like.
    """

    precision: str
    dtype: str
    param_dtype: str
    devices: int
    variant: Mapping[str, Any]


def _together(
    rows: Mapping[str, Stored], draws: Arrays, recipe: Recipe, data: Data, train: bool
) -> dict[str, Any]:
    return {**rows, **draws}


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A workload's description.

    Attributes:
        recipe: its hyperparameters (`lockstep.workloads.recipe`).
        parameters: from the recipe's `model` to all parameters, in a fixed order.
        forward_flops: from the recipe's `model` to floating-point operations of one example's
            forward pass, a multiplication and an addition counted as two.
        at_length: from the recipe's `model` and one of the `lengths` to the model whose operations
            are those of an example that is padded to it.
        stored: from the recipe's `model` to the arrays of a dataset that it can learn from.
        arrays: from the recipe, the dataset and whether it is trained on, to the arrays of a batch.
        buffers: from the recipe's `model` to all buffers.
        draws: from the recipe and the dataset to what is drawn of each example.
        prepare: from stored rows and draws, ``(n, …)`` by name, the recipe, the dataset and whether
            it is trained on, to the arrays of a batch: example by example, whatever `n` is. A
            ragged array comes as `Ragged`.
        lengths: from the recipe and the dataset to the lengths that batches are padded to,
            ascending, at most `MOST_LENGTHS`; none where all batches have one shape. Each batch is
            of examples of one length, which `arrays` and `prepare` find as the dataset's `length`.
        length_of: the ragged array as stored whose own length decides: an example is padded to the
            least of `lengths` that holds it, to the last one if none does.
        weight: from stored rows, the recipe and the dataset to each example's loss units, int64
            ``(n,)``; 1 each if None. It sees the global batch on every rank and so reads little.
        weight_reads: names of the stored arrays that it is given.
        weight_unit: what it counts, such as ``masked token``; empty for examples.
        shown: what `augment` makes of a batch, by NumPy: the definition.
        metrics: what evaluation reports beside the loss.
        finish: from sums over all examples and columns of them, and the recipe, to each metric. The
            sums have `examples`, `weight` and `loss`, too.
        tally: from a batch's columns to integers that are added over batches and ranks; columns are
            then not kept, and `finish` finds the integers instead.
        keep: examples of an evaluation, over all ranks, up to which columns are kept all the same;
            `finish` must then know what to do with either.
        scalars: from the recipe, a step and how many there are, to numbers of that step.
        start: from a staged file's name, its tensors and the recipe's `model` to the parameters
            that it has; None where training starts from drawn weights alone. Raises UserError.
        check: says what is wrong with a complete recipe over so many devices, or None.
        check_data: says why a recipe's model cannot learn from a dataset, or None.
        small: changes of the recipe that make a preset for a test on a CPU: few layers, few
            channels, small images.
        firm_steps: float32 steps whose losses the ladder holds to the fixed tolerance alone. One
            where a unit within rounding of zero moves a gradient: then gradients are compared on
            several batches (`lockstep.parity.rungs`).
    """

    name: str
    summary: str
    recipe: dict[str, Any]
    parameters: Callable[[Model], tuple[Parameter, ...]]
    forward_flops: Callable[[Model], int]
    stored: Callable[[Model], tuple[Array, ...]]
    arrays: Callable[[Recipe, Data, bool], tuple[Array, ...]]
    buffers: Callable[[Model], tuple[Buffer, ...]] = lambda model: ()
    draws: Callable[[Recipe, Data], tuple[Draw, ...]] = lambda recipe, data: ()
    prepare: Callable[[Mapping[str, Stored], Arrays, Recipe, Data, bool], dict[str, Any]] = (
        _together
    )
    lengths: Callable[[Recipe, Data], tuple[int, ...]] = lambda recipe, data: ()
    length_of: str = ""
    at_length: Callable[[Model, int], Model] = lambda model, length: model
    weight: Callable[[Mapping[str, Stored], Recipe, Data], np.ndarray] | None = None
    weight_reads: tuple[str, ...] = ()
    weight_unit: str = ""
    shown: Callable[[Arrays, Recipe, Data], Arrays] = lambda batch, recipe, data: batch
    metrics: tuple[Metric, ...] = ()
    finish: Callable[[Mapping[str, float], Arrays, Recipe], dict[str, float]] = (
        lambda sums, columns, recipe: {}
    )
    tally: Callable[[Arrays], dict[str, np.ndarray]] | None = None
    keep: int = 0
    scalars: Callable[[Recipe, int, int], dict[str, float]] = lambda recipe, step, total: {}
    start: Callable[[str, Arrays, Model], dict[str, np.ndarray]] | None = None
    check: Callable[[Recipe, int], str | None] = lambda recipe, devices: None
    check_data: Callable[[Recipe, Data], str | None] = lambda recipe, data: None
    small: Mapping[str, Any] = field(default_factory=dict)
    firm_steps: int = 10

    def blank(self, model: Model) -> Data:
        """Return what is said of a dataset that a model can learn from."""
        described = {array.name: array for array in self.stored(model)}
        return Data(name=f"{self.name}-blank", arrays=described)

    def functions(self, framework: str) -> ModuleType:
        """Import what it has in a framework, `torch` or `jax`."""
        file = {"torch": "torch_model", "jax": "flax_model"}[framework]
        return importlib.import_module(f"lockstep.workloads.{self.name}.{file}")

    def trained(self, model: Model) -> list[Parameter]:
        """Return the parameters that are not frozen."""
        return [p for p in self.parameters(model) if p.trained]
