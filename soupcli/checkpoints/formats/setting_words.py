"""Words by which settings of a network and of its inputs are told from those of a training, as patterns of keys.

kind_of("train_args.imgsz")                             # "inputs": what the network sees
kind_of("hyper_parameters.activation")                  # "network": what the same weights compute
kind_of("args.lr")                                      # None

Files that a user's own training writes hold settings of every kind: only those that are known count.
"""

from __future__ import annotations

import re
from typing import Literal

from soupcli.checkpoints.formats.names import EXTRA_STATE
from soupcli.late import late_pattern

WORDS = re.IGNORECASE | re.VERBOSE
Kind = Literal["inputs", "network"]

_STATISTIC = "(means?|stds?|std_?dev|sigma|var(iance)?|min|max|scales?|offsets?|shifts?|medians?|centers?|ranges?|iqr)"
_OF_DATA = "(image|img|pixel|norm|data|feat(ure)?|target|label|input|output|obs|observation|action|state|x|y)s?"
INPUTS = late_pattern(
    rf"""
    imgsz | im(g|age)?_?(sz|size|resolution|height|width|shape)
    | (input|crop|resize|tile|roi|target|frame)_?(size|shape)
    | resolution | resize(_?to)? | crop_pct | interpolation | resample | ((bgr|rgb)_)?to_(rgb|bgr) | color_?(mode|space)
    | channel_?order | gr[ae]yscale | (image|img|input|pixel)_?format
    | means? | stds? | {_OF_DATA}_{_STATISTIC} | {_OF_DATA}_(scaler|normali[sz]er)
    | normali[sz](e|ation|er)(_\w+)? | norm_?(stats|params|type_of_inputs) | scaler(_\w+)? | (do_)?rescale(_factor)?
    | (target|y|label)_?transform | (log|log1p|sqrt)_?(targets?|y|labels?) | (targets?|y|labels?)_?(log|log1p|sqrt)
    | ((re)?sampl(e|ing)|frame|audio)_?rate | (audio|sample|target|new|orig)_?(fs|sr|freq) | fs | sr | fps
    | n_?mels | num_mel(_bin)?s | mel_bins | n_?fft | fft_size
    | n_?mel_channels | filter_length | hop(_?(len(gth)?|size))? | win(_?len(gth)?) | window(_?(stride|type|fn))?
    | frame_?(len(gth)?|shift) | (mel_)?f_?m(in|ax) | n_?mfcc | lfr_[mn] | mel_(scale|norm) | htk | pre_?emph(asis)?
    | (ref|min)_level_db | max_wav_value | spec_gain
    | features?_?(type|extractor)
    | (seq(uence)?|context|input|pred(iction)?|history|clip|chunk)_?(len(gth)?|steps) | look_?back | horizon
    | (chat_?|prompt_?|conv(ersation)?_?|instruction_?|agent_?)?template(_?(type|name))? | conv_?(mode|version)
    | prompt_?(style|format) | default_?system | system_?(prompt|message)
    | (n|num)_?(obs|action)_steps | (n|num)_?frames | (do_)?lower_?case | voxel_?size | point_cloud_range
    """,
    WORDS,
)
NETWORK = late_pattern(
    r"""
    (\w+_)?(act|activation)(_?(fn|fun|func|function|layer|type|name))? | non_?linearity | (force_)?quick_?gelu
    | norm(_?(layer|type|fn|eps|first|style))? | (layer|rms|batch|group)_?norm(_?eps(ilon)?)? | (ln|bn)_?eps
    | (pre|post)_?norm
    | (n|num)_?(\w+_)?heads? | (\w+_)?attention_heads
    | n_?head | heads | global_?pool | pool(ing)?(_?(type|mode|method|strategy))?
    | negative_slope | approximate | dilations? | strides? | padding(_mode)? | window_?size | shift_?size
    | rope_\w+ | rotary_\w+ | pos(ition(al)?)?_?(emb(edding)?|enc(oding)?)(_type)? | alibi | (is_)?causal
    | attn_?(scale|type|mode) | softmax_scale | logit_?(scale|cap|softcapping) | residual(_scale)? | skip_connections?
    | arch(itecture)? | backbone | encoder_?name | model | model_?(type|arch) | variant | reg_max | anchors
    | instruments | target_instrument | stems
    | (final|output|last)_?(act|activation|transform) | apply_(sigmoid|softmax)
    | prediction_type | parametri[sz]ation | beta_(schedule|start|end) | noise_schedule | (num_)?(train_)?time_?steps
    | diffusion_steps | sigma_(data|min|max) | v_pred(iction)?
    """,
    WORDS,
)
# Parts of a training, wherever they stand in a key.
TRAINING = late_pattern(
    r"""
    (.*_)?(optim(izers?)?|sched(uler)?s?|trainer|train|training|val(idation)?|test|eval(uation)?|loss(es)?|callbacks?
      |loggers?|logging|distill(ation)?|teacher|wandb|init|regulari[sz]ation|metrics?|history|results?|scores?|rewards?|summary|report|leaderboard|cv|folds?
      |sweep|search|generation|data_?loaders?|(train|val(idation)?|test)_(ds|data(set|loader)?))
    | aug(ment\w*|s)?(_\w+)? | (init(?!_(arg|param(eter)?|kwarg|config|cfg|input)s?$)|loss|aug|val|eval)_\w+
    | normali[sz]e_(adv\w*|rewards?|returns?|grad\w*|loss\w*)
    | (optim(izer)?|(lr_)?scheduler)_(args|params|kwargs|config|cfg|fn|type|name)
    """,
    WORDS,
)
PREPARING = late_pattern(r"(\w+_)?(transforms?|resize|preprocess(or|ing)?|processor)", WORDS)
# Parts that hold arguments of the network alone, and those of them that its weights do not depend on.
OF_MODEL = late_pattern(
    r"model_?(args|config|cfg|kwargs|h?params|opts?) | (net(work)?|arch)_?(args|config|cfg|kwargs|params) | dims",
    WORDS,
)
BESIDE_MODEL = late_pattern(
    r"""
    .*(drop|init|loss|seed|learning|epoch|batch|warmup|momentum|clip|verbose|path|dir|file|freeze|frozen|pretrain|checkpoint|version|dtype
      |device|cache|flash|implementation|compile|url|license|output|return|label|num_class|n_class|classes|regulari[sz]|lambda|decay).*
    | name | tags | lr(_.*)? | .*_(lr|id|steps?) | (run|exp\w*|model|hub|project)_name | hf_config | optim\w*
    """,
    WORDS,
)
OF_RUN = late_pattern(
    r"""
    (n|num|nb|total|global|current|max|last)_.* | .*(count|iter|update|average|date|rank|seconds|hours).*
    | n | fold | split | run | trial
    """,
    WORDS,
)
# Files that hold statistics of inputs and outputs, and the keys that are some in them.
_NUMBERS = (
    "(scalers?|(de)?norm(ali[sz](er|ation))?|vec_?normali[sz]e|(cm)?mvn|cmvn|mean_?(and_?)?std|means?|stds?"
    "|running_mean_std|obs_rms)"
)
OF_STATISTICS = late_pattern(
    rf"""
    ([\w*.]+[._-])?(stats|statistics|{_NUMBERS})([_-]?(stats|params|factors|constants|x|y|inputs?|targets?|features?))?
    """,
    WORDS,
)
# Texts that are called stats are mostly reports.
OF_NUMBERS = late_pattern(rf"([\w*.]+[._-])?({_NUMBERS})([_-]?(stats|params|constants))?", WORDS)
STATISTIC = late_pattern(rf"(.*_)?({_STATISTIC}|q\d\d?)_?", WORDS)
MEASURED = late_pattern(
    r".*(loss|acc|score|metric|epoch|step|time|timing|latency|speed|reward|return|lr|grad|auc|f1|mem|gpu|best|iou|error|[mr]ap).*",
    WORDS,
)
# What is done with outputs, beside the network: elsewhere it is of a loss, or of an evaluation.
OF_OUTPUTS = late_pattern(r"(\w+_)?(threshold|thresh|cut_?off|temperature)s?", WORDS)
FILE = re.compile(r"[/\\]|\.(pth?|ckpt|bin|safetensors|ya?ml|json|py)$")  # in the value of `model`: where it began
NAMED = frozenset({"model", "arch", "architecture", "backbone", "variant", "model_type", "encoder_name"})
# Keys that mean something only below another one: INPUT.FORMAT of detectron2, act_cfg=dict(type="ReLU") of mmcv.
IN_PART: dict[str, Kind] = {
    "input.format": "inputs",
    "act_cfg.type": "network",
    "conv_cfg.type": "network",
    "kwargs.sources": "network",  # of Demucs: what its outputs are
    "training.instruments": "network",  # of other separators of music: likewise
    "training.target_instrument": "network",
    "args.system": "inputs",  # of ms-swift
}
MOST_CHECKED = 200  # letters of a key


