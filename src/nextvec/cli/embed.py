"""``nextvec embed``: texts from a file to vectors in a .npy file, or one text to the screen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nextvec.cli.console import JsonFlag, emit, progress
from nextvec.types import InputError


def command(
    source: Annotated[
        str, typer.Argument(help="A file or folder (jsonl, csv, parquet, text; .gz/.xz/.zst), or a text with --text.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The .npy file to write; an interrupted run resumes.")
    ] = None,
    model: Annotated[str, typer.Option("--model", "-m", help="Bundled name, folder, or hub id.")] = "nextvec-mini",
    field: Annotated[
        list[str] | None,
        typer.Option(
            "--field", "-f", help="Field(s) to embed, joined by a newline. Default: text, or title and summary."
        ),
    ] = None,
    text: Annotated[bool, typer.Option("--text", help="SOURCE is the text itself.")] = False,
    role: Annotated[str | None, typer.Option("--role", help="query or document: picks the model's prompt.")] = None,
    dim: Annotated[int | None, typer.Option("--dim", help="Keep the first DIM values (before normalising).")] = None,
    layers: Annotated[
        int | None, typer.Option("--layers", help="Run only the first LAYERS layers of a transformer.")
    ] = None,
    precision: Annotated[str, typer.Option("--precision", help="auto, fp32 or bf16.")] = "auto",
    dtype: Annotated[str, typer.Option("--dtype", help="float32, float16, int8 or binary.")] = "float32",
    as_json: JsonFlag = False,
) -> None:
    """Embed the texts of a file into a .npy matrix, one row per record in order."""
    from nextvec.encoder import Encoder

    if out is not None:
        _check_out(out, source)
    encoder = Encoder.load(model)
    options = {"role": role, "dim": dim, "layers": layers, "precision": precision, "dtype": dtype}
    if text:
        vector = encoder.encode(source, **options)  # type: ignore[arg-type]
        emit(
            {"model": model, "dim": len(vector), "vector": vector.tolist()}, as_json=as_json, text=str(vector.tolist())
        )
        return
    if out is None:
        raise InputError("--out is missing: name the .npy file to write (or pass --text to embed SOURCE itself)")
    texts = _texts(Path(source), field)
    with progress(f"embedding with {encoder.name}") as report:
        vectors = encoder.encode(texts, out=out, progress=report, **options)  # type: ignore[arg-type]
    document = {
        "model": model,
        "rows": len(vectors),
        "shape": list(vectors.shape),
        "dtype": str(vectors.dtype),
        "out": str(out),
    }
    emit(document, as_json=as_json, text=f"{len(vectors):,} x {vectors.shape[1]} {vectors.dtype} written to {out}")


def _check_out(out: Path, source: str) -> None:
    """Refuse to replace what is no file (a device, a pipe) and the very file that is read."""
    if out.exists() and not out.is_file():
        what = "a folder" if out.is_dir() else "a device or pipe"
        raise InputError(f"--out is {str(out)!r}, {what}: name a .npy file")
    if out.exists() and out.resolve() == Path(source).resolve():
        raise InputError(f"--out is {str(out)!r}, the file to read: name another one")


def _texts(path: Path, fields: list[str] | None) -> list[str]:
    from nextvec.data.readers import read_located

    texts = []
    for place, record in read_located(path):
        names = fields or (["text"] if "text" in record else ["title", "summary"])
        values = [record.get(name) for name in names]
        if not all(isinstance(value, str) for value in values):
            missing = next(name for name, value in zip(names, values, strict=True) if not isinstance(value, str))
            raise InputError(f"{place}: no text in field {missing!r}; name the field(s) with --field")
        texts.append("\n".join(str(value) for value in values))
    if not texts:
        raise InputError(f"{path}: no records to embed")
    return texts
