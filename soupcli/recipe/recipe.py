"""The recipe as a whole: its top keys."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, PrivateAttr

from soupcli.recipe.document import Document
from soupcli.recipe.gates import Wanted, wanted
from soupcli.recipe.methods import Cost, Greedy, Learned, Mix, Window
from soupcli.recipe.networks import NETWORKS, NetworkSpec
from soupcli.recipe.section import Section, one_of
from soupcli.recipe.sets import SETS, SetSpec
from soupcli.recipe.values import (
    ByteSize,
    CheckpointPath,
    CheckpointWord,
    Device,
    Dtype,
    Gain,
    GateBounds,
    Grid,
    ObjectiveWord,
    Precision,
    RecipePath,
)

if TYPE_CHECKING:
    AnyNetwork = NetworkSpec
    AnySet = SetSpec
else:  # the tables' rows
    AnyNetwork = one_of(NETWORKS)
    AnySet = one_of(SETS)


class Recipe(Section):
    """A whole recipe, after files, variables and flags have been put together."""

    model: AnyNetwork | None = None
    """The network that the weights go into; not needed by `soup uniform` without a validation set."""
    ckpts: list[CheckpointWord] = []
    """Checkpoint files, folders or globs; default of --ckpts."""
    window: Window = Window()
    val: dict[str, AnySet] = {}
    """Validation sets by name."""
    metric: str = "accuracy"
    """The metric that ranks and selects: accuracy, top5, nll, ece, f1 (of class 1 if there are two classes, else the
    mean over classes) or mcc for classes; map, f1_micro, f1_macro or bce for rows of 0 and 1; pearson, spearman or mse
    for numbers. `accuracy+f1` is the mean of the two. A set of tokens has its perplexity. `sklearn:NAME` and
    `torchmetrics:NAME(argument=value)` are metrics of these libraries.
    """
    metrics: list[str] = []
    """Further metrics, which are reported as well on every set that has them."""
    objective: ObjectiveWord | None = None
    """Select by several sets: `mean` or `worst` of all sets after --val, or a weight for each of some of them,
    `{a: 2, b: 1}`, for the weighted mean. The gain on a set counts: the difference from the best ingredient's score
    there, as a share of that score, so that accuracies and losses can be combined; 0 is as good as the best. A
    candidate is stopped early if metrics are bounded, which scores of your own programs are not. Default: only the
    first set selects."""
    batch_norm: Literal["average", "recalibrate", "keep"] = "average"
    """Running statistics of a mean: averaged; or re-estimated before each evaluation and written into the soup
    (recalibrate); or re-estimated only for evaluations, while the soup keeps the averaged ones (keep)."""
    gates: dict[str, GateBounds] = {}
    """What a soup must reach, by set or `set.metric`: `">= best - 0.5"` (against the best ingredient; for accuracy and
    other shares in percentage points), `">= 0.8"` or `">= 80%"`. A candidate that breaks one is not accepted; a soup
    that breaks one is written, and ends with exit code 1."""
    require_gain: Gain | None = None
    """How much better than the best ingredient the soup must be, e.g. 0.1 (percentage points for shares); on the set
    that did not select where one was held out, else on the one that did; or on a set by name: `test=0.1`."""
    holdout: float | None = Field(default=None, ge=0.0, lt=1.0)
    """Share of each class of the first set (of every set that selects, if there is an objective) that takes no part in
    the selection and is reported as a set of its own; the set is then `SET[selecting]` and `SET[held out]`. Default: 0,
    nothing is held out; of `greedy.strategy: experts` 0.5."""
    greedy: Greedy = Greedy()
    learned: Learned = Learned()
    mix: Mix = Mix()
    scale: Grid | None = None
    """The last step of greedy, uniform and learned: points on the line from `base` (0) through the soup (1) and beyond
    it. A number, a list or first:last:step; the best point on the selecting sets is taken. The soup itself is always
    tried.
    """
    cost: Cost = Cost()
    out: RecipePath = Path("soup")
    """The folder that the soup is written to."""
    max_shard_size: ByteSize = 5_000_000_000
    """Past this size the weights are written as shards with an index."""
    dtype: Dtype | None = None
    """The dtype of the output weights; default: the ingredients' own."""
    format: Literal["same", "safetensors", "torch"] | None = None
    """How the weights are written: `same` as the ingredients (of files of torch.save a copy of the best one, in which
    only the averaged numbers are others), `safetensors`, or `torch`. Default: same if the ingredients' library reads
    nothing else, else safetensors."""
    keep_state: bool = False
    """Keep the best ingredient's optimizer and schedulers in a soup that is written as a file of torch.save."""
    merge_adapters: bool = False
    """Write a soup of adapters merged into their base: a full network."""
    card: bool = True
    """Write a model card, README.md, beside the weights."""
    include: list[str] = []
    """Shell patterns of the tensors that are mixed; default: all."""
    exclude: list[str] = []
    """Shell patterns of tensors that are not mixed, e.g. heads of other classes: they come from `base`, else from the
    best ingredient (of `soup uniform`: from the first)."""
    take: list[str] = []
    """Shell patterns of tensors that come unchanged from the best ingredient (in `soup uniform` from the first), e.g.
    integers that differ."""
    base: CheckpointPath | None = None
    """The network that adapters were trained on; of whole networks, where tensors that are not mixed come from."""
    key: str | None = None
    """The key of the state dict in a file of torch.save, with dots for nested keys; default: the first of
    state_dict_ema, model_ema, state_dict, model that exists, else the file itself.
    """
    adapter_rank: int | None = Field(default=None, gt=0)
    """The rank that a soup of adapters is approximated to; default: it is exact, of the summed rank."""
    device: Device = "auto"
    """auto (cuda, then mps, then cpu), cpu, cuda, cuda:N or mps."""
    batch_size: int = Field(default=64, gt=0)
    """Examples in one forward pass; no score depends on it. Where memory runs out it is halved."""
    workers: int | None = Field(default=None, ge=0)
    """Threads that decode inputs; default: one for each core."""
    amp: Precision | None = None
    """Evaluate in mixed precision (torch.autocast); default: in the precision of the weights. Scores depend on it."""
    channels_last: bool = False
    """Pictures and convolutions with their channels last, which some devices compute faster."""
    compile: bool = False
    """Compile the network with torch.compile: slower to begin with, faster afterwards."""
    cache_inputs: bool = True
    """Keep decoded pictures and token ids for the next run, in `inputs/` of the cache folder."""
    cache_limit: ByteSize = 50_000_000_000
    """Past this size the decoded inputs that were unused for longest are removed from the cache folder."""
    early_stop: bool = True
    """Give up a candidate of `soup greedy` once it can no longer be good enough; no decision depends on it."""
    _document: Document = PrivateAttr(default_factory=Document)

    @property
    def wanted(self) -> list[Wanted]:
        """Each gate, with its set and metric."""
        return wanted(self.gates, self.val)

    @property
    def file(self) -> Path | None:
        """The file that was read, which its paths are relative to; None if there is none."""
        return self._document.file

    def place(self, key: str) -> str | None:
        """`soup.yaml:8:10` if the recipe file gives the dotted key, None if something else does."""
        keys = self._document.keys_of(key)
        return self._document.position(keys) if self._document.is_of_file(keys) else None

    @property
    def unused(self) -> list[str]:
        """A line for each setting of the file that a flag leaves without use."""
        return self._document.unused

    def located(self, message: str) -> str:
        """`message` with the place in the recipe before it, if it begins with a key that the recipe gives."""
        key, _, rest = message.partition(": ")
        keys = self._document.keys_of(key)
        return f"{self._document.place(keys)}: {rest}" if self._document.gives(keys) else message
