"""What a route is: from the arrays of a batch to logits, from host memory to host memory."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lockstep.errors import UserError

Arrays = Mapping[str, np.ndarray]
Answer = Callable[[Arrays], np.ndarray]
"""From arrays ``(B, …)`` by name to logits ``(B, …)``."""

OUTPUT = "logits"


def reads(answer: Callable[[Arrays], Any], batch: Arrays) -> list[str]:
    """Return the names of those arrays of a batch without which there is no answer.

    Labels and weights are in a batch, too: they are no part of a question.

    Raises:
        UserError: the model gives no logits.
    """
    found = []
    for name in batch:
        try:
            answer({other: array for other, array in batch.items() if other != name})
        except KeyError as error:
            if error.args == (OUTPUT,):
                raise UserError(f"the model has no output called {OUTPUT!r}") from error
            found.append(name)
    return found
