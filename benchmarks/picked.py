"""The loops that a user would pick instead, of the same model on the same examples.

Each makes as many steps as it is asked for and goes on from there the next time. They shuffle by
themselves, so that their batches are others than ours, of the same size. What is not installed is
left out: `make bench` installs it (requirements/bench.in), no study needs it.
"""

import importlib.util
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

Steps = Callable[[int], None]
"""Makes so many steps, and waits for the last one."""

PACKAGES = {
    "torch": {
        "DataLoader over tensors": "torch",
        "Accelerate": "accelerate",
        "Lightning": "lightning",
        "Keras": "keras",
    },
    "jax": {"Keras": "keras"},
}
"""What each needs, by framework and name."""


def installed(framework: str) -> list[str]:
    """Return a framework's loops that can be measured here."""
    known = PACKAGES[framework].items()
    return [name for name, package in known if importlib.util.find_spec(package)]


def make(
    name: str,
    framework: str,
    recipe: Mapping[str, Any],
    state: Mapping[str, np.ndarray],
    images: np.ndarray,
    labels: np.ndarray,
) -> Steps:
    """Return a loop.

    Args:
        name: one of the framework's in `PACKAGES`.
        images: uint8 ``(N, height, width, channels)``.
        labels: int32 ``(N,)``.
    """
    pixels = images.astype(np.float32) * np.float32(2 / 255) - 1
    if name == "Keras":
        return _keras(framework, recipe, pixels, labels)
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    from benchmarks import minimal

    model, optimizer = minimal.torch_model_of(recipe, state)
    examples = TensorDataset(
        torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels).long()
    )
    loader: Any = DataLoader(examples, batch_size=recipe["global_batch"], shuffle=True)
    if name == "Lightning":
        return _lightning(model, optimizer, loader)
    return _plain(model, optimizer, loader, accelerate=name == "Accelerate")


def _plain(model: Any, optimizer: Any, loader: Any, accelerate: bool) -> Steps:
    from torch.nn import functional

    backward: Callable[[Any], None] = lambda loss: loss.backward()  # noqa: E731
    if accelerate:
        from accelerate import Accelerator

        accelerator = Accelerator(cpu=True)
        model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
        backward = accelerator.backward

    def forever() -> Iterator[Any]:
        while True:
            yield from loader

    batches = forever()

    def steps(count: int) -> None:
        for _ in range(count):
            x, y = next(batches)
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(x), y)
            backward(loss)
            optimizer.step()
        loss.item()

    return steps


class _Driven(threading.Thread):
    """A loop that its framework owns, stopped after as many steps as were asked for.

    Args:
        fit: trains for ever; calls what it is given after each step, with what its loss is in.
    """

    def __init__(self, fit: Callable[[Callable[[Any], None]], object]) -> None:
        super().__init__(daemon=True)
        self.fit = fit
        self.left = 0
        self.asked, self.made = threading.Semaphore(0), threading.Semaphore(0)
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.asked.acquire()
            self.fit(self.step)
        except BaseException as error:
            self.error = error
            self.made.release()

    def step(self, loss: Any) -> None:
        self.left -= 1
        if self.left == 0:
            float(loss)  # waits for the step
            self.made.release()
            self.asked.acquire()

    def __call__(self, count: int) -> None:
        self.left = count
        self.asked.release()
        self.made.acquire()
        if self.error is not None:
            raise self.error


def _lightning(model: Any, optimizer: Any, loader: Any) -> Steps:
    import logging

    import lightning
    from torch.nn import functional

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def training_step(self, batch: Any, index: int) -> Any:
            x, y = batch
            return functional.cross_entropy(self.model(x), y)

        def configure_optimizers(self) -> Any:
            return optimizer

    def fit(step: Callable[[Any], None]) -> None:
        class Baton(lightning.Callback):
            def on_train_batch_end(
                self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int
            ) -> None:
                step(outputs["loss"])

        trainer = lightning.Trainer(
            accelerator="cpu",
            max_epochs=-1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[Baton()],
        )
        trainer.fit(Module(), loader)

    return _Driven(fit)


def _keras(
    framework: str, recipe: Mapping[str, Any], pixels: np.ndarray, labels: np.ndarray
) -> Steps:
    os.environ["KERAS_BACKEND"] = framework  # read when it is imported
    import keras
    from keras import layers

    model = keras.Sequential(
        [
            layers.Input(pixels.shape[1:]),
            layers.Conv2D(10, 5, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(20, 5, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(50, activation="relu"),
            layers.Dense(10),
        ]
    )
    settings = recipe["optimizer"]
    model.compile(
        optimizer=keras.optimizers.SGD(settings["learning_rate"], settings["momentum"]),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )

    def fit(step: Callable[[Any], None]) -> None:
        class Baton(keras.callbacks.Callback):
            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                step(logs["loss"])

        size = recipe["global_batch"]
        model.fit(pixels, labels, size, epochs=10**9, verbose=0, callbacks=[Baton()])

    return _Driven(fit)
