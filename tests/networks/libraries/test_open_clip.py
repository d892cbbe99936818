"""open_clip's networks, preprocessing and zero-shot classifiers are open_clip's own, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.push_to_hf_hub import save_config_for_hf
from open_clip.transform import PreprocessCfg
from PIL import Image
from safetensors.torch import save_file

from soupcli.checkpoints.open import open_checkpoint
from soupcli.errors import NetworkError
from soupcli.networks.build import build
from soupcli.networks.libraries.open_clip import OF_OPENAI, other_inputs, unlike
from soupcli.networks.network import Network
from soupcli.recipe.networks import OpenClipNetwork
from tests.helpers.network_toys import assert_same, loaded, randomised
from tests.helpers.pictures import noise
from tests.helpers.transformers_toys import bert_tokenizer

CONFIG: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
OF_WORDS = CONFIG | {"text_cfg": CONFIG["text_cfg"] | {"vocab_size": 64, "hf_tokenizer_name": "any/name"}}
PREPROCESSING = {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7), "interpolation": "bilinear", "resize_mode": "squash"}
CLASSES = ["film", "good plot", "bad"]
TEMPLATES = ["a {}", "the very {}.", "{}"]


def folder_of(folder: Path, config: dict[str, Any], **options: Any) -> Path:
    """A folder as open_clip saves it, with weights that are not the initial ones."""
    folder.mkdir(parents=True)
    bert_tokenizer(folder, model_max_length=77)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False, **options)
    save_file(randomised(model).state_dict(), folder / "open_clip_model.safetensors")
    save_config_for_hf(model, folder / "open_clip_config.json", config)
    return folder


def opened(folder: Path, name: str = "auto", **args: Any) -> Network:
    """The network of the folder."""
    return build(OpenClipNetwork(open_clip=name, args=args), open_checkpoint(folder))


@pytest.mark.parametrize("config", [CONFIG, OF_WORDS], ids=["clip_tokenizer", "tokenizer_of_the_folder"])
def test_equals_open_clip(config: dict[str, Any], tmp_path: Path) -> None:
    """Weights, inputs and zero-shot logits have the bits of create_model_and_transforms and its classifier."""
    folder = folder_of(tmp_path / "run", config, force_preprocess_cfg=PREPROCESSING)
    reference, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    reference.eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    network = opened(folder)
    assert all(parameter.is_meta for parameter in network.module.parameters())
    loaded(network, folder)
    assert_same(network.module, reference)
    pictures = [Image.open(noise(tmp_path / f"{i}.png", size=(50, 40 + 30 * i), seed=i)) for i in range(3)]
    assert network.pictures is not None
    decoded = torch.stack([network.pictures.decode(picture.convert("RGB")) for picture in pictures])
    assert decoded.dtype == torch.uint8
    inputs = network.pictures.normalise(decoded)
    whole = torch.stack([preprocess(picture) for picture in pictures])
    assert torch.equal(inputs, whole)
    assert network.zero_shot is not None
    with torch.inference_mode():
        classifier = open_clip.build_zero_shot_classifier(reference, tokenizer, CLASSES, TEMPLATES)
        features = reference.encode_image(whole, normalize=True)
        wanted = reference.logit_scale.exp() * features @ classifier
        assert torch.equal(network.zero_shot(network.module, CLASSES, TEMPLATES)(inputs), wanted)
    assert wanted.shape == (3, 3)


def test_folder_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two folders of one name, one of them the working folder, keep their configurations apart."""
    for parent, config in (("a", CONFIG), ("b", CONFIG | {"embed_dim": 8})):
        folder_of(tmp_path / parent / "run", config)
    monkeypatch.chdir(tmp_path / "a/run")
    for path, width in ((Path(), 16), (tmp_path / "b/run", 8)):
        assert loaded(opened(path), path).network.module.get_parameter("text_projection").shape[1] == width


def test_warns_of_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """That weights are random before they are filled in is said to nobody."""
    folder = folder_of(tmp_path / "run", CONFIG)
    caplog.clear()
    opened(folder)
    assert not caplog.records


def test_by_name(tmp_path: Path) -> None:
    """A name of open_clip with arguments over it; nothing is fetched for either tower."""
    folder = folder_of(tmp_path / "run", CONFIG)
    network = opened(folder, "RN50-quickgelu", force_image_size=64)
    assert getattr(network.module.visual, "image_size") in (64, (64, 64))  # noqa: B009 - of a module that torch types loosely
    assert all(parameter.is_meta for parameter in network.module.parameters())
    assert network.pictures is not None
    assert network.pictures.decode(Image.new("RGB", (90, 70))).shape == (3, 64, 64)


def test_nothing_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """open_clip is told to bring weights for no part, also where a tower is of another library."""
    asked: dict[str, Any] = {}

    def create_model(name: str, **options: Any) -> Any:
        asked.update(options)
        raise RuntimeError("stop here")

    folder = folder_of(tmp_path / "run", CONFIG)
    monkeypatch.setattr(open_clip, "create_model", create_model)
    with pytest.raises(NetworkError, match="stop here"):
        opened(folder)
    assert asked == {"pretrained": None, "load_weights": False, "pretrained_image": False, "pretrained_text": False}


