"""What `dlrm` is, without any framework: will this be clicked?

Naumov et al., Deep learning recommendation model for personalization and recommendation systems
(2019): dense numbers pass the bottom layers to a vector, each category is a row of its table, and
the products of all pairs of these vectors (without those of one with itself), with the bottom's
vector, pass the top layers to a logit. Every layer but the last is followed by ReLU. A table's
update may be of the rows alone that a batch looks up.

The loss of an example is ``-log sigmoid((2 click - 1) logit)``, which no confident logit cancels.
Metrics are an exact AUC (`lockstep.auc`) and the loss divided by that of always saying
the share of clicks.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lockstep import auc
from lockstep.workloads import naming
from lockstep.workloads.contract import (
    Array,
    Arrays,
    Data,
    Metric,
    Model,
    Parameter,
    Recipe,
    Workload,
)
from lockstep.workloads.recipe import recipe

KEEP = 10_000_000  # examples of an evaluation that are sorted; of more there are histograms


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The sizes of a model.

    Attributes:
        numbers: dense ones of an example.
        tables: rows of each.
        lookups: categories of an example.
        width: of a row.
        bottom, top: widths of the hidden layers.
    """

    numbers: int
    tables: tuple[int, ...]
    lookups: int
    width: int
    bottom: tuple[int, ...]
    top: tuple[int, ...]

    @property
    def shared(self) -> bool:
        """Whether all categories have one table."""
        return len(self.tables) == 1 < self.lookups

    @property
    def vectors(self) -> int:
        """Vectors that interact: of the categories, and that of the dense numbers."""
        return self.lookups + 1

    @property
    def dense(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of each dense layer, in the order of the network."""
        pairs = self.vectors * (self.vectors - 1) // 2
        bottom = (self.numbers, *self.bottom, self.width)
        top = (self.width + pairs, *self.top, 1)
        return {
            f"{name}.{k}": pair
            for name, widths in (("bottom", bottom), ("top", top))
            for k, pair in enumerate(itertools.pairwise(widths))
        }


def _criteo(tables: tuple[int, ...], width: int, bottom: tuple, top: tuple) -> Shape:
    return Shape(numbers=13, tables=tables, lookups=26, width=width, bottom=bottom, top=top)


PRESETS = {
    "tiny": _criteo((1000,) * 26, 16, (32,), (64, 32)),
    "movielens": Shape(  # of the 100k ratings: user, item, gender, age, occupation
        numbers=1, tables=(944, 1683, 3, 62, 22), lookups=5, width=16, bottom=(16,), top=(64, 32)
    ),
    "kaggle": _criteo((100_000,) * 26, 16, (512, 256, 64), (512, 256)),
    "criteo1tb_small": _criteo((4_194_304,), 128, (512, 256), (1024, 1024, 512, 256)),
}


def shape(model: Model) -> Shape:
    """Return a model's sizes; `check` says whether they are some."""
    preset = PRESETS[model["preset"]]
    if not model["tables"]:
        return preset
    lookups = preset.lookups if preset.shared else len(model["tables"])
    return Shape(**{**vars(preset), "tables": tuple(model["tables"]), "lookups": lookups})


def parameters(model: Model) -> tuple[Parameter, ...]:
    """Return all parameters; tables are a group of their own and do not decay."""
    sizes = shape(model)
    result = [
        Parameter(
            name=f"tables.{k}.embedding",
            shape=(rows, sizes.width),
            bound=rows**-0.5,
            decay=False,
            group="tables",
            ids="ids",
            column=None if sizes.shared else k,
        )
        for k, rows in enumerate(sizes.tables)
    ]
    for name, (inputs, outputs) in sizes.dense.items():
        deviation = (2 / (inputs + outputs)) ** 0.5
        result.append(Parameter(name=f"{name}.kernel", shape=(inputs, outputs), std=deviation))
        bias = Parameter(name=f"{name}.bias", shape=(outputs,), std=outputs**-0.5, decay=False)
        result.append(bias)
    return tuple(result)


def forward_flops(model: Model) -> int:
    """Return two operations for each multiplication, of one example; look-ups count none."""
    sizes = shape(model)
    layers = sum(inputs * outputs for inputs, outputs in sizes.dense.values())
    return 2 * (layers + sizes.vectors**2 * sizes.width)


def stored(model: Model) -> tuple[Array, ...]:
    """Return the arrays of a dataset that the model can learn from."""
    sizes = shape(model)
    return (
        Array(name="dense", dtype="float32", shape=(sizes.numbers,)),
        # The ladder changes the first id, to another row of the first table.
        Array(name="ids", dtype="int32", shape=(sizes.lookups,), high=sizes.tables[0]),
        Array(name="click", dtype="uint8", high=2),
    )


def arrays(recipe: Recipe, data: Data, train: bool) -> tuple[Array, ...]:
    """Return the arrays of a batch: as they are stored."""
    return stored(recipe["model"])


def finish(sums: Mapping[str, float], columns: Arrays, recipe: Recipe) -> dict[str, float]:
    """Return the area under the curve, and the loss against that of the share of clicks."""
    if "positives" in columns:
        area = auc.area_of_counts(columns["negatives"], columns["positives"])
    else:
        area = auc.area(columns["logit"], columns["click"])
    base = auc.entropy(sums["clicks"], sums["examples"])
    return {"auc": area, "normalised_entropy": sums["loss"] / sums["weight"] / base}


def tally(columns: Arrays) -> dict[str, np.ndarray]:
    """Return the histograms of some examples."""
    return auc.histograms(columns["logit"], columns["click"])


def check(recipe: Recipe, devices: int) -> str | None:
    """Return what is wrong with a recipe, or None."""
    model = recipe["model"]
    if model["preset"] not in PRESETS:
        return f"model.preset is {model['preset']!r}; it must be one of {', '.join(PRESETS)}"
    preset, tables = PRESETS[model["preset"]], model["tables"]
    if any(not isinstance(rows, int) or isinstance(rows, bool) or rows < 2 for rows in tables):
        return f"model.tables is {tables!r}; it must be a list of rows, each of at least 2"
    if preset.shared and len(tables) > 1:
        return f"model.tables has {len(tables)} tables, but {model['preset']} has one for all"
    return None


def check_data(recipe: Recipe, data: Data) -> str | None:
    """Return why the model cannot learn from a dataset, or None."""
    sizes = shape(recipe["model"])
    if not {"dense", "ids", "click"} <= data.arrays.keys() or "rows" not in data.facts:
        return "it holds no clicks; use one of source click_log, criteo or movielens"
    numbers, rows = data.arrays["dense"].shape[0], data.facts["rows"]
    if numbers != sizes.numbers:
        return f"it has {numbers} dense numbers, the model {sizes.numbers}; see model.preset"
    if len(rows) != len(sizes.tables) or data.arrays["ids"].shape[0] != sizes.lookups:
        return f"it has {len(rows)} tables, the model {len(sizes.tables)}; set model.tables: {rows}"
    for k, (needed, found) in enumerate(zip(rows, sizes.tables)):
        if needed > found:
            return (
                f"its table {k} has {needed} rows, that of the model {found}; set model.tables: "
                f"{rows}"
            )
    return None


def names(model: Model, table: str, kernel: str, separator: str) -> naming.Names:
    """Map neutral names to a framework's, which calls a kernel or a table so."""
    own: dict[str, tuple[str, naming.Layout | None]] = {
        "embedding": (table, None),
        "kernel": (kernel, naming.DENSE if kernel != "kernel" else None),
        "bias": ("bias", None),
    }
    result = {}
    for parameter in parameters(model):
        module, _, leaf = parameter.name.rpartition(".")
        path = f"{module.replace('.', separator)}{separator}{own[leaf][0]}"
        result[parameter.name] = (path, own[leaf][1])
    return result


WORKLOAD = Workload(
    name="dlrm",
    summary="a deep learning recommendation model: will it be clicked?",
    recipe=recipe(
        epochs=1,
        global_batch=256,
        evaluation_batch=2048,
        optimizer={
            "name": "adagrad",
            "learning_rate": 0.02,
            "groups": {"tables": {"name": "rowwise_adagrad", "update": "touched_rows"}},
        },
        target={"metric": "auc", "value": 0.75},
        model={"preset": "tiny", "tables": []},
    ),
    parameters=parameters,
    forward_flops=forward_flops,
    stored=stored,
    arrays=arrays,
    metrics=(Metric(name="auc"), Metric(name="normalised_entropy", higher=False, unit="")),
    finish=finish,
    tally=tally,
    keep=KEEP,
    check=check,
    check_data=check_data,
    small={"global_batch": 16, "evaluation_batch": 48},
)
