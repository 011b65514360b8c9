"""Specs: "pca128,int8" to stages, stages to a fitted codec, a folder to the codec that it holds.

spec   = stage ("," stage)*         transforms first, one coder last (float32 where none is named)
stage  = name [number] (":" option)*
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nextvec import catalog
from nextvec.compress.vectors._codec import Codec
from nextvec.compress.vectors._folder import array_name, damaged, read_array, read_header
from nextvec.compress.vectors._inputs import check_matrix, check_metric, prepare
from nextvec.compress.vectors._part import BLOCK, Coder, Float32, Metric, Part, Stage, Transform
from nextvec.types import InputError, NotFoundError, StorageError, did_you_mean

PACKAGE = "nextvec.compress.vectors"
_MAX_SPEC = 200  # characters
_MAX_DIM = 1 << 20


def names() -> list[str]:
    """The parts there are, by file name."""
    return catalog.names(PACKAGE)


def find(name: str) -> type[Transform] | type[Coder]:
    """The part in the file ``name``. NotFoundError, with the closest name, where there is none; InputError where the
    file does not hold exactly one."""
    known = names()
    if name not in known:
        raise NotFoundError(f"no codec {name!r}; there are {', '.join(known)}{did_you_mean(name, known)}")
    module = catalog.load(PACKAGE, name)
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, (Transform, Coder)) and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise InputError(f"{PACKAGE}.{name} holds {len(found)} codecs; exactly one class is expected there")
    return found[0]


def parse(spec: Any) -> list[Stage]:
    """The stages of ``spec``, with "float32" at the end where no coder is named.

    InputError (NotFoundError for an unknown name) says what is wrong with which stage.
    """
    if not isinstance(spec, str):
        raise InputError(f"the spec is a {type(spec).__name__}: expected a text such as 'pca128,int8'")
    if not spec.strip() or len(spec) > _MAX_SPEC:
        raise InputError(f"the spec has {len(spec.strip())} characters: expected 1 to {_MAX_SPEC}, as in 'pca128,int8'")
    stages = [_stage(text.strip(), spec) for text in spec.split(",")]
    if not issubclass(find(stages[-1].name), Coder):
        stages.append(Stage("float32"))
    for stage in stages[:-1]:
        if not issubclass(find(stage.name), Transform):
            raise InputError(f"in the spec {spec!r}, {stage.name!r} makes the codes: expected it last, and once")
    return stages


def _stage(text: str, spec: str) -> Stage:
    body, *options = text.split(":")
    # Names may end in digits ("int8"): the longest that fits is meant.
    name = max((known for known in names() if body.startswith(known)), key=len, default=None)
    rest = "" if name is None else body[len(name) :]
    if name is None or not re.fullmatch(r"[0-9]{0,7}", rest):
        hint = did_you_mean(body, names()) or did_you_mean(body.rstrip("0123456789"), names())
        raise NotFoundError(f"no codec {body!r} (in the spec {spec!r}); there are {', '.join(names())}{hint}")
    part = find(name)
    if part.number and not rest:
        raise InputError(f"{name!r} needs a number ({part.number}), as in '{name}32'; the spec is {spec!r}")
    if rest and not part.number:
        raise InputError(f"{name!r} takes no number, got {body!r} in the spec {spec!r}")
    if rest and int(rest) < 1:
        raise InputError(f"the number of {body!r} ({part.number}) is {int(rest)}: expected at least 1")
    for option in options:
        if option not in part.options:
            known = ", ".join(part.options) or "none"
            raise InputError(f"{name!r} has no option {option!r} (known: {known}){did_you_mean(option, part.options)}")
    if len(set(options)) != len(options):
        raise InputError(f"an option of {text!r} comes twice in the spec {spec!r}")
    return Stage(name, int(rest) if rest else None, tuple(options))


def fit(spec: str, sample: Any, *, metric: Metric = "cosine", seed: int = 0) -> Codec:
    """A codec that has learnt what it needs from ``sample`` (numbers [n, D], n >= 1).

    metric: "cosine" (vectors are brought to length 1 before anything else, as a collection does) or "dot" (they are
    taken as they come); seed: of all random choices: the same sample and seed give the same codec on one machine.
    InputError for a sample that cannot be used (a row is named) or is too small for the spec, NotFoundError for an
    unknown name.
    """
    stages = parse(spec)
    check_metric(metric)
    array = check_matrix(sample, None, "training vector")
    if not len(array):
        raise InputError("there are no training vectors: expected [n, D] with n of at least 1")
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise InputError(f"seed is {seed!r}: expected a whole number of at least 0")
    rng = np.random.default_rng(seed)
    vectors = prepare(array, metric, "training vector")

    def learn(part: type[Part], stage: Stage, before: Sequence[Transform]) -> dict[str, Float32]:
        nonlocal vectors
        if before:
            starts = range(0, len(vectors), BLOCK)
            vectors = np.concatenate([before[-1].forward(vectors[start : start + BLOCK], start) for start in starts])
        return part.learn(stage, vectors, rng)

    return _build(stages, array.shape[1], metric, learn)


def load(folder: str | Path) -> Codec:
    """The codec that ``Codec.save`` wrote to ``folder``. NotFoundError where there is none, StorageError where it is
    not what was written."""
    place = Path(folder)
    header = read_header(place)
    while True:
        try:
            return _assemble(place, header)
        except StorageError:
            # Another process may have replaced the codec in between, and removed what this header names.
            again = read_header(place)
            if again == header:
                raise
            header = again


def _assemble(place: Path, header: dict[str, Any]) -> Codec:
    spec, metric, dim = header.get("spec"), header.get("metric"), header.get("dim")
    if type(dim) is not int or not 1 <= dim <= _MAX_DIM:
        raise damaged(place, f"dim is {dim!r}")
    entries = header.get("arrays")
    if not isinstance(entries, dict):
        raise damaged(place, "it names no arrays")
    read: set[str] = set()

    def give(part: type[Part], stage: Stage, before: Sequence[Transform]) -> dict[str, Float32]:
        shapes = part.shapes(stage, before[-1].width if before else dim)
        keys = {name: array_name(len(before), stage, name) for name in shapes}
        read.update(keys.values())
        return {name: read_array(place, entries, keys[name], shape) for name, shape in shapes.items()}

    try:
        codec = _build(parse(spec), dim, check_metric(metric), give)
    except (InputError, NotFoundError) as error:
        raise damaged(place, error) from error
    if read != set(entries):
        raise damaged(place, f"expected the arrays {sorted(read)}")
    return codec


def _build(
    stages: list[Stage],
    dim: int,
    metric: Metric,
    arrays: Callable[[type[Part], Stage, Sequence[Transform]], dict[str, Float32]],
) -> Codec:
    """Put the parts together; ``arrays`` gives what each has learnt, and is told which transforms come before it."""
    transforms: list[Transform] = []
    width, inner = dim, metric
    for stage in stages:
        kind = find(stage.name)
        kind.check(stage, width)
        part = kind(stage, width, inner, arrays(kind, stage, tuple(transforms)))
        if isinstance(part, Coder):
            return Codec(transforms, part, dim=dim, metric=metric)
        transforms.append(part)
        width, inner = part.width, part.metric_after
    raise InputError("there is no coder among the stages")
