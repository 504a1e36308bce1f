"""Residual networks without any framework: their layers, initial weights, FLOPs and names.

He et al., Deep residual learning for image recognition (2015), in the form that torchvision gives
them: in a bottleneck the 3x3 convolution carries the stride ("v1.5"), shortcuts are 1x1
convolutions where shapes change, convolutions have no bias, and the names of PyTorch's parameters
are torchvision's. What a workload adds is its stem and block; what a study chooses is `model`:

`blocks`             blocks of each stage
`width`              channels of the first stage
`classes`, `size`    outputs; height and width of the images
`batch_norm`         scope of its statistics: `global` or `device`
`zero_last_gamma`    start every block as the identity: the last scale of its branch is 0
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lockstep.errors import nearest
from lockstep.workloads import naming
from lockstep.workloads.contract import Buffer, Parameter

SCOPES = ("global", "device")

Model = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Family:
    """What a workload fixes.

    Attributes:
        bottleneck: blocks of 1x1, 3x3 and 1x1 convolutions, the last one four times as wide;
            otherwise of two 3x3.
        large_stem: a 7x7 convolution of stride 2 and 3x3 max-pooling of stride 2, for photographs;
            otherwise a 3x3 convolution of stride 1, for small images.
    """

    bottleneck: bool
    large_stem: bool

    @property
    def expansion(self) -> int:
        """Channels that come out of a block, in multiples of the stage's."""
        return 4 if self.bottleneck else 1


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A convolution without bias and the normalisation that follows it.

    Attributes:
        name: neutral, of the convolution; `norm` that of the normalisation.
        native, native_norm: in torchvision.
        size, stride, inner, outer: of the kernel; padding is ``size // 2``.
        last: whether the normalisation ends a block's branch.
    """

    name: str
    norm: str
    native: str
    native_norm: str
    size: int
    stride: int
    inner: int
    outer: int
    last: bool = False


@dataclass(frozen=True, kw_only=True)
class Block:
    """A residual block: the layers of its branch, and of its shortcut if that has one."""

    name: str
    native: str
    branch: tuple[Layer, ...]
    shortcut: Layer | None


def stem(family: Family, model: Model) -> Layer:
    """Return the first layer."""
    return Layer(
        name="stem",
        norm="stem_norm",
        native="conv1",
        native_norm="bn1",
        size=7 if family.large_stem else 3,
        stride=2 if family.large_stem else 1,
        inner=3,
        outer=model["width"],
    )


def blocks(family: Family, model: Model) -> Iterator[Block]:
    """Yield all blocks in order."""
    inner = model["width"]
    for stage, count in enumerate(model["blocks"], start=1):
        for number in range(1, count + 1):
            stride = 2 if stage > 1 and number == 1 else 1
            middle = model["width"] * 2 ** (stage - 1)
            block = _block(family, (stage, number), inner, middle, stride)
            inner = block.branch[-1].outer
            yield block


def _block(family: Family, place: tuple[int, int], inner: int, middle: int, stride: int) -> Block:
    stage, number = place
    name, native = f"stage{stage}_block{number}", f"layer{stage}.{number - 1}"
    outer = middle * family.expansion
    if family.bottleneck:
        shapes = [(1, 1, inner, middle), (3, stride, middle, middle), (1, 1, middle, outer)]
    else:
        shapes = [(3, stride, inner, middle), (3, 1, middle, outer)]
    branch = tuple(
        Layer(
            name=f"{name}.conv{k}",
            norm=f"{name}.norm{k}",
            native=f"{native}.conv{k}",
            native_norm=f"{native}.bn{k}",
            size=shape[0],
            stride=shape[1],
            inner=shape[2],
            outer=shape[3],
            last=k == len(shapes),
        )
        for k, shape in enumerate(shapes, start=1)
    )
    shortcut = None
    if stride != 1 or inner != outer:
        shortcut = Layer(
            name=f"{name}.shortcut",
            norm=f"{name}.shortcut_norm",
            native=f"{native}.downsample.0",
            native_norm=f"{native}.downsample.1",
            size=1,
            stride=stride,
            inner=inner,
            outer=outer,
        )
    return Block(name=name, native=native, branch=branch, shortcut=shortcut)


def _layers(family: Family, model: Model) -> Iterator[Layer]:
    yield stem(family, model)
    for block in blocks(family, model):
        yield from block.branch
        if block.shortcut:
            yield block.shortcut


def features(family: Family, model: Model) -> int:
    """Return how many numbers the last layer takes."""
    return model["width"] * 2 ** (len(model["blocks"]) - 1) * family.expansion


def parameters(family: Family, model: Model) -> tuple[Parameter, ...]:
    """Return all parameters, initialised as torchvision does.

    Convolutions: normal, variance 2 / (fan out) (He et al., Delving deep into rectifiers, 2015);
    the last layer: uniform within 1/sqrt(fan in), its bias too. Norms and biases do not decay.
    """
    result = []
    for layer in _layers(family, model):
        shape = (layer.size, layer.size, layer.inner, layer.outer)
        std = (2 / (layer.size**2 * layer.outer)) ** 0.5
        gamma = 0.0 if layer.last and model["zero_last_gamma"] else 1.0
        of_norm: dict[str, Any] = {"shape": (layer.outer,), "decay": False}
        result += [
            Parameter(name=f"{layer.name}.kernel", shape=shape, std=std),
            Parameter(name=f"{layer.norm}.scale", constant=gamma, **of_norm),
            Parameter(name=f"{layer.norm}.bias", **of_norm),
        ]
    rows, columns = features(family, model), model["classes"]
    bound = rows**-0.5
    result.append(Parameter(name="head.kernel", shape=(rows, columns), bound=bound))
    result.append(Parameter(name="head.bias", shape=(columns,), bound=bound, decay=False))
    return tuple(result)


def buffers(family: Family, model: Model) -> tuple[Buffer, ...]:
    """Return the running statistics of all normalisations."""
    result = []
    for layer in _layers(family, model):
        result.append(Buffer(name=f"{layer.norm}.mean", shape=(layer.outer,), constant=0.0))
        result.append(Buffer(name=f"{layer.norm}.var", shape=(layer.outer,), constant=1.0))
    return tuple(result)


def forward_flops(family: Family, model: Model) -> int:
    """Return two operations for each multiplication in convolutions and the last layer."""
    first = stem(family, model)
    side = _out(model["size"], first)
    total = _flops(first, side)
    side = _pooled(family, side)
    for block in blocks(family, model):
        before = side
        for layer in block.branch:
            side = _out(side, layer)
            total += _flops(layer, side)
        if block.shortcut:
            total += _flops(block.shortcut, _out(before, block.shortcut))
    return total + 2 * features(family, model) * model["classes"]


def _pooled(family: Family, side: int) -> int:
    return (side + 2 - 3) // 2 + 1 if family.large_stem else side


def _out(side: int, layer: Layer) -> int:
    return (side + 2 * (layer.size // 2) - layer.size) // layer.stride + 1


def _flops(layer: Layer, side: int) -> int:
    return 2 * side**2 * layer.size**2 * layer.inner * layer.outer


def torch_names(family: Family, model: Model) -> naming.Names:
    """Map neutral names to torchvision's."""
    result: dict[str, tuple[str, naming.Layout | None]] = {}
    for layer in _layers(family, model):
        result[f"{layer.name}.kernel"] = (f"{layer.native}.weight", naming.CONVOLUTION)
        result[f"{layer.norm}.scale"] = (f"{layer.native_norm}.weight", None)
        result[f"{layer.norm}.bias"] = (f"{layer.native_norm}.bias", None)
        result[f"{layer.norm}.mean"] = (f"{layer.native_norm}.running_mean", None)
        result[f"{layer.norm}.var"] = (f"{layer.native_norm}.running_var", None)
    return {**result, "head.kernel": ("fc.weight", naming.DENSE), "head.bias": ("fc.bias", None)}


