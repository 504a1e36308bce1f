"""The PyTorch side of a pair: its tensors, and what it computes, layer by layer."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lockstep.errors import UserError
from lockstep.port import seen
from lockstep.port.pair import Pair, called, cause_of, shapes
from lockstep.port.seen import Called, Recorder

DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}

CLAMPED = "PyTorch refuses ids that are out of range, JAX clamps them or gives NaN"


class TorchSide:
    """A PyTorch module of a pair.

    Args:
        read: takes what is compared of a tensor; all of it by default.
    """

    name = "PyTorch"

    def __init__(
        self, pair: Pair, read: Callable[[Tensor], np.ndarray | None] | None = None
    ) -> None:
        if not isinstance(pair.torch_model, nn.Module):
            kind = type(pair.torch_model).__name__
            raise UserError(f"{pair.path}: torch_model must be a torch.nn.Module, not {kind}")
        self.pair, self.module, self._read = pair, pair.torch_model, read or _read
        if pair.torch_checkpoint:
            _restore(self.module, pair.torch_checkpoint)
        self.tensors: dict[str, Tensor] = {}
        self.tied: dict[str, str] = {}
        by_place: dict[int, str] = {}
        for name, tensor in self.module.state_dict(keep_vars=True).items():
            if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
                continue
            first = by_place.setdefault(id(tensor), name)
            if first == name:
                self.tensors[name] = tensor
            else:
                self.tied[name] = first
        self.buffers = [n for n, t in self.tensors.items() if not isinstance(t, nn.Parameter)]
        self.kinds = {name: self._kind(name) for name in self.tensors}
        self.note: str | None = None
        self._further = {  # such as tables of angles, which no state has
            name: tensor.clone()
            for name, tensor in self.module.named_buffers()
            if tensor.is_floating_point()
        }

    def _kind(self, name: str) -> str:
        owner = self.module.get_submodule(name.rpartition(".")[0])
        known = (nn.Linear, nn.Embedding, nn.MultiheadAttention)
        for kind in known:
            if isinstance(owner, kind):
                return kind.__name__
        return type(owner).__name__

    def values(self) -> dict[str, np.ndarray]:
        """Return all tensors by name, float32."""
        return {n: t.detach().float().cpu().numpy().copy() for n, t in self.tensors.items()}

    def load(self, values: Mapping[str, np.ndarray], precision: str) -> None:
        """Bring the module into a precision, with these values."""
        self.module.to(DTYPES[precision])
        with torch.no_grad():
            for name, buffer in self.module.named_buffers():
                if name in self._further:
                    buffer.copy_(self._further[name])
            for name, tensor in self.module.state_dict(keep_vars=True).items():
                if name in values:
                    tensor.copy_(torch.from_numpy(np.asarray(values[name], order="C")))

    def batch(self, precision: str) -> Any:
        """Return the batch as tensors: floating ones in a precision, integers as int64."""

        def convert(value: Any) -> Any:
            tensor = torch.from_numpy(np.array(value))
            if tensor.is_floating_point():
                return tensor.to(DTYPES[precision])
            return tensor if tensor.dtype in (torch.bool, torch.uint8) else tensor.long()

        return self.pair.converted(convert)

    def order(self) -> dict[str, int]:
        """Return when each module is called first, by its path."""
        precision = self.pair.looked_at
        self.load(self.values(), precision)
        recorder = Recorder(None, _read)
        self.forward(precision, recorder)
        return recorder.order

    def forward(
        self,
        precision: str,
        recorder: Recorder,
        *,
        train: bool = False,
        altered: contextlib.AbstractContextManager | None = None,
    ) -> Called:
        """Call the module as it is loaded, and tell what its layers give.

        Raises:
            UserError: it cannot be called with the batch.
        """
        batch = self.batch(precision)
        with (
            torch.no_grad(),
            self._ready(precision, train),
            self._heard(recorder, batch),
            altered or contextlib.nullcontext(),
        ):
            try:
                outputs = self._called(batch)
            except Exception as error:
                if isinstance(error, (UserError, Reached)):
                    raise
                hint = _beyond(self.module, batch) if isinstance(error, IndexError) else ""
                raise UserError(
                    f"{self.pair.path}: torch_model cannot be called with the batch "
                    f"({shapes(self.pair.batch)}): {cause_of(error)}{hint}"
                ) from error
        if self.note is None and any(tensor._version for _, tensor in seen.leaves(batch)):
            self.note = "the PyTorch module changes its input in place"
        found = {n: x for n, x in seen.leaves(outputs) if x.is_floating_point()}
        after = self.module.state_dict()  # `to` makes new buffers
        return Called(
            {name: _wide(output) for name, output in found.items()},
            {name: _wide(after[name]) for name in self.buffers},
        )

    def gradients(
        self, precision: str, scalar: Callable[[Any, Any], Tensor], *, train: bool = False
    ) -> dict[str, np.ndarray]:
        """Return the gradient of a scalar of the outputs, by parameter; zeros where it has none.

        Args:
            scalar: of outputs and batch.
        """
        named = self.module.state_dict(keep_vars=True)
        wanted = {n: named[n] for n in self.tensors if n not in self.buffers}
        batch = self.batch(precision)
        for tensor in wanted.values():
            tensor.requires_grad_(True)
        with torch.enable_grad(), self._ready(precision, train):
            found = torch.autograd.grad(
                scalar(self._called(batch), batch), list(wanted.values()), allow_unused=True
            )
        return {
            name: np.zeros(tuple(wanted[name].shape)) if g is None else _wide(g)
            for name, g in zip(wanted, found)
        }

    def _called(self, batch: Any) -> Any:
        if self.pair.torch_call:
            return self.pair.torch_call(self.module, batch)
        return called(self.module, batch)

    @contextlib.contextmanager
    def _ready(self, precision: str, train: bool) -> Iterator[None]:
        """Set the module's mode and the default dtype; training draws no dropout."""
        before, default = self.module.training, torch.get_default_dtype()
        drops = [m for m in self.module.modules() if isinstance(m, nn.modules.dropout._DropoutNd)]
        rates = [m.p for m in drops]
        self.module.train(train)
        if precision == "float64":
            torch.set_default_dtype(torch.float64)
        for drop in drops if train else ():
            drop.p = 0.0
        try:
            yield
        finally:
            self.module.train(before)
            torch.set_default_dtype(default)
            for drop, rate in zip(drops, rates):
                drop.p = rate

    @contextlib.contextmanager
    def _heard(self, recorder: Recorder, batch: Any) -> Iterator[None]:
        tensors = dict(seen.leaves(batch))
        handles = []

        def hear(path: str, module: nn.Module) -> None:
            def before(_: nn.Module, given: tuple, named: dict) -> None:
                with torch._C.DisableTorchFunction():
                    recorder.see(path, seen.IN, (*given, *named.values()))

            def after(_: nn.Module, given: tuple, output: object) -> None:
                with torch._C.DisableTorchFunction():  # so that no interception counts these
                    changed = [name for name, tensor in tensors.items() if tensor._version]
                    if changed and self.note is None:
                        what = changed[0] or "the batch"
                        self.note = (
                            f"the PyTorch module changes its input in place: {what}, "
                            f"seen after {path}"
                        )
                    recorder.see(path, seen.OUT, output)

            handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
            handles.append(module.register_forward_hook(after))

        for path, module in self.module.named_modules():
            if path:
                hear(path, module)
        try:
            with seen.listening(recorder):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def recorder(self, wanted: Any, told: Callable[[seen.Place], None] | None = None) -> Recorder:
        """Return what takes note of this side's layers."""
        return Recorder(wanted, self._read, told) if told else Recorder(wanted, self._read)


