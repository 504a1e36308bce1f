"""The map of parameters: proposed from names, shapes and order, written, read, and checked."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lockstep.errors import UserError
from lockstep.port import lines, propose

LAYERS = {"qkv": (12, 4), "proj": (4, 4), "fc": (16, 4), "out": (4, 16)}


def _torch() -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    shapes: dict[str, tuple[int, ...]] = {"wte.weight": (9, 4)}
    for block in range(2):
        for name, shape in LAYERS.items():
            shapes[f"blocks.{block}.{name}.weight"] = shape
            shapes[f"blocks.{block}.{name}.bias"] = shape[:1]
        shapes[f"blocks.{block}.ln1.weight"] = (4,)
    kinds = {n: "Linear" for n, s in shapes.items() if "blocks" in n and len(s) == 2}
    return shapes, kinds


def _jax(stacked: bool) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"wte/embedding": (9, 4)}
    for block in range(1 if stacked else 2):
        path, more = ("blocks", (2,)) if stacked else (f"blocks_{block}", ())
        for name, shape in LAYERS.items():
            shapes[f"{path}/{name}/kernel"] = (*more, *shape[::-1])
            shapes[f"{path}/{name}/bias"] = (*more, *shape[:1])
        shapes[f"{path}/ln1/scale"] = (*more, 4)
    return dict(sorted(shapes.items()))


def _proposed(
    torch: dict[str, tuple[int, ...]], jax: dict[str, tuple[int, ...]], kinds: dict[str, str]
) -> list[lines.Line]:
    sides = [propose.Known(shapes=shapes, order={}) for shapes in (torch, jax)]
    return propose.propose(*sides, kinds)


@pytest.mark.parametrize("stacked", [False, True])
def test_layers_are_found_one_by_one_and_in_a_stack(stacked: bool, tmp_path: Path) -> None:
    (torch, kinds), jax = _torch(), _jax(stacked)
    found = _proposed(torch, jax, kinds)
    lines.check(found, torch, jax)
    targets = {line.torch: line.jax for line in found}
    assert targets["blocks.1.out.weight"] == f"blocks{'' if stacked else '_1'}/out/kernel"
    random = np.random.default_rng(0)
    values = {name: random.normal(size=shape) for name, shape in torch.items()}
    made = lines.to_jax(found, values, jax)
    own = values["blocks.1.qkv.weight"].T
    path = "blocks" if stacked else "blocks_1"
    kernel = made[f"{path}/qkv/kernel"]
    np.testing.assert_array_equal(kernel[1] if stacked else kernel, own)
    lines.save(tmp_path / "a.map.json", found)
    again = lines.to_torch(lines.load(tmp_path / "a.map.json"), made, torch)
    for name, value in values.items():
        np.testing.assert_array_equal(again[name], value)


def test_query_key_and_value_are_parts_of_a_fused_kernel() -> None:
    torch = {"a.in_proj_weight": (12, 4), "a.in_proj_bias": (12,), "a.out_proj.weight": (4, 4)}
    jax: dict[str, tuple[int, ...]] = {"a/out/kernel": (4, 4)}
    for role in ("query", "key", "value"):
        jax |= {f"a/{role}/kernel": (4, 2, 2), f"a/{role}/bias": (2, 2)}
    kinds = dict.fromkeys(torch, "MultiheadAttention") | {"a.out_proj.weight": "Linear"}
    found = _proposed(torch, jax, kinds)
    lines.check(found, torch, jax)
    values = {name: np.random.default_rng(0).normal(size=s) for name, s in torch.items()}
    key = lines.to_jax(found, values, jax)["a/key/kernel"]
    np.testing.assert_array_equal(key, values["a.in_proj_weight"][4:8].T.reshape(4, 2, 2))


def test_equal_values_outweigh_names() -> None:
    random = np.random.default_rng(0)
    a, b = random.normal(size=(2, 3, 3)).astype(np.float32)
    torch = propose.Known(
        shapes={"first.weight": (3, 3), "second.weight": (3, 3)},
        order={},
        values={"first.weight": a, "second.weight": b},
    )
    jax = propose.Known(
        shapes={"first/kernel": (3, 3), "second/kernel": (3, 3)},
        order={},
        values={"first/kernel": b.T, "second/kernel": a.T},
    )
    found = propose.propose(torch, jax, dict.fromkeys(torch.shapes, "Linear"))
    assert {line.torch: line.jax for line in found} == {
        "first.weight": "second/kernel",
        "second.weight": "first/kernel",
    }


WRONG = {
    "missing": (lambda found: found[1:], "no line for PyTorch's wte.weight (9, 4)"),
    "doubled": (lambda found: [*found, found[0]], "wte.weight twice"),
    "of another shape": (
        lambda found: [
            replace(line, layout=None) if line.torch == "blocks.0.fc.weight" else line
            for line in found
        ],
        "line for blocks.0.fc.weight (16, 4) does not fit blocks_0/fc/kernel (4, 16)",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_map_that_is_no_bijection_is_refused(name: str) -> None:
    (torch, kinds), jax = _torch(), _jax(False)
    change, expected = WRONG[name]
    with pytest.raises(UserError, match="map") as told:
        lines.check(change(_proposed(torch, jax, kinds)), torch, jax)
    assert expected in str(told.value)


def _pairs(torch: dict[str, str], jax: list[str], shape: tuple[int, ...] = (4, 4)) -> dict:
    """What is proposed for each weight, of one shape, by the kinds of PyTorch's modules."""
    kinds = {f"{path}.weight": kind for path, kind in torch.items()}
    left = {name: shape if kind == "Linear" else shape[:1] for name, kind in kinds.items()}
    right = {name: shape if name.endswith("kernel") else shape[:1] for name in sorted(jax)}
    return {line.torch: line.jax for line in _proposed(left, right, kinds)}


