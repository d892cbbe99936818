"""The recipes of pictures, from their own files and commands, at toy sizes: every score is the library's own."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import open_clip
import pytest
import timm
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.data import create_dataset, create_loader, create_transform, resolve_data_config
from timm.data.real_labels import RealLabelsImagenet
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from tests.conftest import Ran
from tests.helpers import imagenet_toys as imagenet
from tests.helpers import transformers_toys as toys
from tests.helpers.config_runs import CONFIGS, commands, moved, neighbours, settings
from tests.helpers.pictures import class_folders
from tests.networks.libraries.test_open_clip import CONFIG, AuthorsWrapper, folder_of

Soup = Callable[..., Ran]
MEMBERS = 3
CLOSE = 0.03  # of the spread of bfloat16 logits, whose last bits depend on the batch


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imagenet")
    imagenet.write(folder / "data")
    return folder


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture
def home(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with configs/ and data/, the working folder."""
    (tmp_path / "data").symlink_to(data / "data")
    moved(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def checked(
    soup: Soup,
    name: str,
    numbers: list[str],
    logits_of: Callable[[dict[str, Tensor]], imagenet.Logits],
    *,
    margin: float = 0.0,
) -> Any:
    """rank, uniform, greedy and eval with the recipe; the soups' scores are those of the library on the written files.

    `logits_of`: from a state dict to what the library makes of picture files. Returns greedy's report.
    """
    greedy = next(words for words in commands(name) if words[0] == "greedy")
    ckpts, out = greedy[greedy.index("--ckpts") + 1], f"configs/soup-{name.rpartition('-')[0]}"
    ran = soup(*greedy, *numbers, "--json")
    assert ran.code == 0, ran.stderr
    report = json.loads(ran.stdout)
    assert len(report["ingredients"]) == MEMBERS
    state: dict[str, Tensor] = {}
    for file in sorted(Path(out).glob("*.safetensors")):
        state |= load_file(file)
    wanted = imagenet.accuracies(Path("data"), logits_of(state), margin=margin)
    scores = {key: value["accuracy"]["value"] for key, value in report["soup"]["scores"].items()}
    assert all(wanted[key].holds(scores[key]) for key in imagenet.SETS), (wanted, scores)
    recipe = ["--recipe", f"configs/{name}.yaml", *numbers]
    ranked = json.loads(soup("rank", *recipe, "--ckpts", ckpts, "--val", "imagenet-2p", "--json").stdout)
    assert [one["path"] for one in ranked["ingredients"]] == [one["path"] for one in report["ingredients"]]
    assert scores["imagenet-2p"] >= ranked["best"]["scores"]["imagenet-2p"]["accuracy"]["value"]
    assert soup("uniform", *recipe, "--ckpts", ckpts, "--out", "mean", "--quiet").code == 0
    ran = soup("eval", *recipe, "--ckpts", out, "mean", "--val", "imagenet", "--json")
    assert ran.code == 0, ran.stderr
    again = {one["path"]: one["scores"]["imagenet"] for one in json.loads(ran.stdout)["ingredients"]}
    assert again[out]["accuracy"]["value"] == scores["imagenet"]
    return report


def test_clip(home: Path, soup: Soup) -> None:
    """The authors' files: CLIP without its text transformer and a linear head, as their wrapper's state dict."""
    args = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16},
        "text_cfg": {"context_length": 12, "vocab_size": 100, "width": 16, "heads": 2, "layers": 1},
    }
    model, _, preprocess = open_clip.create_model_and_transforms("ViT-B-32-quickgelu", **args)
    wrapper = AuthorsWrapper(model, imagenet.CLASSES).eval()
    Path("soups").mkdir()
    for number, state in enumerate(neighbours(wrapper.state_dict(), MEMBERS)):
        torch.save(state, f"soups/model_{number}.pt")

    def logits_of(state: dict[str, Tensor]) -> imagenet.Logits:
        wrapper.load_state_dict(state)

        def logits(files: Any) -> Tensor:
            with torch.inference_mode():
                made: Tensor = wrapper(torch.stack([preprocess(Image.open(file)) for file in files]))
            return made

        return logits

    numbers = settings(model__args=json.dumps(args), model__head=str(imagenet.CLASSES))
    report = checked(soup, "clip-vit-b32-imagenet", numbers, logits_of)
    assert report["uniform"] is not None
    columns = ("ImageNet2p", "ImageNet", "ImageNetV2", "ImageNetSketch", "ImageNetR", "ObjectNet", "ImageNetA")
    published = [{"model_name": f"model_{n}"} | dict.fromkeys(columns, (2, 3, 1)[n] / 4) for n in range(MEMBERS)]
    Path("individual_model_results.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in published))
    [told] = [words for words in commands("clip-vit-b32-imagenet") if "--scores" in words]
    ran = soup(*told, *numbers, "--quiet")
    assert ran.stdout.split() == [f"soups/model_{n}.pt" for n in (1, 0, 2)], ran.stderr


def test_align(home: Path, soup: Soup) -> None:
    """ALIGN with a head: an EfficientNet beside a BERT, folders as save_pretrained writes them."""
    model = toys.align(home / "start")
    head = torch.nn.Linear(16, imagenet.CLASSES)
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    state |= {f"classification_head.{name}": tensor.detach() for name, tensor in head.state_dict().items()}
    processor = transformers.AutoImageProcessor.from_pretrained("start")
    for number, own in enumerate(neighbours(state, MEMBERS)):
        (home / f"runs/{number}").mkdir(parents=True)
        for file in (home / "start").glob("*.json"):
            (home / f"runs/{number}" / file.name).write_bytes(file.read_bytes())
        save_file(own, f"runs/{number}/model.safetensors")

    def logits_of(state: dict[str, Tensor]) -> imagenet.Logits:
        parts = ("model.", "classification_head.")
        for part, module in zip(parts, (model, head), strict=True):
            module.load_state_dict({n.removeprefix(part): t for n, t in state.items() if n.startswith(part)})

        def logits(files: Any) -> Tensor:
            pixels = processor(images=[Image.open(file) for file in files], return_tensors="pt")["pixel_values"]
            with torch.inference_mode():
                embedding = model.get_image_features(pixel_values=pixels).pooler_output
                found: torch.Tensor = head(embedding / embedding.norm(dim=-1, keepdim=True))
                return found

        return logits

    checked(soup, "align-imagenet", settings(model__head=str(imagenet.CLASSES)), logits_of)


def timm_logits(model: Any, dtype: torch.dtype = torch.float32) -> Callable[[dict[str, Tensor]], imagenet.Logits]:
    """A timm network's logits, with timm's own transform at the size that it was built for."""
    size = model.patch_embed.img_size if hasattr(model, "patch_embed") else model.img_size
    height = size[0] if isinstance(size, tuple) else size
    transform = create_transform(**resolve_data_config({"input_size": (3, height, height)}, model=model))

    def logits_of(state: dict[str, Tensor]) -> imagenet.Logits:
        model.load_state_dict(state)
        model.to(dtype).eval()

        def logits(files: Any) -> Tensor:
            pixels = torch.stack([transform(Image.open(file)) for file in files])
            with torch.inference_mode():
                made: Tensor = model(pixels.to(dtype)).float()
            return made

        return logits

    return logits_of


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # timm leaves pictures to the garbage collector
def test_vit_g14(home: Path, soup: Soup) -> None:
    """ViT-G/14 in bfloat16 shards; ReaL and several labels; timm's own loader and RealLabelsImagenet agree."""
    args = {"img_size": 28, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": imagenet.CLASSES}
    model = timm.create_model("vit_gigantic_patch14_224", **args).to(torch.bfloat16)
    for number, state in enumerate(neighbours(model.state_dict(), MEMBERS)):
        model.load_state_dict(state)
        Path(f"runs/{number}").mkdir(parents=True)
        huggingface_hub.save_torch_model(model, f"runs/{number}", max_shard_size="40KB", metadata={"format": "pt"})
        assert Path(f"runs/{number}/model.safetensors.index.json").is_file()
    numbers = settings(**{f"model__args__{key}": str(value) for key, value in args.items()}, max_shard_size="40KB")
    logits_of = timm_logits(model, torch.bfloat16)
    report = checked(soup, "vit-g14-imagenet", numbers, logits_of, margin=CLOSE)
    assert report["soup"]["dtypes"] == {"bfloat16": len(model.state_dict())}
    assert "model.safetensors.index.json" in report["soup"]["files"]
    scores = {name: score["accuracy"]["value"] for name, score in report["soup"]["scores"].items()}
    state = {name: t for f in Path("configs/soup-vit-g14").glob("*.safetensors") for name, t in load_file(f).items()}
    logits = logits_of(state)
    for name in ("real", "multilabel"):
        assert imagenet.in_any(Path(f"data/{name}.json"), Path("data"), logits, margin=CLOSE).holds(scores[name])
    validated_real, validated_plain = validated(model, Path("data/imagenet/val"), Path("data/real.json"))
    doubt = imagenet.in_any(Path("data/real.json"), Path("data"), logits, margin=CLOSE)
    assert scores["real"] == pytest.approx(validated_real, abs=doubt.high - doubt.low + 1e-9)
    plain = imagenet.accuracies(Path("data"), logits, margin=CLOSE)["imagenet"]
    assert scores["imagenet"] == pytest.approx(validated_plain, abs=plain.high - plain.low + 1e-9)


def validated(model: Any, images: Path, real_json: Path) -> tuple[float, float]:
    """ReaL and plain accuracy as timm's validate.py computes them: its data set, loader, and ReaL evaluator."""
    config = resolve_data_config({"input_size": (3, 28, 28)}, model=model)
    dataset = create_dataset("", root=str(images))
    loader = create_loader(
        dataset,
        batch_size=5,
        num_workers=0,
        use_prefetcher=False,
        device=torch.device("cpu"),
        **{key: config[key] for key in ("input_size", "interpolation", "mean", "std", "crop_pct")},
    )
    real = RealLabelsImagenet(dataset.filenames(basename=True), real_json=str(real_json))
    right = count = 0
    with torch.inference_mode():
        for pixels, labels in loader:
            output = model(pixels.to(torch.bfloat16))
            real.add_result(output)
            right += int((output.argmax(dim=1) == labels).sum())
            count += len(labels)
    return real.get_accuracy(k=1) / 100, right / count


def test_basic_l(home: Path, soup: Soup) -> None:
    """A CoAtNet by timm's own saver; operations are torch's count, N times that for an ensemble, CoAtNet-7's beside."""
    args = {"img_size": 64, "num_classes": imagenet.CLASSES, "stem_width": 8}
    shape = {"embed_dim": [8, 8, 32, 32], "depths": [1, 1, 1, 1]}
    model = timm.create_model("coatnet_5_224", **args, **{key: tuple(value) for key, value in shape.items()}).eval()
    for number, state in enumerate(neighbours(model.state_dict(), MEMBERS)):
        model.load_state_dict(state)
        given_to_timm = args | {key: tuple(value) for key, value in shape.items()}
        timm.models.save_for_hf(model, f"runs/{number}", model_args=given_to_timm, safe_serialization=True)
    given = {f"model__args__{key}": str(value) for key, value in (args | shape).items()}
    report = checked(soup, "basic-l-imagenet", settings(**given), timm_logits(model))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 64, 64))
    forward, members = counter.get_total_flops(), len(report["soup"]["members"])
    found = report["flops"]
    assert (found["forward"], found["ensemble"]) == (forward, MEMBERS * forward)
    assert found["ensemble_of_members"] == members * forward
    assert list(found["beside"].values()) == [5.172e12]
    loaded = timm.create_model("local-dir:configs/soup-basic-l", pretrained=True).eval()
    pixels = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(loaded(pixels), model(pixels))  # `checked` left the soup's weights in it