def flax_names(family: Family, model: Model) -> naming.Names:
    """Map neutral names to Flax's, whose modules are named alike; the layouts are the same."""
    trained = {p.name: f"params/{p.name.replace('.', '/')}" for p in parameters(family, model)}
    kept = {b.name: f"batch_stats/{b.name.replace('.', '/')}" for b in buffers(family, model)}
    return {name: (target, None) for name, target in {**trained, **kept}.items()}


def example_shape(model: Model) -> tuple[int, ...]:
    """Return the shape of an image: colours come last."""
    return (model["size"], model["size"], 3)


def check(family: Family, recipe: Mapping[str, Any], devices: int = 1) -> str | None:
    """Say what is wrong with a recipe over so many devices, or None."""
    model = recipe["model"]
    if model["batch_norm"] not in SCOPES:
        hint = nearest(str(model["batch_norm"]), SCOPES)
        return f"model.batch_norm is {model['batch_norm']!r}; {hint}"
    if not recipe["drop_last"]:
        return (
            "drop_last is False, and padding would enter the statistics of batch normalisation; "
            "set drop_last: true"
        )
    counts = model["blocks"]
    if not counts or not all(type(count) is int and count > 0 for count in counts):
        return f"model.blocks is {counts!r}; it must be a list of numbers of blocks, one a stage"
    for key in ("width", "classes", "size"):
        if model[key] <= 0:
            return f"model.{key} is {model[key]!r}; it must be greater than 0"
    together = recipe["global_batch"] // (devices if model["batch_norm"] == "device" else 1)
    side = _last_side(family, model)
    if together * side**2 < 2:  # the running variance divides by one fewer
        return (
            f"batch normalisation over {together} image of {side}x{side}, as it is in the last "
            f"stage (devices: {devices}), is over one value a channel, which has no variance; "
            "choose a larger global_batch or model.size"
        )
    return None


def _last_side(family: Family, model: Model) -> int:
    """Return the height and width of what the last layer of the last block gives."""
    side = _pooled(family, _out(model["size"], stem(family, model)))
    for block in blocks(family, model):
        for layer in block.branch:
            side = _out(side, layer)
    return side
