"""The floor plan, read from the imports: who may know whom, who prints, who opens files."""

from __future__ import annotations

import ast
import functools
import re
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "soupcli"
README = (ROOT / "README.md").read_text("utf-8")

# From low to high. A file imports from its own room and from floors below.
PLAN = (
    "late",
    "__init__ errors progress threads wording environment processes",
    "files",
    "user_code recipe metrics",
    "report checkpoints",
    "mixing",
    "networks figures demo",
    "datasets",
    "evaluation",
    "soups diagnosis",
    "output",
    "cli",
    "run",
    "commands",
    "api",
    "__main__",
)
FLOORS = {name: number for number, names in enumerate(PLAN) for name in names.split()}
# The first may know the second although the plan does not allow it.
ALLOWED = {
    ("__init__", "api"),  # for type checkers; it is imported when one of its functions is asked for
    ("environment", "errors"),
    ("processes", "errors"),
    ("checkpoints", "mixing"),  # rounding alone
}
CORE = {"torch", "typer", "rich", "safetensors", "yaml", "pydantic"}
OPENING = {"open", "read_text", "read_bytes", "write_text", "write_bytes", "mkdir", "unlink", "rename", "replace"}
PRINTING = {"print", "pprint", "echo", "secho", "warnings.warn"}
PRINTING |= {f"sys.{s}.{write}" for s in ("stdout", "stderr") for write in ("write", "writelines", "buffer.write")}


@functools.cache
def trees() -> dict[Path, ast.Module]:
    """What each file of the package says, read by whichever process tests it."""
    return {file: ast.parse(file.read_text("utf-8")) for file in sorted(PACKAGE.rglob("*.py"))}


@pytest.fixture(scope="module", autouse=True)
def _forgotten() -> Iterator[None]:
    """The garbage collector need not look through millions of nodes for the tests of other files."""
    yield
    for kept in (trees, nodes, imports):
        kept.cache_clear()


def room(file: Path) -> str:
    """The part of the package that a file belongs to: a folder's name, or its own."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


@functools.cache
def nodes(tree: ast.AST) -> tuple[ast.AST, ...]:
    """The code's statements and expressions, and all that is in them."""
    return tuple(ast.walk(tree))


@functools.cache
def imports(tree: ast.AST, file: Path) -> tuple[str, ...]:
    """Dotted names of all modules that the code imports, wherever it does; names taken from them as well."""
    found: list[str] = []
    for node in nodes(tree):
        if isinstance(node, ast.Import):
            found += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(file)}:{node.lineno}: a relative import"
            found += (f"{node.module}.{alias.name}" for alias in node.names)
    return tuple(found)


def imports_at_once(tree: ast.Module, file: Path) -> Iterator[str]:
    """What is imported when the module is; what stands in a function or under TYPE_CHECKING is not."""
    waiting: list[ast.stmt] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            waiting.extend(node.orelse)
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from imports(node, file)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting.extend(child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt))


