"""`model: {transformers: auto}`: the class and configuration of the checkpoint's own config.json."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soupcli.checkpoints.compare.class_orders import two_orders
from soupcli.checkpoints.formats.name_lists import names_by_row
from soupcli.environment import import_extra
from soupcli.errors import NetworkError
from soupcli.late import nn, torch
from soupcli.networks.guard import HINT, CodeRefused, data_only, named_code
from soupcli.networks.libraries import clip as dual_encoder
from soupcli.networks.libraries import text_to_text
from soupcli.networks.library import Library, named, names_in_order, read_config
from soupcli.networks.network import ClassFolders, ImageTransform, Network
from soupcli.networks.pictures import RESAMPLING, PictureSettings
from soupcli.networks.without_weights import make_without_weights
from soupcli.wording import suggestion, with_article

if TYPE_CHECKING:
    from torch import Tensor

    from soupcli.recipe.networks import TransformersNetwork

# datasets' imagefolder: sorted names of the innermost folders
FOLDERS = ClassFolders("datasets", "text", innermost=True)
LOCAL: dict[str, Any] = {"local_files_only": True}  # nothing is fetched
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
POSITIONS = ("max_position_embeddings", "max_seq_len")  # what configurations call the longest input
OF_LANGUAGES = r"^adapter\.[^/]+/"  # tensors in files beside the network's own (MMS), which has those of one language
PROBE = (3, 61, 97)  # of the picture that shows whether a processor's work can be done in two halves


def build(spec: TransformersNetwork, folder: Path, trust_code: bool = False) -> Network:
    """Build the network of `folder`'s config.json, with its tokenizer and image processor if there are any."""
    transformers = import_extra("transformers", extra="transformers")
    if not (folder / "config.json").is_file():
        raise NetworkError(f"{folder}: has no config.json", hint="model.save_pretrained(...) writes it")
    with data_only(trust_code=trust_code):
        return _built(transformers, spec, folder, {**LOCAL, "trust_remote_code": trust_code})


def _built(transformers: Any, spec: TransformersNetwork, folder: Path, how: dict[str, Any]) -> Network:
    """Build the network with the library's own loaders, which take `how`."""
    config = _read("config.json", folder, lambda: transformers.AutoConfig.from_pretrained(folder, **how, **spec.args))
    _without_pretrained_parts(config)
    architecture = _architecture(transformers, spec.transformers, config, folder, trust_code=how["trust_remote_code"])
    trust_code = how["trust_remote_code"]
    module = _read(
        "config.json", folder, lambda: make_without_weights(lambda: _module(architecture, config, spec, trust_code))
    )
    tokenizer = _tokenizer(transformers, folder, how)
    two_towers = tokenizer is not None and dual_encoder.is_dual_encoder(module)
    return Network(
        module,
        _pictures(transformers, folder, how),
        tokenizer,
        ignored_names=(OF_LANGUAGES, *(getattr(module, "_keys_to_ignore_on_load_unexpected", None) or ())),
        stored_names=_stored_names(module) if spec.head is None else None,
        longest_input=_longest_input(module),
        pad_token_id=getattr(config, "pad_token_id", None),
        answers=partial(text_to_text.answers, tokenizer) if tokenizer and text_to_text.writes(module) else None,
        zero_shot=dual_encoder.zero_shot(tokenizer) if two_towers else None,
        towers=("vision_model",) if two_towers else (),
    )


def _longest_input(module: nn.Module) -> int | None:
    """Return the most tokens that the network has positions for, or None if unknown.

    RoBERTa and its kin count positions from behind their padding index: 514 positions hold 512 tokens.
    """
    config: Any = getattr(module, "config", None)
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    longest = next((getattr(config, name) for name in POSITIONS if hasattr(config, name)), None)
    if not isinstance(longest, int) or longest < 1:
        return None
    for name, part in module.named_modules():
        if name.endswith("position_embeddings") and isinstance(part, nn.Embedding) and part.padding_idx is not None:
            return min(longest, part.num_embeddings - part.padding_idx - 1)
    return longest


