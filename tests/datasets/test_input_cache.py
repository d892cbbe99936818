"""Decoded inputs that are kept come back exactly, by memory map; what is damaged or half written is made again."""

from __future__ import annotations

import dataclasses
import errno
import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from soupcli.datasets import images, input_cache, text, tokens
from soupcli.datasets.input_cache import InputCache, Put
from soupcli.files.manifest import Manifest, UserReads
from soupcli.networks.network import ImageTransform
from soupcli.recipe.sets import ImagesSet, TextSet, TokensSet
from tests.datasets.test_images import decode
from tests.helpers import transformers_toys as toys
from tests.helpers.load_contexts import load_context
from tests.helpers.pictures import class_folders

N = 7


@pytest.fixture
def pictures(tmp_path: Path) -> ImagesSet:
    """A folder of pictures."""
    class_folders(tmp_path / "val", {"cat": 4, "dog": 3})
    return ImagesSet(images=tmp_path / "val")


def sees(description: str = "eight", decoder: Callable[[Any], Tensor] = decode) -> ImageTransform:
    return ImageTransform(decoder, lambda batch: batch.float() / 255, description)


def unseen(picture: Any) -> Tensor:
    raise AssertionError("decoded again")


def test_decoded_once(pictures: ImagesSet, tmp_path: Path) -> None:
    """The next run decodes nothing and has the same bytes, mapped from the one file that there is."""
    first, second = InputCache(tmp_path / "cache"), InputCache(tmp_path / "cache")
    made = images.load(pictures, sees(), cache=first)
    kept = images.load(pictures, sees(decoder=unseen), cache=second)
    assert torch.equal(made.inputs, images.load(pictures, sees()).inputs)
    assert torch.equal(made.inputs, kept.inputs)
    assert (kept.inputs.dtype, kept.labels.tolist()) == (torch.uint8, made.labels.tolist())
    assert ((first.decoded, first.cached), (second.decoded, second.cached)) == ((N, 0), (0, N))
    files = list((tmp_path / "cache").iterdir())
    assert [file.suffix for file in files] == [".safetensors"]
    assert files[0].stat().st_size < made.inputs.nbytes + 1000
    for loaded in (made, kept):
        address = loaded.inputs.data_ptr()
        spans = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
        inside = [s[-1] for s in spans if int(s[0].split("-")[0], 16) <= address < int(s[0].split("-")[1], 16)]
        assert inside == [str(files[0])]  # no second copy


def replaced(file: Path) -> Path:
    """Another picture of the same size in bytes, with the time of the old one."""
    before, content = file.stat(), bytearray(file.read_bytes())
    content[-10] ^= 1
    file.unlink()
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    return file


def removed(file: Path) -> Path:
    """The file, which is gone."""
    file.unlink()
    return file


def after(_: object, spec: ImagesSet) -> tuple[ImagesSet, ImageTransform]:
    """The set as it is after a change on the disk."""
    return spec, sees()


