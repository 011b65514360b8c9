"""Pairs of English words with people's scores of how alike or related they are: thirteen sets, catalogued "wordsim".

Source: the collection of Faruqui and Dyer 2014, "Community Evaluation and Exchange of Word Vectors at
wordvectors.org"; the sets themselves are named in ``WORD_SETS``. Their scales differ (0 to 1, 4, 5, 10 or 50), which a
rank correlation does not see.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from nextvec.data.catalog import locate
from nextvec.data.lines import number, read_lines
from nextvec.data.sts import ScoredPairs
from nextvec.types import InputError, did_you_mean

__all__ = ["WORD_SETS", "word_similarity"]

WORD_SETS: dict[str, tuple[str, str]] = {
    "ws353": ("EN-WS-353-ALL.txt", "WordSim-353 (Finkelstein et al. 2002)"),
    "ws353-sim": ("EN-WS-353-SIM.txt", "WordSim-353, the similar pairs (Agirre et al. 2009)"),
    "ws353-rel": ("EN-WS-353-REL.txt", "WordSim-353, the related pairs (Agirre et al. 2009)"),
    "simlex999": ("EN-SIMLEX-999.txt", "SimLex-999: similar, not merely related (Hill et al. 2015)"),
    "men": ("EN-MEN-TR-3k.txt", "MEN, 3,000 pairs (Bruni et al. 2012)"),
    "rw": ("EN-RW-STANFORD.txt", "Stanford Rare Words (Luong et al. 2013)"),
    "simverb": ("EN-SimVerb-3500.txt", "SimVerb-3500: verbs (Gerz et al. 2016)"),
    "mturk287": ("EN-MTurk-287.txt", "MTurk-287 (Radinsky et al. 2011)"),
    "mturk771": ("EN-MTurk-771.txt", "MTurk-771 (Halawi et al. 2012)"),
    "rg65": ("EN-RG-65.txt", "RG-65 (Rubenstein and Goodenough 1965)"),
    "mc30": ("EN-MC-30.txt", "MC-30 (Miller and Charles 1991)"),
    "yp130": ("EN-YP-130.txt", "YP-130: verbs (Yang and Powers 2006)"),
    "verb143": ("EN-VERB-143.txt", "VERB-143: verbs (Baker et al. 2014)"),
}
"""Name -> (file, what it is)."""


def word_similarity(name: str, *, folder: Path | None = None) -> ScoredPairs:
    """The pairs of the set ``name``, a key of ``WORD_SETS``, in the file's order.

    folder: where EN-*.txt lie (None: the catalogued set). NotFoundError, with what to do, where it is not on this
    machine; InputError for another name and for a line that is not two words and a score.
    """
    if name not in WORD_SETS:
        known = ", ".join(WORD_SETS)
        raise InputError(f"no word similarity set {name!r}; there are {known}{did_you_mean(name, WORD_SETS)}")
    first, second, scores = [], [], []
    for place, line in read_lines((folder or locate("wordsim")) / WORD_SETS[name][0]):
        fields = line.split()
        if len(fields) != 3:
            raise InputError(f"{place}: {len(fields)} fields; expected two words and a score")
        first.append(fields[0])
        second.append(fields[1])
        scores.append(number(fields[2], place, "score", -math.inf, math.inf))
    values = np.array(scores, dtype=np.float64)
    if not np.isfinite(values).all():
        raise InputError(f"{WORD_SETS[name][0]}: a score is infinite: the file is damaged")
    return ScoredPairs(first, second, values)