def _without_pretrained_parts(config: Any) -> None:
    """Turn off pre-trained backbones: the checkpoint holds their weights, so none is fetched or read from elsewhere."""
    for part in (config, *(value for value in vars(config).values() if hasattr(value, "to_dict"))):
        if getattr(part, "use_pretrained_backbone", False):
            part.use_pretrained_backbone = False


def _module(architecture: Any, config: Any, spec: TransformersNetwork, trust_code: bool) -> nn.Module:
    module = _from_config(architecture, config, trust_code)
    if spec.head is None:
        return module
    if not dual_encoder.is_dual_encoder(module):
        raise NetworkError(
            f"model.head: is for CLIPModel and AlignModel, this is {with_article(module)}",
            hint="classifiers of transformers have a head of their own",
        )
    from soupcli.networks.libraries.image_head import ImageHead

    features = dual_encoder.embedding_size(module)
    return ImageHead(module, dual_encoder.image_embedding, features=features, classes=spec.head)


# What transformers says if it has no class of its own for a configuration.
WANTS_CODE = ("custom code", "does not recognize this architecture", "Unrecognized", "Couldn't instantiate", "imported")


def _read(file: str, folder: Path, reader: Callable[[], Any]) -> Any:
    """Read a file of the folder with `reader`. Raises NetworkError, one line, if it fails."""
    try:
        return reader()
    except NetworkError:
        raise
    except Exception as cause:
        first_line = next(iter(str(cause).strip().splitlines()), "")
        code = _code_in(folder / file)
        if code is not None and (isinstance(cause, CodeRefused) or any(word in first_line for word in WANTS_CODE)):
            raise NetworkError(
                f"{folder}/{file}: auto_map names code, {code!r}, which is not run", hint=HINT
            ) from cause
        raise NetworkError(
            f"{folder}/{file}: {type(cause).__name__}: {first_line}",
            hint="does from_pretrained(...) of the installed transformers open this folder?",
        ) from cause


def _code_in(file: Path) -> str | None:
    """Return the class that the configuration's `auto_map` names, if it can be read."""
    try:
        return named_code(read_config(file))
    except NetworkError:
        return None


def _from_config(architecture: Any, config: Any, trust_code: bool) -> nn.Module:
    own = getattr(architecture, "_from_config", None)
    module: nn.Module = own(config) if own else architecture.from_config(config, trust_remote_code=trust_code)
    return module


def _architecture(transformers: Any, name: str, config: Any, folder: Path, *, trust_code: bool) -> Any:
    """Return the class of transformers, or the Auto class that finds code of the folder.

    Raises NetworkError if it is no network of transformers.
    """
    if name == "auto":
        named = config.architectures
        if not isinstance(named, list) or not named or not isinstance(named[0], str):
            raise NetworkError(
                f"{folder}/config.json: names no architecture",
                hint="model: {transformers: AutoModelForSequenceClassification}, or another class",
            )
        name = named[0]
    stated = getattr(config, "auto_map", None)
    auto_map = stated if isinstance(stated, dict) else {}
    through = [auto for auto, reference in auto_map.items() if str(reference).endswith(f".{name}")]
    if through and not hasattr(transformers, name):
        if not trust_code:
            code = auto_map[through[0]]
            raise NetworkError(f"{folder}/config.json: auto_map names code, {code!r}, which is not run", hint=HINT)
        name = through[0]
    found = getattr(transformers, name, None)
    if not (hasattr(found, "_from_config") or hasattr(found, "from_config")):
        raise NetworkError(
            f"model.transformers: transformers {transformers.__version__} has no {name!r}"
            f"{suggestion(name, (word for word in dir(transformers) if word[:1].isupper()))}"
        )
    return found


