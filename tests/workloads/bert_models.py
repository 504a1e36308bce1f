"""Both frameworks' BERT of equal weights, by their model files alone: no engine."""

import importlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from lockstep import workloads
from lockstep.datasets import keys
from lockstep.engines import jax_random, torch_random
from lockstep.workloads import naming
from lockstep.workloads.contract import Settings
from lockstep.workloads.recipe import override

VARIANT = {"attention": "written", "randomness": "shared", "convolution": "native"}

Arrays = Mapping[str, np.ndarray]
Results = dict[str, dict[str, np.ndarray]]


def small(name: str, **model: Any) -> dict[str, Any]:
    """The recipe of a workload's small preset."""
    spec = workloads.spec(name)
    recipe = override(spec.recipe, spec.small, where="small")
    return override(recipe, {"model": model}, where="test")


def weights(name: str, recipe: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Every parameter random, so that no zero or one hides a wrong map; float64."""
    result = {}
    for parameter in workloads.spec(name).parameters(recipe["model"]):
        drawn = keys.normal(int(np.prod(parameter.shape)), "noise", parameter.name)
        result[parameter.name] = parameter.constant + 0.2 * drawn.reshape(parameter.shape)
    return result


def settings(precision: str, **variant: str) -> Settings:
    narrow = precision == "bfloat16"
    return Settings(
        precision=precision,
        dtype=precision,
        param_dtype="float32" if narrow else precision,
        devices=1,
        variant={**VARIANT, **variant},
    )


def on_torch(
    name: str,
    recipe: Mapping[str, Any],
    values: Arrays,
    batch: Arrays,
    precision: str = "float64",
    train: bool = True,
    **variant: str,
) -> Results:
    """Outputs, loss terms and gradients of one batch, in neutral layout."""
    functions = importlib.import_module(f"lockstep.workloads.{name}.torch_model")
    chosen = settings(precision, **variant)
    module = functions.build(recipe["model"], chosen).to(getattr(torch, chosen.param_dtype))
    names, native = functions.names(recipe["model"]), dict(module.named_parameters())
    shapes = {n: v.shape for n, v in values.items()}
    naming.check(names, shapes, {n: tuple(p.shape) for n, p in native.items()})
    with torch.no_grad():
        for own, value in naming.to_native(values, names).items():
            native[own].copy_(torch.from_numpy(value))
    tensors = {n: torch.from_numpy(np.array(a)) for n, a in batch.items()}
    random = torch_random.Random(tensors, train=train, native=False)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        outputs = functions.forward(module, tensors, random, train)
    terms = functions.loss(outputs, tensors, recipe)
    sums, columns = functions.metrics(outputs, tensors, recipe)
    sum(terms.values()).sum().backward()
    gradients = {n: p.grad for n, p in native.items() if p.grad is not None}
    assert gradients.keys() == native.keys()
    neutral = naming.to_neutral({n: g.numpy() for n, g in gradients.items()}, names)
    results = {"outputs": outputs, "loss": terms, "sums": sums, "columns": columns}
    found = {k: {n: t.detach().numpy() for n, t in v.items()} for k, v in results.items()}
    return {**found, "gradients": neutral}


def on_jax(
    name: str,
    recipe: Mapping[str, Any],
    values: Arrays,
    batch: Arrays,
    precision: str = "float64",
    train: bool = True,
    **variant: str,
) -> Results:
    """The same in JAX, compiled."""
    functions = importlib.import_module(f"lockstep.workloads.{name}.flax_model")
    with jax.enable_x64(precision == "float64"):
        chosen = settings(precision, **variant)
        model = nnx.eval_shape(lambda: functions.build(recipe["model"], chosen))
        graph, shaped = nnx.split(model)
        flat = {"/".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(shaped)}
        names = functions.names(recipe["model"])
        shapes = {n: v.shape for n, v in values.items()}
        naming.check(names, shapes, {n: tuple(leaf.shape) for n, leaf in flat.items()})
        native = naming.to_native(values, names)
        params = {n: jnp.asarray(native[n], leaf.dtype) for n, leaf in flat.items()}

        def scored(params: dict[str, jax.Array], batch: dict[str, jax.Array]) -> Any:
            leaves = [
                (path, leaf.replace(params["/".join(map(str, path))]))
                for path, leaf in nnx.to_flat_state(shaped)
            ]
            module = nnx.merge(graph, nnx.from_flat_state(leaves))
            random = jax_random.Random(batch, train=train, native=False)
            outputs = functions.forward(module, batch, random, train)
            terms = functions.loss(outputs, batch, recipe)
            metrics = functions.metrics(outputs, batch, recipe)
            return sum(term.sum() for term in terms.values()), (outputs, terms, *metrics)

        arrays = {n: jnp.asarray(a) for n, a in batch.items()}
        gradient = jax.jit(jax.grad(scored, has_aux=True))
        gradients, results = jax.device_get(gradient(params, arrays))
    named = dict(zip(("outputs", "loss", "sums", "columns"), results))
    return {**named, "gradients": naming.to_neutral(gradients, names)}


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Relative difference in norm."""
    one, other = (np.asarray(a, np.float64) for a in (one, other))
    return float(np.linalg.norm(one - other) / max(np.linalg.norm(one), 1e-300))