def calls(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Names of what is called: the last part of a dotted name, or all of it for what belongs to sys or warnings."""
    for node in nodes(tree):
        if isinstance(node, ast.Call):
            dotted = ast.unparse(node.func)
            yield (dotted if dotted.startswith(("sys.", "warnings.")) else dotted.rpartition(".")[2]), node.lineno


def test_every_room_has_a_floor() -> None:
    """The plan above names every part of the package, and nothing that is not there."""
    assert {room(file) for file in trees()} == set(FLOORS)


def test_imports_go_down() -> None:
    """A file imports from its own room and from floors below; rooms on one floor do not know each other."""
    for file, tree in trees().items():
        here = room(file)
        for module in imports(tree, file):
            first, _, rest = module.partition(".")
            there = rest.partition(".")[0]
            if first == "soupcli" and there not in (here, "__version__"):
                below = FLOORS[there] < FLOORS[here] or (here, there) in ALLOWED
                assert below, f"{name_of(file)} (floor {FLOORS[here]}) imports {module} (floor {FLOORS[there]})"


def graph() -> dict[Path, set[Path]]:
    """File -> files of ours that it imports, wherever it does."""
    found: dict[Path, set[Path]] = {}
    for file, tree in trees().items():
        modules = [ROOT / module.replace(".", "/") for module in imports(tree, file) if module.startswith("soupcli.")]
        paths = [path for one in modules for path in (one.with_suffix(".py"), one.parent.with_suffix(".py"))]
        paths += [one / "__init__.py" for one in modules]
        found[file] = {path for path in paths if path in trees()} - {file}
    return found


def test_no_class_name_twice() -> None:
    """One word, one thing: no class name is defined in two files."""
    files: dict[str, set[str]] = {}
    for file, tree in trees().items():
        for node in nodes(tree):
            if isinstance(node, ast.ClassDef):
                files.setdefault(node.name, set()).add(name_of(file))
    assert not (twice := {name: where for name, where in files.items() if len(where) > 1}), twice


def test_files_are_named_for_nouns() -> None:
    """No file is called by a bare gerund or participle, but for words of the field and the plan's own."""
    field = {"torch_distributed", "learned", "budgeted", "pruned", "ranking", "weighted", "rounding"}
    plan = {"parsing", "reading", "unfinished", "wording"}
    named = {file.stem for file in trees() if file.stem.endswith(("ing", "ed"))}
    assert named <= field | plan, named - field - plan


def test_files_are_short() -> None:
    """No file has more than 350 lines: a longer one is divided along its seams."""
    long = {name_of(file): lines for file in trees() if (lines := len(file.read_text("utf-8").splitlines())) > 350}
    assert not long, long


def test_no_circle_of_files() -> None:
    """No file imports, through whatever others, itself: files without imports are taken off until none is left."""
    left = graph()
    while alone := {file for file, imported in left.items() if not imported}:
        left = {file: imported - alone for file, imported in left.items() if file not in alone}
    assert not left, f"a circle is among {sorted(map(name_of, left))}"


def test_no_circles() -> None:
    """No file imports, over others, a file that imports it, whatever stands in a function or for types alone."""
    waiting = {file: {needed for needed in files_imported(file) if needed != file} for file in trees()}
    while free := {file for file, needs in waiting.items() if not needs & waiting.keys()}:
        waiting = {file: needs for file, needs in waiting.items() if file not in free}
    assert not waiting, f"a circle among {sorted(map(name_of, waiting))}"


def files_imported(file: Path) -> Iterator[Path]:
    """Files of ours that a file imports."""
    for module in imports(trees()[file], file):
        path = ROOT / module.replace(".", "/")
        yield from (one for one in (path.with_suffix(".py"), path.parent.with_suffix(".py")) if one in trees())


def test_readme_shows_the_folders() -> None:
    """README's tree has a line for every folder of the package, and for none that is not there."""
    tree = README.partition("## Architecture")[2].split("```")[1]
    shown: list[str] = []
    for line in tree.splitlines():
        name, depth = line.split()[0] if line.strip() else "", (len(line) - len(line.lstrip())) // 2
        if name.endswith("/"):
            shown = [*shown, "/".join([*_parents(shown, depth), name[:-1]])]
    folders = {"tests", *(name_of(file.parent) for file in trees())}
    assert set(shown) == folders and len(shown) == len(folders)


def _parents(shown: Sequence[str], depth: int) -> list[str]:
    return shown[-1].split("/")[:depth] if depth else []


def test_readme_names_files_that_are_there() -> None:
    """Every file that README's architecture names, in links, code and tables, exists."""
    text = README.partition("## Architecture")[2]
    for name in re.findall(r"\]\(([\w/.]+)\)", text):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"`([\w/]+(?:\.py|/))`", text):
        known = (ROOT / name).exists() or (PACKAGE / name).exists()
        assert known or ("NAME" in name and (PACKAGE / name).parent.is_dir()), name


def test_tests_mirror_the_rooms() -> None:
    """A folder of tests is named as the room that it tests; few are of what lies outside the package."""
    tests = {str(file.parent.relative_to(ROOT / "tests")) for file in (ROOT / "tests").rglob("*.py")}
    rooms = {str(file.parent.relative_to(PACKAGE)) for file in trees()}
    assert tests - rooms == {"helpers", "helpers/former_names", "configs", "docs", "layouts", "torture"}


def test_only_the_console_prints() -> None:
    """Only output/console.py writes to a stream; it and the bars know rich. Typer's own echo answers --version."""
    for file, tree in trees().items():
        if name_of(file) == "soupcli/output/console.py":
            continue
        allowed = {"echo"} if name_of(file) == "soupcli/cli/app.py" else set()
        for called, line in calls(tree):
            assert called not in PRINTING - allowed, f"{name_of(file)}:{line} calls {called}"
        used = {module.partition(".")[0] for module in imports(tree, file)}
        known = {"rich"} if name_of(file) == "soupcli/output/progress_bars.py" else set()
        assert not used & {"rich", "logging"} - known, name_of(file)


