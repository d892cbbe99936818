"""Notes what a Python reads that the user's code has started: a program, or a worker of multiprocessing.

Python imports this at its start, as the first `sitecustomize` on its path (see soupcli/user_notes.py), and then the one
that it would have imported. A Python that is too old for soupcli runs on unwatched.
"""

import contextlib
import importlib.machinery
import importlib.util
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
PACKAGE = os.path.dirname(HERE)  # noqa: PTH120


def _watch() -> None:
    """Begin to note; `soupcli` is loaded from where this file is, and its folder is not put on the path."""
    if "soupcli" not in sys.modules:
        file = os.path.join(PACKAGE, "__init__.py")  # noqa: PTH118
        spec = importlib.util.spec_from_file_location("soupcli", file, submodule_search_locations=[PACKAGE])
        assert spec is not None and spec.loader is not None
        sys.modules["soupcli"] = package = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(package)
    from soupcli import user_files, user_lookups, user_notes

    if user_notes.begin_in_child():
        user_files.watch_child(is_worker="--multiprocessing-fork" in sys.orig_argv)
        user_lookups.watch()


def _go_on() -> None:
    """Run the next `sitecustomize`, as if this one were not there."""
    sys.path[:] = [place for place in sys.path if os.path.abspath(place or ".") != HERE]  # noqa: PTH100
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize")
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


if sys.version_info >= (3, 11):
    with contextlib.suppress(Exception):  # the program runs, whatever happens here
        _watch()
_go_on()
