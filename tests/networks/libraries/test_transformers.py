"""transformers' networks, tokenizers and image processors are what from_pretrained gives, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from soupcli.checkpoints.open import open_checkpoint
from soupcli.errors import NetworkError
from soupcli.networks.build import build
from soupcli.networks.network import Network
from soupcli.recipe.networks import TransformersNetwork
from tests.helpers import transformers_toys as toys
from tests.helpers.network_toys import assert_same, loaded
from tests.helpers.pictures import noise

SIZES = toys.SIZES
IDS = {"input_ids": torch.tensor([[5, 7, 1, 2], [5, 8, 1, 2]])}


def ids(model: Any) -> dict[str, Tensor]:
    """A batch of tokens."""
    return IDS


def pictures(model: Any) -> dict[str, Tensor]:
    """A batch of pictures of the size that the model takes."""
    return {"pixel_values": torch.randn(2, 3, 32, 32)}


def both(model: Any) -> dict[str, Tensor]:
    """Tokens in and out."""
    return {**IDS, "decoder_input_ids": IDS["input_ids"]}


def _t5(**options: Any) -> Any:
    return transformers.T5Config(
        vocab_size=20, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0, **options
    )


def _gpt2(**options: Any) -> Any:
    return transformers.GPT2Config(vocab_size=20, n_embd=16, n_layer=2, n_head=2, **options)


Toy = tuple[Callable[[], Any], Callable[[Any], dict[str, Tensor]]]
TOYS: dict[str, Toy] = {
    "bert": (lambda: transformers.BertForSequenceClassification(transformers.BertConfig(vocab_size=20, **SIZES)), ids),
    "bert_masked": (lambda: transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=20, **SIZES)), ids),
    "deberta": (
        lambda: transformers.DebertaV2ForSequenceClassification(
            transformers.DebertaV2Config(vocab_size=20, relative_attention=True, position_buckets=8, **SIZES)
        ),
        ids,
    ),
    "gpt2": (lambda: transformers.GPT2ForSequenceClassification(_gpt2(pad_token_id=0)), ids),
    "gpt2_lm": (lambda: transformers.GPT2LMHeadModel(_gpt2()), ids),
    "llama": (
        lambda: transformers.LlamaForSequenceClassification(
            transformers.LlamaConfig(vocab_size=20, num_key_value_heads=2, pad_token_id=0, **SIZES)
        ),
        ids,
    ),
    "t5": (lambda: transformers.T5ForConditionalGeneration(_t5()), both),
    "vit": (
        lambda: transformers.ViTForImageClassification(transformers.ViTConfig(image_size=32, patch_size=8, **SIZES)),
        pictures,
    ),
    "swin": (
        lambda: transformers.SwinForImageClassification(
            transformers.SwinConfig(
                image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4
            )
        ),
        pictures,
    ),
    "convnext": (
        lambda: transformers.ConvNextForImageClassification(
            transformers.ConvNextConfig(hidden_sizes=[8, 8, 8, 16], depths=[1, 1, 1, 1])
        ),
        pictures,
    ),
    "resnet": (
        lambda: transformers.ResNetForImageClassification(
            transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
        ),
        pictures,
    ),
}


def built(folder: Path, name: str = "auto", **args: Any) -> Network:
    """The network of the folder's config.json."""
    return build(TransformersNetwork(transformers=name, args=args), open_checkpoint(folder))


@pytest.mark.parametrize("kind", TOYS)
def test_equals_from_pretrained(kind: str, tmp_path: Path) -> None:
    """Built without weights and filled, also under names of old, it has every bit of from_pretrained's model."""
    make, inputs = TOYS[kind]
    source = toys.saved(make(), tmp_path)
    reference = type(source).from_pretrained(tmp_path, local_files_only=True).eval()
    network = built(tmp_path)
    assert all(parameter.is_meta for parameter in network.module.parameters())
    loaded(network, tmp_path)
    assert_same(network.module, reference)
    batch = inputs(source)
    with torch.inference_mode():
        assert torch.equal(network.forward(batch), reference(**batch).logits)