def test_wording_alone_suggests() -> None:
    """The nearest known word comes from wording.py: one rule for every "did you mean"."""
    users = {
        name_of(file) for file, tree in trees().items() if any(m.startswith("difflib") for m in imports(tree, file))
    }
    assert users == {"soupcli/wording.py"}


def test_only_the_command_line_knows_typer() -> None:
    """Typer stays in cli/; nobody imports click, or what Typer keeps to itself."""
    for file, tree in trees().items():
        for module in imports(tree, file):
            parts = module.split(".")
            assert parts[0] != "click", name_of(file)
            if parts[0] == "typer":
                assert room(file) == "cli", f"{name_of(file)} imports {module}"
                assert not any(part.startswith("_") for part in parts), f"{name_of(file)} imports {module}"


def test_soups_open_nothing() -> None:
    """What the paper describes knows no files: soups/ reads from checkpoints and evaluations alone."""
    for file, tree in trees().items():
        if room(file) == "soups":
            assert not [called for called, _ in calls(tree) if called in OPENING], name_of(file)
            used = {module.partition(".")[0] for module in imports(tree, file)}
            assert not used & {"os", "io", "pathlib", "shutil", "tempfile", "sys", "argparse"}, name_of(file)


def test_optional_extras_are_imported_late() -> None:
    """Importing any module needs the core dependencies alone; demo/ is an extra itself."""
    for file, tree in trees().items():
        for module in imports_at_once(tree, file):
            first = module.partition(".")[0]
            core = first in CORE or first == "soupcli" or first in sys.stdlib_module_names
            assert core or room(file) == "demo", f"{name_of(file)} imports {module} when it is imported"


def files_at_once(*files: Path) -> set[Path]:
    """The files, and all of ours that are imported with them."""
    waiting, found = list(files), set()
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            for module in imports_at_once(trees()[file], file):
                path = ROOT / module.replace(".", "/")
                waiting += [one for one in (path.with_suffix(".py"), path.parent.with_suffix(".py")) if one in trees()]
    return found


def test_help_needs_no_torch() -> None:
    """What `soup --help` imports is light: no torch, pydantic or rich, and nothing of ours that imports them."""
    for file in sorted(files_at_once(PACKAGE / "cli/app.py")):
        for module in imports_at_once(trees()[file], file):
            assert module.partition(".")[0] not in CORE - {"typer"}, f"{name_of(file)} imports {module}"


def test_importing_a_command_imports_no_torch() -> None:
    """Commands import torch when they compute: none of their files does so at once, nor any that they import at once.

    Files that extend classes of torch, and those of the demos, are imported in functions, as pyproject.toml says.
    """
    for file in sorted(files_at_once(PACKAGE / "api.py", *(PACKAGE / "commands").glob("*.py"))):
        heavy = [module for module in imports_at_once(trees()[file], file) if module.split(".")[0] == "torch"]
        assert not heavy, f"{name_of(file)} imports {heavy[0]}: from soupcli.late import torch"


def test_files_are_read_up_to_a_size() -> None:
    """Pipes, devices and very large files end no run: outside of files/ whole files are read by `read_small` alone."""
    for file, tree in trees().items():
        if room(file) not in ("files", "demo"):
            found = [node for node in nodes(tree) if isinstance(node, ast.Attribute) and node.attr == "read_bytes"]
            assert not found, f"{name_of(file)}:{found[0].lineno}: read_small(path, most=...) reads up to a size"


def test_temporary_files_are_found_again() -> None:
    """A killed run cannot remove its temporary files: all have the names that files/unfinished.py knows and removes."""
    users = {name_of(file) for file, tree in trees().items() if "tempfile" in set(imports(tree, file))}
    assert users == {"soupcli/files/unfinished.py"}


def test_core_dependencies() -> None:
    """The distribution needs the six packages of the contract and no other."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    names = {requirement.split(">")[0] for requirement in project["dependencies"]}
    assert names == {"torch", "typer", "rich", "safetensors", "pyyaml", "pydantic"}
