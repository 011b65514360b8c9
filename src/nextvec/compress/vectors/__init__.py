"""Codecs: vectors to few bytes, and back. One file per codec, joined by a short spec such as "pca128,int8".

    codec = fit("pca128,int8", sample)          # learns from float32 [n, D]
    codes = codec.encode(vectors)               # [n, ...], codec.bytes_per_vector bytes a row
    found = top_k(codec, queries, codes, 10, rerank=vectors)
    codec.save(folder); codec = load(folder)

What a file here holds is one part of a codec: either a transform (D numbers to d numbers: ``truncate``, ``pca``,
``rotate``) or a coder (numbers to bytes: ``float32``, ``float16``, ``bf16``, ``int8``, ``binary``, ``pq``). A spec is
any number of transforms and one coder at its end. No extra is needed.
"""

from __future__ import annotations

from nextvec.compress.vectors._codec import Codec
from nextvec.compress.vectors._part import Coder, Part, Stage, Transform
from nextvec.compress.vectors._spec import find, fit, load, names, parse
from nextvec.compress.vectors._top_k import Found, top_k

__all__ = [
    "Codec",
    "Coder",
    "Found",
    "Part",
    "Stage",
    "Transform",
    "find",
    "fit",
    "load",
    "names",
    "parse",
    "top_k",
]
