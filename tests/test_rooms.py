"""Imports between the rooms of the house go one way."""

import graphlib

from lockstep import code

ROOMS = {path.name for path in code.PACKAGE.iterdir() if (path / "__init__.py").is_file()}


def _room(module: str) -> str | None:
    return next((part for part in module.split(".")[1:2] if part in ROOMS), None)


def test_no_room_imports_another_that_imports_it() -> None:
    """Modules outside any room, such as `lockstep.files`, are left out: they are for all."""
    rooms: dict[str, set[str]] = {room: set() for room in ROOMS}
    for module in code.modules():
        room = _room(module)
        if room:
            used = map(_room, code._imports(module, code.PACKAGE))
            rooms[room] |= {other for other in used if other and other != room}
    order = list(graphlib.TopologicalSorter(rooms).static_order())  # raises for a circle
    assert order.index("datasets") < order.index("study") < order.index("training")
    assert order.index("parity") < order.index("report") < order.index("archive")
    assert rooms["port"] <= {"parity", "workloads", "datasets"}  # which need no study
    assert not any("port" in used for used in rooms.values())
