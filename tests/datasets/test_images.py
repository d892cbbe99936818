"""Sets of pictures: which file has which label, decoded in order, and errors that name the file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets import ImageFolder
from torchvision.transforms.functional import pil_to_tensor

from soupcli.datasets import images
from soupcli.errors import ValidationError
from soupcli.networks.network import IMAGE_FOLDER, ImageTransform, Outline
from soupcli.recipe.sets import ImagesSet
from tests.helpers.pictures import class_folders, noise


def decode(picture: Any) -> Tensor:
    """8 x 8 pixels."""
    made: Tensor = pil_to_tensor(picture.resize((8, 8)))
    return made


EIGHT = ImageTransform(decode, lambda pictures: pictures.float() / 255, "eight")


def labels_of(folder: Path, **options: Any) -> list[int]:
    """The labels of a folder's pictures in their order."""
    outline = Outline(options.pop("folders", IMAGE_FOLDER), options.pop("label_names", None))
    labels: list[int] = images.load(ImagesSet(images=folder, **options), EIGHT, outline=outline).labels.tolist()
    return labels


@pytest.mark.parametrize("workers", [None, 0, 1, 5])
def test_equals_image_folder(workers: int | None, tmp_path: Path) -> None:
    """JPEG, PNG and WebP, by any number of threads: files, labels and pixels of torchvision's ImageFolder."""
    made = class_folders(tmp_path, {"cat": 6, "dog": 5, "a wolf": 1})
    wanted = ImageFolder(str(tmp_path), transform=decode)
    assert [path for path, _ in made] == [Path(path) for path, _ in wanted.samples]
    found = images.load(ImagesSet(images=tmp_path), EIGHT, workers=workers)
    assert found.labels.tolist() == wanted.targets
    assert torch.equal(found.inputs, torch.stack([pixels for pixels, _ in wanted]))
    assert found.inputs.dtype == torch.uint8
    batch = found.batch(torch.tensor([4, 2]), torch.device("cpu"))
    assert torch.equal(batch, found.inputs[[4, 2]].float() / 255)


def test_below_class_folders(tmp_path: Path) -> None:
    """Pictures deeper in a class folder are of that class; hidden files, hidden folders and other files are none."""
    noise(tmp_path / "cat/2020/a.png")
    noise(tmp_path / "dog/b.png")
    for hidden in (".cache/c.png", "cat/.thumbs/d.png", "dog/._b.png"):
        noise(tmp_path / hidden)
    (tmp_path / "dog/readme.txt").write_text("no picture")
    noise(tmp_path / "loose.png")
    assert labels_of(tmp_path) == [0, 1]


def test_numbered_folders(tmp_path: Path) -> None:
    """Folders that are numbers are counted as texts by torchvision, as its networks learned them: 10 comes before 2."""
    for number in range(11):
        noise(tmp_path / f"{number}/a.png")
    assert labels_of(tmp_path) == list(range(11))  # pictures are sorted by path


def test_names_of_the_network(tmp_path: Path) -> None:
    """Folders have the label of the network's name for them; without names they are counted."""
    class_folders(tmp_path, {"dog": 1, "emu": 2})
    assert labels_of(tmp_path, label_names=("emu", "cat", "dog")) == [2, 0, 0]
    assert labels_of(tmp_path) == [0, 1, 1]
    assert labels_of(tmp_path, label_names=("emu", "cat", "dog"), class_to_index={"dog": 1, "emu": 0}) == [1, 0, 0]


def test_class_to_index(tmp_path: Path) -> None:
    """The recipe may say which folder is which; a folder that it does not know is an error with the nearest name."""
    class_folders(tmp_path, {"cat": 1, "dog": 1})
    assert labels_of(tmp_path, class_to_index={"cat": 7, "dog": 3, "emu": 0}) == [7, 3]
    with pytest.raises(ValidationError, match=r"dog: class_to_index has no 'dog', did you mean 'dogs'\?"):
        labels_of(tmp_path, class_to_index={"cat": 0, "dogs": 1})


def test_grey(tmp_path: Path) -> None:
    """Pictures are converted to what the network sees: one channel, where it has one."""
    class_folders(tmp_path, {"cat": 1})
    found = images.load(ImagesSet(images=tmp_path), ImageTransform(decode, EIGHT.normalise, "grey", "L"))
    assert found.inputs.shape == (1, 1, 8, 8)


def test_palettes_and_transparency(tmp_path: Path) -> None:
    """Pictures of other modes become RGB, as PIL converts them."""
    for mode in ("L", "P", "RGBA", "1"):
        noise(tmp_path / f"cat/{mode}.png", mode=mode)
    found = images.load(ImagesSet(images=tmp_path), EIGHT)
    wanted = [decode(Image.open(tmp_path / f"cat/{mode}.png").convert("RGB")) for mode in ("1", "L", "P", "RGBA")]
    assert torch.equal(found.inputs, torch.stack(wanted))


