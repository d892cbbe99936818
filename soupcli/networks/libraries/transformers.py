"""`model: {transformers: auto}`: the class and configuration of the checkpoint's own config.json."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from soupcli.environment import need
from soupcli.errors import NetworkError
from soupcli.networks.libraries import clip as dual_encoder
from soupcli.networks.libraries import text_to_text
from soupcli.networks.libraries.clip import ImageHead
from soupcli.networks.library import Library, names_in_order, read_config
from soupcli.networks.network import ClassFolders, Network, Outline, Pictures
from soupcli.networks.without_weights import make_without_weights
from soupcli.wording import suggestion

if TYPE_CHECKING:
    from soupcli.recipe.networks import TransformersNetwork

# datasets' imagefolder: sorted names of the innermost folders
FOLDERS = ClassFolders("datasets", "text", innermost=True)
LOCAL = {"local_files_only": True, "trust_remote_code": False}  # nothing is fetched, no code of the folder's is run
PROBE = (3, 61, 97)  # of the picture that shows whether a processor's work can be done in two halves


def build(spec: TransformersNetwork, folder: Path) -> Network:
    """The network of `folder`'s config.json with its tokenizer and image processor, where there are any."""
    transformers = need("transformers", extra="transformers")
    if not (folder / "config.json").is_file():
        raise NetworkError(f"{folder}: has no config.json", hint="model.save_pretrained(...) writes it")
    config = _read("config.json", folder, lambda: transformers.AutoConfig.from_pretrained(folder, **LOCAL, **spec.args))
    architecture = _architecture(transformers, spec.transformers, config, folder)
    module = _read("config.json", folder, lambda: make_without_weights(lambda: _module(architecture, config, spec)))
    tokenizer = _tokenizer(transformers, folder)
    two_towers = tokenizer is not None and dual_encoder.is_dual_encoder(module)
    return Network(
        module,
        _pictures(transformers, folder),
        tokenizer,
        outline=Outline(FOLDERS, names_in_order(config.id2label, folder / "config.json")),
        ignored_names=tuple(getattr(module, "_keys_to_ignore_on_load_unexpected", None) or ()),
        stored_names=_stored_names(module) if spec.head is None else None,
        longest_input=_longest_input(module),
        pad_token_id=getattr(config, "pad_token_id", None),
        answers=partial(text_to_text.answers, tokenizer) if tokenizer and text_to_text.writes(module) else None,
        zero_shot=dual_encoder.zero_shot(tokenizer) if two_towers else None,
        towers=("vision_model",) if two_towers else (),
    )


def _longest_input(module: nn.Module) -> int | None:
    """The most tokens that the network has positions for, or None if it does not say.

    RoBERTa and its kin count positions from behind their padding index: 514 positions hold 512 tokens.
    """
    config: Any = getattr(module, "config", None)
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    longest = getattr(config, "max_position_embeddings", None)
    if not isinstance(longest, int) or longest < 1:
        return None
    for name, part in module.named_modules():
        if name.endswith("position_embeddings") and isinstance(part, nn.Embedding) and part.padding_idx is not None:
            return min(longest, part.num_embeddings - part.padding_idx - 1)
    return longest


def _module(architecture: Any, config: Any, spec: TransformersNetwork) -> nn.Module:
    module = _from_config(architecture, config)
    if spec.head is None:
        return module
    if not dual_encoder.is_dual_encoder(module):
        raise NetworkError(
            f"model.head: is for CLIPModel and AlignModel, this is a {type(module).__name__}",
            hint="classifiers of transformers have a head of their own",
        )
    features = dual_encoder.embedding_size(module)
    return ImageHead(module, dual_encoder.image_embedding, features=features, classes=spec.head)


def _read(file: str, folder: Path, reader: Callable[[], Any]) -> Any:
    """What `reader` makes of a file of the folder. Raises NetworkError, one line, where it fails."""
    try:
        return reader()
    except NetworkError:
        raise
    except Exception as cause:
        first_line = next(iter(str(cause).strip().splitlines()), "")
        raise NetworkError(
            f"{folder}/{file}: {type(cause).__name__}: {first_line}",
            hint="does from_pretrained(...) of the installed transformers open this folder?",
        ) from cause


def _from_config(architecture: Any, config: Any) -> nn.Module:
    make = getattr(architecture, "_from_config", None) or architecture.from_config
    module: nn.Module = make(config)
    return module


