"""Similarities of two batches of maps: one value per sample, higher is more alike, best value 1.

`cosine` and `pearson` compare signed maps of any shape; rank correlations, top-k overlaps and LENS
scores compare heatmaps (n, h, w). A score that is undefined for a sample, such as a correlation with a
constant map, is NaN for that sample; reports count these and leave them out. `chance_level` says what a
score gives for maps that have nothing to do with each other: a score means little without it.
`identification` and its kin look at all images of a class together: does a map still belong to its image?
Of sentences, `OnWords` leaves the padding out, and `word_lens_recall` has neighbours among words.
`leakage` looks at one map, and asks how much of it lies where nothing can matter.
"""

from attrlib.maps import dilate, diverse_topk, topk_mask
from attrlib.metrics.chance import chance_level, corrected, interval, seed_interval
from attrlib.metrics.correlations import (
    cosine,
    kendall,
    lens_kendall,
    lens_spearman,
    pearson,
    spearman,
)
from attrlib.metrics.identity import (
    Estimate,
    identification,
    outside_template,
    rank_one,
    specific,
)
from attrlib.metrics.places import center_shift, lens_precision, lens_recall, topk_intersection
from attrlib.metrics.regions import leakage, topk_leakage
from attrlib.metrics.summaries import auroc, group_means
from attrlib.metrics.words import OnWords, valence_agreement, word_lens_recall, word_neighbours

__all__ = [
    "Estimate",
    "OnWords",
    "auroc",
    "center_shift",
    "chance_level",
    "corrected",
    "cosine",
    "dilate",
    "diverse_topk",
    "group_means",
    "identification",
    "interval",
    "kendall",
    "leakage",
    "lens_kendall",
    "lens_precision",
    "lens_recall",
    "lens_spearman",
    "outside_template",
    "pearson",
    "rank_one",
    "seed_interval",
    "spearman",
    "specific",
    "topk_intersection",
    "topk_leakage",
    "topk_mask",
    "valence_agreement",
    "word_lens_recall",
    "word_neighbours",
]