def test_no_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture that has the network's mode is in memory once: one of 81 million pixels takes 324 MB."""

    def copied(picture: Any) -> Any:
        raise AssertionError(f"{picture} was copied")

    noise(tmp_path / "cat/a.png", mode="RGB")
    wanted = decode(Image.open(tmp_path / "cat/a.png"))
    monkeypatch.setattr(Image.Image, "copy", copied)
    assert torch.equal(images.load(ImagesSet(images=tmp_path), EIGHT).inputs[0], wanted)


def broken_text(file: Path) -> None:
    file.write_text("no picture")


def broken_short(file: Path) -> None:
    file.write_bytes(noise(file.with_name("whole.jpg")).read_bytes()[:400])
    file.with_name("whole.jpg").unlink()


def broken_empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("broken", [broken_text, broken_short, broken_empty])
@pytest.mark.parametrize("name", ["0.jpg", "9.jpg"])
def test_not_a_picture(broken: Any, name: str, tmp_path: Path) -> None:
    """A file that is no picture, or half of one, is an error that names it, the first one or a later one."""
    class_folders(tmp_path, {"cat": 3})
    (tmp_path / "cat/0.jpg").rename(tmp_path / "cat/5.jpg")
    broken(tmp_path / "cat" / name)
    with pytest.raises(ValidationError, match=rf"cat/{name}: not a readable picture: "):
        labels_of(tmp_path)


def test_formats_are_named(tmp_path: Path) -> None:
    """A picture in another format is an error that says which ones are read; JPEG's of several pictures is read."""
    class_folders(tmp_path, {"cat": 2})
    picture = Image.new("RGB", (8, 8), "red")
    picture.save(tmp_path / "cat/5.jpg", format="MPO", save_all=True, append_images=[picture])
    assert len(labels_of(tmp_path)) == 3
    (tmp_path / "cat/5.jpg").write_text("<svg/>")
    with pytest.raises(ValidationError, match="not a readable picture: none of JPEG, PNG, WEBP"):
        labels_of(tmp_path)


def test_transforms_that_do_not_fit(tmp_path: Path) -> None:
    """A transform that fails, or makes pictures of several sizes, is an error that names the file."""
    class_folders(tmp_path, {"cat": 3})

    def fails(picture: Any) -> Tensor:
        raise KeyError("crop")

    def whole(picture: Any) -> Tensor:
        made: Tensor = pil_to_tensor(picture)
        return made

    for transform, message in (
        (fails, r"cat/0\.jpg: the network's transform fails: KeyError: 'crop'"),
        (whole, r"cat/1\.png: becomes torch\.uint8 \[3, 35, 47\], .*cat/0\.jpg torch\.uint8 \[3, 30, 40\]"),
    ):
        with pytest.raises(ValidationError, match=message):
            images.load(ImagesSet(images=tmp_path), ImageTransform(transform, EIGHT.normalise, "bad"))


def test_empty(tmp_path: Path) -> None:
    """A folder that is not there, and one without pictures, are errors that say what is needed."""
    with pytest.raises(ValidationError, match="nowhere: no such folder"):
        labels_of(tmp_path / "nowhere")
    for content in ("cat/readme.txt", "loose.png"):
        (tmp_path / "cat").mkdir(exist_ok=True)
        (tmp_path / content).write_text("")
        with pytest.raises(ValidationError, match="holds no pictures"):
            labels_of(tmp_path)


def test_fingerprint(tmp_path: Path) -> None:
    """It changes with names, contents and labels, and not with times or with where the folder lies."""
    class_folders(tmp_path / "a", {"cat": 2, "dog": 2})
    spec = ImagesSet(images=tmp_path / "a")
    marks = [
        images.fingerprint(spec),
        images.fingerprint(ImagesSet(images=spec.images, class_to_index={"cat": 1, "dog": 0})),
    ]
    os.utime(tmp_path / "a/cat/0.jpg", ns=(0, 0))
    assert images.fingerprint(spec) == marks[0]
    (tmp_path / "a/cat/0.jpg").rename(tmp_path / "a/cat/7.jpg")
    marks.append(images.fingerprint(spec))
    (tmp_path / "a/cat/7.jpg").write_bytes(b"longer or shorter")
    os.utime(tmp_path / "a/cat/7.jpg", ns=(0, 0))
    marks.append(images.fingerprint(spec))
    (tmp_path / "a/bird").mkdir()
    marks.append(images.fingerprint(spec))
    assert len(set(marks)) == len(marks)
    (tmp_path / "a").rename(tmp_path / "b")
    assert images.fingerprint(ImagesSet(images=tmp_path / "b")) == marks[-1]


def test_folders_are_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of pictures that were found before, the folders are listed once more for their content, each by one look."""
    class_folders(tmp_path, {"cat": 2, "dog": 1})
    spec = ImagesSet(images=tmp_path)
    found = images.find(spec)
    listed: list[str] = []
    whole = os.scandir

    def counted(folder: Any) -> Any:
        listed.append(Path(folder).name)
        return whole(folder)

    monkeypatch.setattr(os, "scandir", counted)
    images.load(spec, EIGHT, workers=0, found=found)
    assert sorted(name for name in listed if name in ("cat", "dog")) == ["cat", "dog"]