def _architecture(transformers: Any, name: str, config: Any, folder: Path) -> Any:
    if name == "auto":
        named = config.architectures or []
        if not named:
            raise NetworkError(
                f"{folder}/config.json: names no architecture",
                hint="model: {transformers: AutoModelForSequenceClassification}, or another class",
            )
        name = named[0]
    if not hasattr(transformers, name):
        raise NetworkError(
            f"model.transformers: transformers {transformers.__version__} has no {name!r}"
            f"{suggestion(name, (word for word in dir(transformers) if word[:1].isupper()))}"
        )
    return getattr(transformers, name)


def _stored_names(module: Any) -> Callable[[Iterable[str]], dict[str, str]] | None:
    """From names in files to names in the module: transformers 5 goes on saving networks under the names of version 4.

    None where the installed version knows no such names. Raises NetworkError where a tensor is not only renamed but
    taken apart or put together as well.
    """
    try:
        loading = importlib.import_module("transformers.core_model_loading")
        conversions = importlib.import_module("transformers.conversion_mapping").get_model_conversion_mapping
    except (ImportError, AttributeError):
        return None

    def renamed(stored: Iterable[str]) -> dict[str, str]:
        transforms = conversions(module)
        converters = [transform for transform in transforms if isinstance(transform, loading.WeightConverter)]
        renamings = [transform for transform in transforms if isinstance(transform, loading.WeightRenaming)]
        state = module.state_dict()
        names: dict[str, str] = {}
        for name in sorted(stored):
            names[name], converted = loading.rename_source_key(
                name, renamings, converters, module.base_model_prefix, state
            )
            if converted is not None:
                raise NetworkError(
                    f"tensor {name!r}: transformers stores it in another form than {type(module).__name__} computes "
                    f"with, which is not read yet",
                    hint="evaluate with a python or command set that calls from_pretrained",
                )
        return names

    return renamed


def _tokenizer(transformers: Any, folder: Path) -> Any:
    if not any(folder.glob("tokenizer*")) and not any(folder.glob("vocab.*")):
        return None
    return _read("tokenizer_config.json", folder, lambda: transformers.AutoTokenizer.from_pretrained(folder, **LOCAL))


def _pictures(transformers: Any, folder: Path) -> Pictures | None:
    """The folder's image processor: in two halves where that gives the same bits, else as a whole."""
    file = next((f for f in ("preprocessor_config.json", "processor_config.json") if (folder / f).is_file()), None)
    if file is None:
        return None
    processor = _read(file, folder, lambda: transformers.AutoImageProcessor.from_pretrained(folder, **LOCAL))
    description = f"transformers:{processor.to_json_string()}"

    def whole(picture: Any) -> Tensor:
        pixels: Tensor = processor(images=picture, return_tensors="pt")["pixel_values"][0]
        return pixels

    def decode(picture: Any) -> Tensor:
        made = processor(images=picture, do_rescale=False, do_normalize=False, return_tensors="pt")
        pixels: Tensor = made["pixel_values"][0]
        return pixels

    def normalise(pictures: Tensor) -> Tensor:
        settings = (processor.do_rescale, processor.rescale_factor, processor.do_normalize)
        made: Tensor = processor.rescale_and_normalize(pictures, *settings, processor.image_mean, processor.image_std)
        return made

    if _same(whole, lambda picture: normalise(decode(picture)[None])[0]):
        return Pictures(decode, normalise, description)
    return Pictures(whole, lambda pictures: pictures, description)


def _same(whole: Callable[[Any], Tensor], in_halves: Callable[[Any], Tensor]) -> bool:
    """Whether both make the same of a picture of noise."""
    noise = torch.randint(0, 256, PROBE, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    picture = need("PIL.Image", extra="images").fromarray(noise.permute(1, 2, 0).numpy())
    try:
        return torch.equal(whole(picture), in_halves(picture))
    except (AttributeError, TypeError, ValueError, RuntimeError):  # a processor of another kind
        return False


def label_names(spec: TransformersNetwork, folder: Path) -> tuple[str, ...] | None:
    """The names of `id2label` in the recipe's `args:`, else in config.json."""
    config = read_config(folder / "config.json") | spec.args
    return names_in_order(config.get("id2label"), folder / "config.json")


LIBRARY = Library(build, FOLDERS, label_names, reads_folder=bool)