@pytest.mark.parametrize(
    ("name", "changed", "args", "said"),
    [
        ("ViT-B-32", {}, {}, None),
        ("ViT-B-32", {"quick_gelu": True}, {}, "says quick_gelu true, which the recipe's ViT-B-32 is not built with"),
        ("ViT-B-32", {"quick_gelu": True}, {"force_quick_gelu": True}, None),
        ("ViT-B-32-quickgelu", {}, {}, "says quick_gelu null"),
        ("ViT-B-32", {"text_cfg": {"hf_model_pretrained": True}}, {}, None),
        ("auto", {"quick_gelu": True}, {}, None),
        ("no network", {}, {}, None),
    ],
)
def test_another_network_than_beside(
    name: str, changed: dict[str, Any], args: dict[str, Any], said: str | None, tmp_path: Path
) -> None:
    """Weights of one name as another have the same tensors, and compute something else: that is said."""
    config = json.loads(json.dumps(open_clip.get_model_config("ViT-B-32")))
    config |= {key: {**config[key], **value} if isinstance(value, dict) else value for key, value in changed.items()}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": PREPROCESSING}))
    spec = OpenClipNetwork(open_clip=name, args=args)
    found = unlike(spec, tmp_path)
    assert found is None if said is None else found is not None and said in found
    assert list(other_inputs(spec, tmp_path)) == ([] if name == "auto" else list(PREPROCESSING))
    as_made = PreprocessCfg()
    assert (as_made.mean, as_made.std, as_made.interpolation, as_made.resize_mode) == tuple(OF_OPENAI.values())


def test_errors(tmp_path: Path) -> None:
    """Wrong names and broken configurations are one-line errors."""
    folder = folder_of(tmp_path / "run", CONFIG)
    with pytest.raises(NetworkError, match=r"has no 'ViT-B-23', did you mean 'ViT-B-32'\?"):
        opened(folder, "ViT-B-23")
    with pytest.raises(NetworkError, match=r"open_clip 'ViT-B-32': .*no_such"):
        opened(folder, "ViT-B-32", no_such=1)
    unknown = {"model_cfg": CONFIG, "preprocess_cfg": {"interpolation": "any"}}
    (folder / "open_clip_config.json").write_text(json.dumps(unknown))
    with pytest.raises(NetworkError, match=r"open_clip 'local-dir:.*': AssertionError"):
        opened(folder)
    for content in ("{", "{}", "[]", '{"model_cfg": {}}'):
        (folder / "open_clip_config.json").write_text(content)
        with pytest.raises(NetworkError, match=r"open_clip_config\.json: describes no network"):
            opened(folder)
    (folder / "open_clip_config.json").unlink()
    with pytest.raises(NetworkError, match=r"open_clip_config\.json: describes no network: .*No such file"):
        opened(folder)


class AuthorsWrapper(torch.nn.Module):
    """What the authors of model soups save, line by line as in their utils.py: no text transformer, a linear head."""

    def __init__(self, model: Any, classes: int) -> None:
        super().__init__()
        self.model = model
        self.classification_head = torch.nn.Linear(model.text_projection.shape[1], classes)
        if hasattr(self.model, "transformer"):
            delattr(self.model, "transformer")

    def forward(self, images: torch.Tensor) -> Any:
        features = self.model.encode_image(images)
        return self.classification_head(features / features.norm(dim=-1, keepdim=True))


def test_the_authors_layout(tmp_path: Path) -> None:
    """A `model_N.pt` as torch.save of that wrapper's state dict writes it: its logits, bit for bit; text left over."""
    folder = folder_of(tmp_path / "run", CONFIG)
    clip = open_clip.create_model(f"local-dir:{folder}")
    whole = {f"model.{name}": tensor for name, tensor in clip.state_dict().items()}
    wrapper = randomised(AuthorsWrapper(clip, 7))
    files = tmp_path / "soups"
    files.mkdir()
    torch.save(wrapper.state_dict(), files / "model_0.pt")
    assert "model.transformer.resblocks.0.ln_1.weight" not in wrapper.state_dict()
    assert "model.token_embedding.weight" in wrapper.state_dict()
    (files / "open_clip_config.json").write_text((folder / "open_clip_config.json").read_text())
    network = build(OpenClipNetwork(open_clip="auto", head=7), open_checkpoint(files / "model_0.pt"))
    loaded(network, files / "model_0.pt")
    inputs = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(network.forward(inputs), wrapper(inputs))
    assert network.zero_shot is None
    torch.save(whole | wrapper.state_dict(), files / "model_1.pt")
    loaded(network, files / "model_1.pt")
    with torch.inference_mode():
        assert torch.equal(network.forward(inputs), wrapper(inputs))