@pytest.mark.parametrize("kind", ["gpt2_lm", "t5", "bert_masked"])
def test_tied(kind: str, tmp_path: Path) -> None:
    """Weights that the file holds once and the network twice stay tied."""
    toys.saved(TOYS[kind][0](), tmp_path)
    network = built(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert len(set(file.keys())) < len(network.module.state_dict())
    module: Any = loaded(network, tmp_path).network.module
    assert module.get_output_embeddings().weight is module.get_input_embeddings().weight


def test_names_of_both_versions(tmp_path: Path) -> None:
    """A file under the names that the module has now fills it too, and so does one that keeps those of old."""
    source = toys.saved(TOYS["vit"][0](), tmp_path / "old")
    source.config.save_pretrained(tmp_path / "new")
    torch.save(source.state_dict(), tmp_path / "new/pytorch_model.bin")
    for folder in (tmp_path / "old", tmp_path / "new"):
        network = built(folder)
        loaded(network, folder)
        assert_same(network.module, source)


def test_adapters_of_languages(tmp_path: Path) -> None:
    """Adapters that MMS keeps beside a network take no part in it, as from_pretrained leaves them where they are."""
    convolutions: dict[str, Any] = {"conv_dim": (8,), "conv_kernel": (10,), "conv_stride": (5,)}
    positions = {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "num_feat_extract_layers": 1}
    config = transformers.Wav2Vec2Config(
        vocab_size=8, adapter_attn_dim=4, do_stable_layer_norm=True, **SIZES, **convolutions, **positions
    )
    source = toys.saved(transformers.Wav2Vec2ForCTC(config), tmp_path)
    adapter = {name: tensor + 1 for name, tensor in source.state_dict().items() if "adapter" in name}
    save_file(adapter, tmp_path / "adapter.fra.safetensors")
    network = built(tmp_path)
    assert f"adapter.fra/{next(iter(adapter))}" in open_checkpoint(tmp_path).tensors
    assert_same(loaded(network, tmp_path).network.module, source)


def test_bfloat16(tmp_path: Path) -> None:
    """A model that was saved in bfloat16 computes in bfloat16, as from_pretrained has it."""
    toys.bert(tmp_path, dtype=torch.bfloat16)
    reference = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path, local_files_only=True).eval()
    network = built(tmp_path)
    loaded(network, tmp_path)
    assert_same(network.module, reference)
    with torch.inference_mode():
        assert torch.equal(network.forward(IDS), reference(**IDS).logits)


def test_floating_inputs_of_a_narrow_network(tmp_path: Path) -> None:
    """Pictures go into a bfloat16 network as bfloat16."""
    toys.vit(tmp_path, dtype=torch.bfloat16)
    network = built(tmp_path)
    loaded(network, tmp_path)
    with torch.inference_mode():
        assert network.forward(torch.randn(2, 3, 32, 32)).dtype == torch.bfloat16


def test_named_class_and_arguments(tmp_path: Path) -> None:
    """A class of transformers by name, an Auto class, and arguments over the configuration."""
    source = toys.bert(tmp_path)
    for name in ("BertForSequenceClassification", "AutoModelForSequenceClassification"):
        network = built(tmp_path, name, attention_probs_dropout_prob=0.25)
        assert isinstance(network.module, transformers.BertForSequenceClassification)
        assert network.module.config.attention_probs_dropout_prob == 0.25
        loaded(network, tmp_path)
        assert_same(network.module, source)
    network = built(tmp_path, "BertForSequenceClassification")
    assert network.outline.label_names == ("negative", "positive")
    assert network.tokenizer("the film")["input_ids"] == [2, 8, 7, 3]
    assert network.pad_token_id == 0


def test_narrower_file(tmp_path: Path) -> None:
    """A head for other classes is an error that names the file, the tensor and both shapes."""
    toys.bert(tmp_path)
    network = built(tmp_path, num_labels=3)
    with pytest.raises(NetworkError, match=r"model\.safetensors: tensor 'classifier\.\w+' has shape \[2.*has \[3"):
        loaded(network, tmp_path)


PROCESSORS: dict[str, Callable[[], Any]] = {
    "vit": lambda: transformers.ViTImageProcessor(size={"height": 32, "width": 32}, image_mean=[0.4, 0.5, 0.6]),
    "clip": lambda: transformers.CLIPImageProcessor(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}),
    "convnext": lambda: transformers.ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=0.8),
    "deit": lambda: transformers.DeiTImageProcessor(),
    "siglip": lambda: transformers.SiglipImageProcessor(size={"height": 32, "width": 32}),
    "efficientnet": lambda: transformers.EfficientNetImageProcessor(rescale_offset=True, include_top=True),
    "mobilevit": lambda: transformers.MobileViTImageProcessor(),  # turns the channels round at the end
    "not_rescaled": lambda: transformers.ViTImageProcessor(do_rescale=False, do_normalize=False),
    "not_normalised": lambda: transformers.ViTImageProcessor(do_normalize=False),
}


