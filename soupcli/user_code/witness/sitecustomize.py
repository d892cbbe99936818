"""Notes what a Python reads that the user's code has started: a program, or a worker of multiprocessing.

Python imports this at its start, as the first `sitecustomize` on its path (see soupcli/user_code/notes.py), and then
the one that it would have imported. A Python that is too old for soupcli runs on unwatched. The program finds the
modules that it would find otherwise: what was imported here gives way to files of the same names in its folder.
"""

import atexit
import contextlib
import importlib.machinery
import importlib.util
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
PACKAGE = os.path.dirname(os.path.dirname(HERE))  # noqa: PTH120


def _watch() -> None:
    """Begin to note; `soupcli` is loaded from where this file is, and its folder is not put on the path."""
    known, is_worker = set(sys.modules), "--multiprocessing-fork" in sys.orig_argv
    if "soupcli" not in sys.modules:
        file = os.path.join(PACKAGE, "__init__.py")  # noqa: PTH118
        spec = importlib.util.spec_from_file_location("soupcli", file, submodule_search_locations=[PACKAGE])
        assert spec is not None and spec.loader is not None
        sys.modules["soupcli"] = package = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(package)
    try:
        from soupcli.user_code import hooks, lookups, notes, openings, packages

        if notes.begin_in_child():
            atexit.register(packages.note_packages)
            atexit.register(hooks.note_openings)
            openings.watch([os.getcwd()])  # noqa: PTH109
            hooks.watch_child(is_worker=is_worker)
            lookups.watch()
    finally:
        if not is_worker:
            _give_way(set(sys.modules) - known)


def _give_way(names: set[str]) -> None:
    """Forget modules of these names when the program starts, if it would find others or none. Only then is its folder
    on the path."""
    waiting = [names]

    def heard(event: str, _: object) -> None:
        if waiting and event.startswith("cpython.run_"):
            for name in waiting.pop():
                if _is_another(name):
                    sys.modules.pop(name, None)

    sys.addaudithook(heard)


def _is_another(name: str) -> bool:
    """Whether a module of the name that is imported now would be another one than is loaded."""
    if name.partition(".")[0] == "soupcli":
        spec = importlib.machinery.PathFinder.find_spec("soupcli")
        return spec is None or spec.origin != os.path.join(PACKAGE, "__init__.py")  # noqa: PTH118
    if "." in name or sys.flags.safe_path:
        return False
    spec = importlib.machinery.PathFinder.find_spec(name, sys.path[:1])
    return spec is not None and spec.loader is not None


def _go_on() -> None:
    """Run the next `sitecustomize`, as if this one were not there. Raises ImportError, as Python expects, for none."""
    sys.path[:] = [place for place in sys.path if place != HERE]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize")
    if spec is None or spec.loader is None:
        raise ImportError("there is no other one", name="sitecustomize")
    module = importlib.util.module_from_spec(spec)
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)


if sys.version_info >= (3, 11):
    with contextlib.suppress(Exception):  # the program runs, whatever happens here
        _watch()
if __name__ == "sitecustomize":  # not a module that something else imports by its full name
    _go_on()
