"""The layers of docs/architecture.md: an import only points down, and modules do not import in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# From the top down: a room imports rooms of the lines below its own. "backbone" and "detection" are the modules at the
# top of those folders, above all their public names.
LAYERS = (
    ("tools",),
    ("reproduction", "benchmarks"),
    ("detection",),
    ("detection.engine", "detection.export"),
    ("detection.inference",),
    ("detection.weights",),
    ("detection.modeling",),
    ("detection.config", "detection.analysis"),
    ("detection.evaluation",),
    ("detection.data",),
    ("detection.coco_json",),
    ("backbone",),
    ("backbone.localization",),
    ("backbone.classification", "backbone.segmentation"),
    ("backbone.engine",),
    ("backbone.exporting", "backbone.adapters", "backbone.analysis"),
    ("backbone.weights",),
    ("backbone.networks",),
    ("backbone.common",),
)
LEVEL = {room: level for level, rooms in enumerate(reversed(LAYERS)) for room in rooms}
# They import their public names from the rooms below when these are first used.
FACADES = ("backbone", "detection")
# Small modules of detection/ that any of its rooms uses, and the two functions that start it.
SHARED = ("detection.compat", "detection.visualization", "detection.register", "detection.get_config")


def room_of(module: str) -> str | None:
    """Return the room of a module; None for other projects' modules."""
    first = module.split(".")[0]
    second = ".".join(module.split(".")[:2])
    return second if second in LEVEL else first if first in LEVEL else None


@cache
def sources() -> dict[str, ast.Module]:
    """Return the syntax tree of every module."""
    found = {}
    for top in ("tools", "reproduction", "benchmarks", "detection", "backbone"):
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts).removesuffix(".__init__")] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imports_of(module: str, node: ast.AST, *, deep: bool = True) -> Iterator[str]:
    """Yield the modules and names that a module imports; with `deep`, also those inside of functions."""
    is_package = (ROOT / module.replace(".", "/")).is_dir()
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (name.name for name in child.names)
        elif isinstance(child, ast.ImportFrom):
            parts = module.split(".")
            package = parts[: len(parts) - child.level + is_package] if child.level else []
            base = ".".join([*package, *filter(None, [child.module])])
            yield from (f"{base}.{name.name}" for name in child.names)
        elif deep or not isinstance(child, (ast.FunctionDef, ast.Lambda)):
            yield from imports_of(module, child, deep=deep)


@cache
def imported(module: str) -> tuple[str, ...]:
    """Return all that a module imports, also inside of its functions."""
    return tuple(imports_of(module, sources()[module]))


def imported_at_start(module: str) -> tuple[str, ...]:
    """Return what a module imports outside of its functions."""
    return tuple(imports_of(module, sources()[module], deep=False))


@cache
def rooms_of_public_names() -> dict[str, str]:
    """Return the room of each name that backbone/__init__.py passes on."""
    passed_on = imported_at_start("backbone")
    return {f"backbone.{name.rpartition('.')[2]}": room_of(name) for name in passed_on if room_of(name)}


def arrows() -> Iterator[tuple[str, str]]:
    """Yield (module, room that it imports)."""
    for module in sources():
        for target in imported(module):
            room = rooms_of_public_names().get(target) or room_of(target)
            if target.startswith(SHARED) or (target == "detection" and room_of(module).startswith("detection")):
                continue
            if room is not None and room != room_of(module):
                yield module, room


def test_an_import_only_points_down():
    up = {f"{module} imports {room}" for module, room in arrows() if LEVEL[room_of(module)] <= LEVEL[room]}
    assert sorted(up) == []


def test_no_module_imports_itself_through_others():
    modules = sources()
    below = {}
    for module in modules:
        # A name that is no module is one of the module before it.
        targets = {name if name in modules else name.rpartition(".")[0] for name in imported(module)}
        below[module] = set() if module in FACADES else targets & modules.keys() - {module}

    def reached(module: str) -> set[str]:
        found: set[str] = set()
        waiting = [module]
        while waiting:
            new = below[waiting.pop()] - found
            found |= new
            waiting += new
        return found

    circles = {module for module in modules if module in reached(module)}
    assert sorted(circles) == []


def test_every_room_is_in_the_layers_and_on_the_page():
    rooms = {f"{top}.{path.parent.name}" for top in FACADES for path in (ROOT / top).glob("*/__init__.py")}
    assert rooms == {room for room in LEVEL if "." in room}
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert [room for room in LEVEL if f"`{room.replace('.', '/')}/" not in page] == []


def test_detectron2_is_imported_in_detection_alone():
    users = {
        module.split(".")[0]
        for module in sources()
        if any(target.split(".")[0] == "detectron2" for target in imported(module))
    }
    # The benchmarks measure it.
    assert users <= {"detection", "benchmarks"}


def test_a_module_and_a_name_of_its_package_are_never_the_same():
    packages = [module for module in sources() if (ROOT / module.replace(".", "/") / "__init__.py").is_file()]
    public = {f"{module}.{name.rpartition('.')[2]}" for module in packages for name in imported_at_start(module)}
    assert sorted(public & sources().keys()) == []