def test_zero_shot_transfer(tmp_path: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads of other classes are left out: bodies are mixed, the head is the zero-shot one of the set's own names."""
    moved(tmp_path)
    monkeypatch.chdir(tmp_path)
    names = ["good film", "bad", "the plot", "very good"]
    start = folder_of(tmp_path / "clip", CONFIG)
    (tmp_path / "data/cifar100").mkdir(parents=True)
    (tmp_path / "data/cifar100/names.txt").write_text("".join(f"{name}\n" for name in names))
    for part in ("heldout", "test"):
        class_folders(tmp_path / f"data/cifar100/{part}", {str(k): 3 for k in range(len(names))})
    [script] = commands("zero-shot-transfer", "python")
    words = [word.replace("/data/", "data/") for word in script if word not in ("--pretrained", "openai")]
    monkeypatch.setattr("sys.argv", [word.replace("ViT-B-32-quickgelu", f"local-dir:{start}") for word in words])
    runpy.run_path(str(CONFIGS / "zero_shot_head.py"), run_name="__main__")
    base = torch.load("zero-shot/cifar100.pt")
    model = open_clip.create_model(f"local-dir:{start}")
    built = open_clip.build_zero_shot_classifier(
        model.eval(), open_clip.get_tokenizer(f"local-dir:{start}"), names, ["a photo of a {}."]
    )
    assert torch.equal(base["classification_head.weight"], (model.logit_scale.exp() * built).T)
    model, _, preprocess = open_clip.create_model_and_transforms("ViT-B-32-quickgelu", **CONFIG)
    wrapper = AuthorsWrapper(model, len(names)).eval()
    Path("runs").mkdir()
    body = {name: tensor for name, tensor in base.items() if name.startswith("model.")}
    for number, state in enumerate(neighbours(body, 4)):
        head = torch.nn.Linear(16, 3 + number)
        own = {f"classification_head.{name}": tensor.detach() for name, tensor in head.state_dict().items()}
        torch.save(state | own, f"runs/{number}.pt")
    numbers = settings(model__args=json.dumps(CONFIG), model__head=str(len(names)))
    report: dict[str, Any] = {}
    for command in commands("zero-shot-transfer"):
        ran = soup(*command, *numbers, "--json", "--force")
        assert ran.code == 0, ran.stderr
        report = json.loads(ran.stdout)
        assert report["soup"]["not_mixed"] == ["classification_head.bias", "classification_head.weight"]
        written = load_file("configs/soup-zero-shot/model.safetensors")
        assert torch.equal(written["classification_head.weight"], base["classification_head.weight"])
        members = [torch.load(path) for path in report["soup"]["members"]]
        mean = torch.stack([m["model.visual.proj"].double() for m in members]).mean(dim=0)
        assert torch.equal(written["model.visual.proj"], mean.float())
        wrapper.load_state_dict(written)
        files = sorted(Path("data/cifar100/test").glob("*/*"))
        with torch.inference_mode():
            guessed = wrapper(torch.stack([preprocess(Image.open(file)) for file in files])).argmax(dim=1).tolist()
        right = sum(g == int(file.parent.name) for g, file in zip(guessed, files, strict=True))
        assert report["soup"]["scores"]["cifar100"]["accuracy"]["value"] == right / len(files)
    assert len(report["steps"]) == 4