def _stored_names(module: Any) -> Callable[[Iterable[str]], dict[str, str]] | None:
    """Map names in files to names in the module: transformers 5 still saves networks under the names of version 4.

    None if the installed version knows no such names. Raises NetworkError if a tensor is not only renamed but
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


def _tokenizer(transformers: Any, folder: Path, how: dict[str, Any]) -> Any:
    if not any(folder.glob("tokenizer*")) and not any(folder.glob("vocab.*")):
        return None
    return _read("tokenizer_config.json", folder, lambda: transformers.AutoTokenizer.from_pretrained(folder, **how))


def _pictures(transformers: Any, folder: Path, how: dict[str, Any]) -> ImageTransform | None:
    """Return the folder's image processor: in two halves if that gives the same bits, else whole."""
    file = _transform(None, folder)
    if file is None:
        return None
    processor = _read(file, folder, lambda: transformers.AutoImageProcessor.from_pretrained(folder, **how))
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

    settings, source = _settings(processor), file
    if _same(whole, lambda picture: normalise(decode(picture)[None])[0]):
        return ImageTransform(decode, normalise, description, source=source, settings=settings)
    return ImageTransform(whole, lambda pictures: pictures, description, source=source, settings=settings)


def _settings(processor: Any) -> PictureSettings | None:
    """Return the processor's settings if they are plain ones."""
    size, crop = dict(getattr(processor, "size", None) or {}), dict(getattr(processor, "crop_size", None) or {})
    mean, std = getattr(processor, "image_mean", None), getattr(processor, "image_std", None)
    if mean is None or std is None or not getattr(processor, "do_rescale", True):
        return None
    interpolation = {number: name for name, number in RESAMPLING.items()}.get(int(getattr(processor, "resample", 2)))
    return PictureSettings(
        size=size.get("shortest_edge") or _sides(size),
        crop=_sides(crop) if getattr(processor, "do_center_crop", False) else None,
        mean=tuple(mean),
        std=tuple(std),
        interpolation=interpolation or "bilinear",
    )


def _sides(size: dict[str, Any]) -> tuple[int, int] | None:
    return (size["height"], size["width"]) if size.get("height") and size.get("width") else None


def _same(whole: Callable[[Any], Tensor], in_halves: Callable[[Any], Tensor]) -> bool:
    """Whether both transforms give the same result for a picture of noise."""
    noise = torch.randint(0, 256, PROBE, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    picture = import_extra("PIL.Image", extra="images").fromarray(noise.permute(1, 2, 0).numpy())
    try:
        return torch.equal(whole(picture), in_halves(picture))
    except (AttributeError, TypeError, ValueError, RuntimeError):  # a processor of another kind
        return False


def label_names(spec: TransformersNetwork, folder: Path) -> tuple[str, ...] | None:
    """Return the names of `id2label`, else of `label2id`, in the recipe's `args:`, else in config.json.

    Raises NetworkError if both name the classes and contradict each other.
    """
    file = folder / "config.json"
    config = spec.args if spec.args.keys() & {"id2label", "label2id"} else read_config(file)
    names = names_in_order(config.get("id2label"), file)
    others = named(names_by_row(config.get("label2id")) or ())
    contradiction = two_orders({"id2label": names, "label2id": others})
    if contradiction is not None:
        raise NetworkError(
            f"{file}: {contradiction}", hint="correct the wrong one, or put id2label into args: of model:"
        )
    if names is None and others is not None and len(config.get("id2label") or others) == len(others):
        return others  # id2label has only placeholders
    return names


def _transform(_spec: object, folder: Path) -> str | None:
    """Return the name of the image processor's file, or None. Networks of sounds have files of the same names."""
    file = next((name for name in PROCESSORS if (folder / name).is_file()), None)
    if file is None:
        return None
    content = read_config(folder / file)
    parts = [content, *(part for part in content.values() if isinstance(part, dict))]
    sees = "image_processor" in content or any("image_processor_type" in part for part in parts)
    hears = any("sampling_rate" in part for part in parts)
    return file if sees or not hears else None


LIBRARY = Library(build, FOLDERS, label_names, transform=_transform, reads_folder=bool)