CHANGES: dict[str, Callable[[ImagesSet], tuple[ImagesSet, ImageTransform]]] = {
    "transform": lambda spec: (spec, sees("nine")),
    "mode": lambda spec: (spec, dataclasses.replace(sees(), mode="L")),
    "border": lambda spec: (spec.model_copy(update={"border": 2}), sees()),
    "content": lambda spec: after(replaced(spec.images / "cat/0.jpg"), spec),
    "file": lambda spec: after(removed(spec.images / "cat/0.jpg"), spec),
    "name": lambda spec: after((spec.images / "cat/0.jpg").rename(spec.images / "cat/00.jpg"), spec),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_decoded_anew(pictures: ImagesSet, change: str, tmp_path: Path) -> None:
    """Names, contents, what is cut off and the transform make another key; where the set lies and times do not."""
    images.load(pictures, sees(), cache=InputCache(tmp_path / "cache"))
    (tmp_path / "val").rename(tmp_path / "elsewhere")
    moved = ImagesSet(images=tmp_path / "elsewhere")
    os.utime(tmp_path / "elsewhere/cat/0.jpg", ns=(5, 5))
    cache = InputCache(tmp_path / "cache")
    images.load(moved, sees(), cache=cache)
    assert (cache.decoded, cache.cached) == (0, N)
    spec, how = CHANGES[change](moved)
    cache = InputCache(tmp_path / "cache")
    images.load(spec, how, cache=cache)
    assert cache.cached == 0 < cache.decoded


def test_labels_are_no_part_of_the_key(pictures: ImagesSet, tmp_path: Path) -> None:
    """The same pictures with other labels are not decoded again."""
    images.load(pictures, sees(), cache=InputCache(tmp_path / "cache"))
    relabelled = pictures.model_copy(update={"class_to_index": {"cat": 1, "dog": 0}})
    kept = images.load(relabelled, sees(decoder=unseen), cache=InputCache(tmp_path / "cache"))
    assert kept.labels.tolist() == [1, 1, 1, 1, 0, 0, 0]


def test_what_is_made_of_kept_inputs_depends_on_their_files(tmp_path: Path) -> None:
    """A later run decodes nothing, so it opens no file of the transform: its scores depend on that one all the same."""
    table, cache = tmp_path / "table.txt", tmp_path / "cache"
    table.write_text("one")
    first = Manifest(user=UserReads(seen=lambda: {table: None}, unseen=lambda: ["cat"]))
    later = Manifest()
    for manifest, made in ((first, 0), (later, 1)):
        inputs = InputCache(cache, manifest=manifest)
        inputs.made("0" * 64, lambda: {"ids": torch.arange(3)}, count=lambda _: 1, fits=lambda _: True)
        assert inputs.cached == made
        assert str(table) in dict(manifest.depends())
        assert manifest.unseen() == ("cat",)
    kept = later.depends()
    assert Manifest().holds(kept)
    table.write_text("two")
    assert not Manifest().holds(kept)


def cut_short(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


def flipped(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)


def zeroed(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-500:] = bytes(500)
    file.write_bytes(content)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def of_another_key(file: Path) -> None:
    InputCache(file.parent / "other").rows("a key", (N, 3, 8, 8), torch.uint8, lambda put: None)
    shutil.copy(file.parent / "other/a key.safetensors", file)


@pytest.mark.parametrize("damage", [cut_short, flipped, zeroed, empty, of_another_key])
def test_damaged_files_are_not_used(damage: Callable[[Path], None], pictures: ImagesSet, tmp_path: Path) -> None:
    """Whatever became of the file, inputs are right, and the next run has a whole one."""
    wanted = images.load(pictures, sees(), cache=InputCache(tmp_path / "cache")).inputs.clone()
    damage(next((tmp_path / "cache").glob("*.safetensors")))
    for cached in (0, N):
        cache = InputCache(tmp_path / "cache")
        assert torch.equal(images.load(pictures, sees(), cache=cache).inputs, wanted)
        assert cache.cached == cached


def test_killed_while_writing(tmp_path: Path) -> None:
    """A run that dies half-way leaves nothing that is used, and the next one begins in its place."""

    def dies(put: Put) -> None:
        put(0, torch.ones(3))
        os._exit(9)

    def begin() -> None:
        InputCache(tmp_path).rows("key", (4, 3), torch.float32, dies)

    process = multiprocessing.get_context("fork").Process(target=begin)
    process.start()
    process.join()
    assert process.exitcode == 9
    assert [file.name for file in tmp_path.iterdir()] == [".key.safetensors.tmp"]
    assert InputCache(tmp_path).get("key", lambda _: True) is None

    def fills(put: Put) -> None:
        for index in (0, 1):
            put(index, torch.ones(3))

    rows = InputCache(tmp_path).rows("key", (2, 3), torch.float32, fills)
    assert torch.equal(rows, torch.ones(2, 3))
    assert [file.name for file in tmp_path.iterdir()] == ["key.safetensors"]


def test_interrupted(tmp_path: Path) -> None:
    """Ctrl-C while inputs are decoded leaves no file behind."""

    def interrupted(put: Put) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        InputCache(tmp_path).rows("key", (4, 3), torch.float32, interrupted)
    assert list(tmp_path.iterdir()) == []


def test_many_processes(tmp_path: Path) -> None:
    """Of processes that want the same inputs at once, one makes them and the others wait for it."""
    made = tmp_path / "made"
    made.mkdir()

    def fill(put: Put) -> None:
        (made / str(os.getpid())).touch()
        for row in range(200):
            put(row, torch.full((50,), row))

    def want() -> None:
        rows = InputCache(tmp_path / "cache").rows("key", (200, 50), torch.int64, fill)
        os._exit(0 if bool((rows == torch.arange(200)[:, None]).all()) else 1)

    processes = [multiprocessing.get_context("fork").Process(target=want) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert [file.name for file in (tmp_path / "cache").iterdir()] == ["key.safetensors"]


def test_full_disk(pictures: ImagesSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the disk takes no more, inputs are decoded into memory, and that is said once."""
    said: list[str] = []
    cache = InputCache(tmp_path / "cache", say=said.append)
    wanted = images.load(pictures, sees()).inputs

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(input_cache, "write_at", full)
    for _ in range(2):
        assert torch.equal(images.load(pictures, sees(), cache=cache).inputs, wanted)
    assert said == [f"{tmp_path}/cache: No space left on device: decoded inputs are not kept for the next run"]
    assert list((tmp_path / "cache").iterdir()) == []


def test_nowhere_to_write(pictures: ImagesSet, tmp_path: Path) -> None:
    """A cache folder that cannot be made is no error."""
    (tmp_path / "file").write_text("")
    said: list[str] = []
    found = images.load(pictures, sees(), cache=InputCache(tmp_path / "file/cache", say=said.append))
    assert torch.equal(found.inputs, images.load(pictures, sees()).inputs)
    assert len(said) == 1


def test_sentences_and_texts(tmp_path: Path) -> None:
    """Token ids are kept too, one tokenizer's apart from another's; labels are read anew."""
    toys.bert(tmp_path / "run")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "run")
    (tmp_path / "val.csv").write_text("text,label\ngood,1\nthe film was bad,0\n")
    (tmp_path / "text.txt").write_text("the film was good and the plot was bad")
    rows, whole = TextSet(text=tmp_path / "val.csv"), TokensSet(tokens=tmp_path / "text.txt", context=4)

    def load(mark: str) -> tuple[Any, Any, tuple[int, int]]:
        cache = InputCache(tmp_path / "cache")
        sentences = text.load(rows, load_context(tokenizer, cache=cache, mark=mark))
        windows = tokens.load(whole, load_context(tokenizer, cache=cache, mark=mark))
        return sentences, windows, (cache.decoded, cache.cached)

    sentences, windows, counts = load("a")
    everything = 2 + len(windows.ids)
    assert counts == (everything, 0)
    again, same, counts = load("a")
    assert counts == (0, everything)
    assert torch.equal(again.starts, sentences.starts)
    assert all(torch.equal(again.columns[name], column) for name, column in sentences.columns.items())
    assert again.columns.keys() == sentences.columns.keys()
    assert torch.equal(again.labels, sentences.labels)
    assert torch.equal(same.ids, windows.ids)
    assert load("b")[2] == (everything, 0)


def test_what_was_unused_for_longest_is_removed(tmp_path: Path) -> None:
    """Past the limit, in the order of the last use; the newest stays, and what is mapped stays readable."""
    cache = InputCache(tmp_path)

    def keep(key: str, numbers: int = 100) -> dict[str, Tensor]:
        return cache.made(key, lambda: {"inputs": torch.arange(numbers)}, count=lambda _: numbers, fits=lambda _: True)

    def there() -> set[str]:
        return {file.stem for file in tmp_path.glob("*.safetensors")}

    keep("a")
    keep("b")
    mapped = cache.get("a", lambda _: True)
    cache.limit = 5 * next(tmp_path.glob("*.safetensors")).stat().st_size // 2
    keep("c")
    assert there() == {"a", "c"}
    keep("d", 1000)
    assert there() == {"d"}
    assert mapped is not None
    assert mapped["inputs"].tolist() == list(range(100))
    assert cache.get("a", lambda _: True) is None
