"""Who trains, who validates, who is reported, and whose labels are used: chosen by written seeds, saved as ``splits.json``.

Every choice sorts the names by the SHA-256 of seed and name. That order depends on no library and no platform, and adding a case
moves none of the others; taking the first N of it makes larger choices contain the smaller ones.

Validation needs labels, so the folds divide the labelled cases; unlabelled cases train in every fold. Where nothing can be held
out (``fold="all"``, ``folds=1``, or fewer than two labelled cases) the network trains on everything, and validation looks at up to
eight of the training cases: a sign of life, not a measurement, and recorded as ``"validation_in_training": true``.

Images of one patient stay together: where names are grouped, every number (of folds, of cases held out, of labels used) counts
groups. With several domains each has a split of its own, by the same rules and seeds; one ``splits.json`` holds them all.
"""

from tools.data.splits.division import make_splits, report_pairs, report_split
from tools.data.splits.domains import domain_patients, read_domain_splits, select_domains
from tools.data.splits.evaluation import evaluation_cases, evaluation_cases_of_model
from tools.data.splits.groups import FRAMES, case_groups
from tools.data.splits.selection import select
from tools.data.splits.split import Split, apply_split, read_split, write_split

__all__ = [
    "FRAMES",
    "Split",
    "apply_split",
    "case_groups",
    "domain_patients",
    "evaluation_cases",
    "evaluation_cases_of_model",
    "make_splits",
    "read_domain_splits",
    "read_split",
    "report_pairs",
    "report_split",
    "select",
    "select_domains",
    "write_split",
]