@pytest.mark.parametrize("kind", PROCESSORS)
def test_pictures_equal_the_processor(kind: str, tmp_path: Path) -> None:
    """What goes in has the processor's own bits, whether its work can be done in two halves or not."""
    toys.vit(tmp_path)
    processor = PROCESSORS[kind]()
    processor.save_pretrained(tmp_path)
    own = built(tmp_path).pictures
    assert own is not None
    opened = [Image.open(noise(tmp_path / f"{i}.png", size=(300, 180 + 90 * i), seed=i)) for i in range(2)]
    decoded = torch.stack([own.decode(picture.convert("RGB")) for picture in opened])
    wanted = processor(images=[picture.convert("RGB") for picture in opened], return_tensors="pt")["pixel_values"]
    assert torch.equal(own.normalise(decoded), wanted)
    assert decoded.dtype == (torch.uint8 if kind in ("vit", "clip", "convnext", "deit", "siglip") else decoded.dtype)


def test_without_tokenizer_and_processor(tmp_path: Path) -> None:
    """A folder without them gives a network without them."""
    toys.saved(TOYS["bert"][0](), tmp_path)
    network = built(tmp_path)
    assert network.tokenizer is None
    assert network.pictures is None


def test_errors(tmp_path: Path) -> None:
    """Folders and names that transformers does not know are one-line errors that say which file."""
    toys.bert(tmp_path)
    with pytest.raises(NetworkError, match=r"has no 'BertForSequenceClasification', did you mean 'BertForSeq"):
        built(tmp_path, "BertForSequenceClasification")
    with pytest.raises(NetworkError, match=r"config\.json: ValueError: Unrecognized configuration class"):
        built(tmp_path, "AutoModelForImageClassification")
    config = json.loads((tmp_path / "config.json").read_text())
    for change, message in {
        "architectures": r"config\.json: names no architecture",
        "model_type": r"config\.json: ValueError: Unrecognized model",
    }.items():
        (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != change}))
        with pytest.raises(NetworkError, match=message):
            built(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(NetworkError, match=r"config\.json: \w+: .*JSON"):
        built(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(NetworkError, match=r"tokenizer_config\.json: \w+:"):
        built(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(NetworkError, match=r"has no config\.json"):
        built(tmp_path)


def test_tensors_in_another_form(tmp_path: Path) -> None:
    """Experts that transformers stores one by one and computes with in one are an error that says so."""
    config = transformers.MixtralConfig(
        vocab_size=20, num_key_value_heads=2, num_local_experts=2, pad_token_id=0, **SIZES
    )
    toys.saved(transformers.MixtralForSequenceClassification(config), tmp_path)
    with pytest.raises(NetworkError, match=r"experts.*transformers stores it in another form"):
        loaded(built(tmp_path), tmp_path)


def test_positions_under_another_name(tmp_path: Path) -> None:
    """MPT calls its longest input max_seq_len."""
    config = transformers.MptConfig(vocab_size=9, d_model=8, n_layers=1, n_heads=2, max_seq_len=24)
    toys.saved(transformers.MptForSequenceClassification(config), tmp_path / "run")
    assert build(None, open_checkpoint(tmp_path / "run")).longest_input == 24


@pytest.mark.parametrize("inside", [False, True])
def test_networks_of_sounds_have_no_image_processor(inside: bool, tmp_path: Path) -> None:
    """A feature extractor of sounds beside the weights, also within a processor, is none of pictures."""
    config = transformers.Wav2Vec2Config(
        vocab_size=5, conv_dim=(8,), conv_stride=(5,), conv_kernel=(10,), num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2, **SIZES,
    )  # fmt: skip
    transformers.Wav2Vec2ForCTC(config).save_pretrained(tmp_path)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    if inside:
        extractor = json.loads((tmp_path / "preprocessor_config.json").read_text())
        (tmp_path / "preprocessor_config.json").unlink()
        (tmp_path / "processor_config.json").write_text(json.dumps({"feature_extractor": extractor}))
    assert build(TransformersNetwork(transformers="auto"), open_checkpoint(tmp_path)).pictures is None