def kind_of(key: str) -> Kind | None:
    """Return what a setting with this dotted key is about, or None if it is one of a training, or is not known.

    A key may begin with what its file is called: in `stats` and `normalizer` more are statistics of inputs.
    """
    if key.endswith(EXTRA_STATE):
        return "network"
    *above, last = key.split(".")
    while (last.isdecimal() or last == "value") and above:  # the place in a list; Weights & Biases' settings
        last = above.pop()
    in_part = IN_PART.get(f"{above[-1]}.{last}".lower()) if above and len(key) <= MOST_CHECKED else None
    if in_part is not None:
        return in_part
    if len(key) > MOST_CHECKED or _is_of_training(above, last):
        return None
    last = last.rstrip("_")  # of scikit-learn's attributes
    statistics = any(map(OF_STATISTICS.fullmatch, above))
    if statistics and MEASURED.fullmatch(above[0]):  # timing_stats.json
        return None
    if last == "size" and any(map(PREPARING.fullmatch, above)):
        return "inputs"
    if any(map(OF_MODEL.fullmatch, above)) and not INPUTS.fullmatch(last):
        return None if BESIDE_MODEL.fullmatch(last) else "network"
    if statistics and STATISTIC.fullmatch(last) and not any(map(MEASURED.fullmatch, (*above, last))):
        return "inputs"
    if not above and OF_OUTPUTS.fullmatch(last):
        return "network"
    return "inputs" if INPUTS.fullmatch(last) else "network" if NETWORK.fullmatch(last) else None


def _is_of_training(above: list[str], last: str) -> bool:
    of_other = bool(above) and TRAINING.fullmatch(above[0]) and not above[0].lower().startswith("train")
    return bool(of_other) or any(map(TRAINING.fullmatch, (*above[1:], last)))


def is_of_network(name: str) -> bool:
    """Whether a number among the tensors of a network is the network's own, and none of a training or its records."""
    if kind_of(name) is not None:
        return True
    return not any(words.fullmatch(name) for words in (TRAINING, MEASURED, BESIDE_MODEL, OF_RUN))