class Reached(Exception):
    """The layer that is looked at was computed; what follows need not be."""


def _beyond(module: nn.Module, batch: Any) -> str:
    """Return what to know of ids that no table has: which of them, and the smallest table."""
    tables = {
        name or "the table": layer.num_embeddings
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Embedding)
    }
    ids = {
        name or "the batch": int(tensor.max())
        for name, tensor in seen.leaves(batch)
        if not tensor.is_floating_point() and tensor.numel()
    }
    if not tables or not ids:
        return f"; {CLAMPED}"
    table, most = min(tables, key=tables.__getitem__), max(ids, key=ids.__getitem__)
    return f"; {CLAMPED}: {most} has {ids[most]}, and {table} has {tables[table]} rows"


def _read(tensor: Any) -> np.ndarray | None:
    with torch._C.DisableTorchFunction():  # `tap` is called outside of any hook
        return _wide(tensor)


def _wide(tensor: Tensor) -> np.ndarray:
    """Return a copy of a tensor; of bfloat16, which NumPy does not have, as float32."""
    tensor = tensor.detach().cpu()
    return np.array((tensor.float() if tensor.dtype is torch.bfloat16 else tensor).numpy())


def _restore(module: nn.Module, path: Path) -> None:
    try:
        if path.suffix == ".safetensors":
            import safetensors.torch

            state: Any = safetensors.torch.load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(f"{path}: not a readable checkpoint ({cause_of(error)})") from error
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(
            f"{path}: not a checkpoint of torch_model: {' '.join(str(error).split())[:300]}"
        ) from error
