"""Words by which lists of classes and vocabularies are told from other lists, as patterns of keys and names.

LISTS.fullmatch("label_encoder")                        # the key of a list of classes
OTHERS.fullmatch("train_datasets")                      # the key of a list of something else

A list under another key counts as one of classes only if another document has the same names in another order.
"""

from __future__ import annotations

import re

from soupcli.late import late_pattern

WORDS = re.IGNORECASE | re.VERBOSE
_NUMBER, _NAME = "(ids?|int|idx|ind(ex|ices))", "(label|class|name|tag|intent|category|target)(es|s)?"
_MAPS = rf"{_NUMBER}_?(2|to)_?{_NAME}|{_NAME}_?(2|to)_?{_NUMBER}"
_NAMES = r"(label|class|target|category)_?(names|list|order)|labels|classes|names"
# Numbers of a data set's categories by those of rows: of detectron2, RT-DETR.
_CATEGORIES = r"(cat(egor(y|ies))?|(thing|stuff)_dataset|class)(_?ids?)?_?(2|to)_?(label|class|cat|contiguous)(_?ids?)?"
_LISTS = rf"""
    {_MAPS} | preds_mapper | channel_def
    | {_CATEGORIES} | categor(y|ies) | synsets?([_-]?(words|mapping))? | species | tags | intents | target_?names
    | (label|class|category|intent|tag)(es|s)?
      ([_-]?(names|maps?|mappings?|lists?|dicts?|ind|index|indices|order|(encoder|encoding)([_-]?classes)?))?
"""
KEYS = late_pattern(rf"({_MAPS}|{_NAMES}|{_CATEGORIES})_?", re.IGNORECASE)
LISTS = late_pattern(rf"names | ([\w-]+[_-])?({_LISTS})", WORDS)
# The end of a file's name that says of which data a list of classes is: categories_places365, classes_v2.
OF_DATA = late_pattern(r"(?!(fold|run|exp|epoch|step|seed|split|part))[a-z]+\d+[km]?", re.IGNORECASE)
HEADER = late_pattern(rf"{_NAME}|{_NAMES}|(display|{_NAME})_?name|species", re.IGNORECASE)  # of a column of names
OBJECT_NUMBER = late_pattern(rf"({_NAME}[_-]?)?({_NUMBER}|number)", re.IGNORECASE)  # of one class in a list of objects
OBJECT_NAME = late_pattern(rf"((display|{_NAME})_?)?name|{_NAME}|title", re.IGNORECASE)
NUMBERED = late_pattern(rf"({_NAME}|row|no|number)?[ _-]?({_NUMBER}|no|number|code|value)?", re.IGNORECASE)
COLOR = late_pattern(r"r(ed)?|g(reen)?|b(lue)?|a(lpha)?", re.IGNORECASE)  # of a table's columns of a class's color
PLACEHOLDER = late_pattern(r"(LABEL_|class_?)?\d+", re.IGNORECASE)  # of classes that nobody has named
BY_MERIT = late_pattern(
    r"(hardest|easiest|worst|best|rarest|commonest|confused|wrong|top|bottom|most|least|lowest|highest)([_-].*)?"
    r"|(.*[_-])?(errors|mistakes|misses|failures|outliers)|.*[_-](by[_-].*|rank(s|ed|ing)?|schedule|difficulty)",
    re.IGNORECASE,
)
# Parts of the data below a list of classes, whose classes are those of the head.
TRAINED = late_pattern(r"train(ing)?(_?val(id)?)?|all", re.IGNORECASE)
# Files about a training, in which a list under a key that means nothing is one of runs, or of examples.
OF_TRAINING = late_pattern(
    r"(.*[_-])?(folds?|splits?|logs?|history|ranking|ensemble|swa|ema)([_-]?\d+)?", re.IGNORECASE
)
# Lists of other things, whose order says nothing, by their key or the name of their file.
OTHERS = late_pattern(
    r"""
    versions? | tags | library_name | pipeline_tag | license
    # These, whatever stands before them.
    | (.*[_-])?(
        modules | datasets? | metrics? | languages? | architectures | tokens | files | paths | callbacks | report_to
        | ignore | layers | inputs? | plugins | loggers | gpus | devices | authors | splits | args | argv | packages
        | requirements | losses | counts? | frequenc(y|ies) | distribution | statistics | stats | accurac(y|ies)
        | scores? | report | confusion(_matrix)? | weights | configs? | h?params | hyper_?parameters | settings
        | options
    )_?
    # These, unless a word of classes is in the key: `test_classes`, `target_columns`.
    | (?!.*(class|label|categor|target))(.*[_-])?(
        hooks | blocks | stages | backbones? | base_models? | features | feature_names | folds | ids | opts? | best
        | trial | channels | columns | machines | dependencies | todo | notes? | curriculum | mix(ture)? | sampling
        | ratios? | proportions? | log(s|ging)? | monitor | hosts | nodes | workers | loss | terms | aug\w* | tfms
        | transforms? | optimizers? | schedulers? | defaults | (no_)?decay | freeze | frozen | param(eter)?s?
        | param_groups | ranking | results | sources | roots | train(ing)? | eval | tests? | val(id|idation)?
        | models?(_names|_list)? | teachers | annotators | runs | members | checkpoints | ckpts | keywords | oov
        | (image|img|file|audio|video|play)[_-]?list
    )
    # Parts of the data, and what was predicted of them.
    | (?!.*(class|label|categor))(train|val(id|idation)?|test|dev|eval|oof|holdout)[_-].*
    | (.*[_-])?(held[_-]?out|holdout)
    | (?!.*(class|label|categor)|preds_mapper)(.*[_-])?(pred(ict(ion|ed)?)?s?|results?)([_-].*)?
    | (?!.*(class|label|categor))(.*[_-])?(prompts|samples|examples|contributors)
    | (stop|hot|bad|banned|forbidden)[_-]?words
    """,
    WORDS,
)
# Lists of a network's inputs: columns of a table, channels of a picture or of sensors.
INPUTS = late_pattern(
    r"""
    ([\w-]+[_-])?(
      features?([_-]?(names?|cols?|columns|order|list))?([_-]?in)?_? | (input|x|cat|cont|num(eric(al)?)?
        |categorical|continuous|predictor)[_-]?(names?|cols?|columns|features?|vars?|variables) | columns | inputs
      | numeric(al)?s? | categorical | continuous | var[_-]?names
      | (channel|band|sensor|variable|covariate|gene|electrode|joint)s?([_-]?(names?|order|list))? | predictors
      | col(umn)?s?[_-]?(idx|index|indices|order) | reals | categoricals | regressors | exog(_list)?
      | feature_names_in_
    )
    """,
    WORDS,
)
# Names of files and packages, and measures, which are no classes.
NO_CLASS = late_pattern(
    r"""
    [+-]?\d+(\.\d*|\.?\d*e[+-]?\d+)
    | \w+://.* | (~|\.{0,2})/.* | [\w.\[\]-]+\s*([=~><!]=|@).*
    | .*\.(jpe?g|png|bmp|gif|tiff?|webp|wav|flac|mp[34])
    | .*\.(txt|csv|tsv|jsonl?|parquet|npy|npz|pt|h5|gz|tar|zip|py|ya?ml)
    """,
    WORDS,
)
# Words of settings and measures of a training, which may be 0, 1, ... by chance, and beginnings of such names.
SETTING = late_pattern(
    r"""
    seed | random | fold | epochs? | steps? | iters? | iterations? | rank | lr | rate | learning | batch | size
    | version | scores? | trial | run | repeat | exp | experiment | id | idx | index | nr | cpus? | bbox | segm | number
    | num | count | total | split | gpus? | cuda | devices? | node | workers? | rng | loss | acc | accuracy | f1 | auc
    | auroc | precision | recall | top[15] | map | m?iou | mae | r?mse | r2 | ppl | perplexity | bleu | rouge | wer
    | cer | errors? | skipped | missing | [tf][pn] | dropout | drop | decay | wd | weight | momentum | warmup | clip
    | grad | gradient | norm | ema | amp | fp16 | bf16 | mixup | cutmix | smoothing | patience | temperature | eps
    | epsilon
    | layers | depth | width | dim | hidden | verbose | debug | resume | threshold | delta | train(ing)?
    | val(id|idation)? | test | dev | eval | metric | best | last | current | job | attempt | restart | accumulation
    """,
    re.VERBOSE,
)
BEGIN_SETTINGS = {"use", "num", "n", "max", "min", "best", "last", "total", "local", "global", "enable", "disable"}
# Keys, and names of files, of lists of what an embedding has a row for, and of maps that number it: spk2id, lang_ids.
_EMBEDDED = "(speaker|spk|singer|voice|style|emotion|accent|artist|genre|instrument|lang(uage)?|character|domain)s?"
_ID = "(id|ids|idx|ind(ex|ices))"
EMBEDDED = late_pattern(_EMBEDDED, re.IGNORECASE)
EMBEDDED_LISTS = late_pattern(
    rf"({_EMBEDDED}|{_EMBEDDED}([_-]?{_ID})?[_-]?(map(ping)?|list|names?|dict|table)"
    rf"|{_EMBEDDED}[_-]?((2|to)[_-]?)?{_ID}|{_ID}[_-]?(2|to)[_-]?{_EMBEDDED})",
    re.IGNORECASE,
)
_TOKEN = "(token|char|letter|word|phone(me)?|symbol|piece)s?"
# Keys of vocabularies, and of those whose tokens are single letters.
TOKEN_KEYS = late_pattern(
    rf"""
    stoi | itos | vocab(ulary|s)?(_?(json|dict|list|map))? | tokens? | symbols | (src|tgt|source|target)_(dict|vocab)
    | {_TOKEN}(_?{_ID})?_?(map(ping)?|list|table|dict) | {_TOKEN}_?{_ID} | {_TOKEN}_?(2|to)_?{_ID}
    | (id|idx|ind(ex|ices))_?(2|to)_?{_TOKEN}
    """,
    WORDS,
)
LETTERS = late_pattern(r"char(acter)?s?(_?(set|list))?|alphabet|letters|symbols|vocab(ulary)?", re.IGNORECASE)