@pytest.mark.parametrize(
    ("torch", "jax"),
    [
        ("fc1 fc2 fc3 fc4", "Dense_0 Dense_1 Dense_2 Dense_3"),
        (
            "blocks.0.fc1 blocks.0.fc2 blocks.1.fc1 blocks.1.fc2",
            "Block_0/Dense_0 Block_0/Dense_1 Block_1/Dense_0 Block_1/Dense_1",
        ),
        ("net.0 net.2 net.4", "Dense_0 Dense_1 Dense_2"),
        ("net.0 net.2 net.4", "layers/0 layers/1 layers/2"),
        ("net.0 net.2 net.4", "layers/0 layers/2 layers/4"),
        ("layer.9 layer.10 layer.11", "layer_9 layer_10 layer_11"),
    ],
)
def test_what_is_numbered_from_one_or_with_gaps_is_found_by_its_rank(torch: str, jax: str) -> None:
    ours, theirs = torch.split(), [f"{path}/kernel" for path in jax.split()]
    expected = dict(zip([f"{path}.weight" for path in ours], theirs))
    assert _pairs(dict.fromkeys(ours, "Linear"), theirs) == expected


def test_parameters_of_a_function_are_counted_likewise() -> None:
    torch = {"fc1.weight": (4, 4), "fc2.weight": (4, 4), "fc3.weight": (4, 4)}
    found = _proposed(torch, {"w1": (4, 4), "w2": (4, 4), "w3": (4, 4)}, {})
    assert [line.jax for line in found] == ["w1", "w2", "w3"]


def test_layers_of_several_kinds_are_counted_apart() -> None:
    torch = {"0": "Linear", "1": "LayerNorm", "3": "Linear", "4": "LayerNorm"}
    flax = ["Dense_0/kernel", "LayerNorm_0/scale", "Dense_1/kernel", "LayerNorm_1/scale"]
    assert list(_pairs(torch, flax).values()) == flax
    flax = ["layers/0/kernel", "layers/1/scale", "layers/3/kernel", "layers/4/scale"]
    assert list(_pairs(torch, flax).values()) == flax


def test_a_kernel_of_flax_has_its_inputs_first() -> None:
    torch = {"up.weight": (16, 4), "down.weight": (4, 16)}
    jax = {"a/kernel": (16, 4), "b/kernel": (4, 16)}
    found = _proposed(torch, jax, dict.fromkeys(torch, "Linear"))
    assert {line.torch: line.jax for line in found} == {
        "up.weight": "b/kernel",
        "down.weight": "a/kernel",
    }
