"""The tree that ``markup.parse`` makes, as safe HTML or as plain text."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup, escape

from nextvec.papers import symbols

__all__ = ["Kind", "Node", "to_html", "to_plain"]

Kind = Literal["text", "em", "strong", "code", "sup", "sub", "link"]


@dataclass(frozen=True, slots=True)
class Node:
    """``text`` for kind "text" and the address for "link"; everything else holds children."""

    kind: Kind
    text: str = ""
    children: tuple[Node, ...] = ()


def to_html(nodes: Iterable[Node], *, mark: Callable[[str], Markup] | None = None) -> Markup:
    """Safe HTML. ``mark`` may replace the escaping of plain text, to highlight words in it."""
    say = mark or escape
    out = []
    for node in nodes:
        if node.kind == "text":
            out.append(say(node.text))
            continue
        inner = to_html(node.children, mark=mark)
        if node.kind == "link":
            out.append(Markup('<a href="{}" rel="noopener nofollow">{}</a>').format(node.text, inner))
        else:
            out.append(Markup(f"<{node.kind}>{inner}</{node.kind}>"))
    return Markup("".join(out))


def to_plain(nodes: Iterable[Node]) -> str:
    """Text without markup; scripts as Unicode where it has them (10⁻³, Wᵢ), else ^(...) and _(...)."""
    out = []
    for node in nodes:
        inner = node.text if node.kind == "text" else to_plain(node.children)
        if node.kind in ("sup", "sub"):
            table = symbols.SUPERSCRIPT if node.kind == "sup" else symbols.SUBSCRIPT
            sign = "^" if node.kind == "sup" else "_"
            if inner and all(char in table for char in inner):
                inner = "".join(table[char] for char in inner)
            else:
                inner = f"{sign}{inner}" if len(inner) == 1 else f"{sign}({inner})"
        out.append(inner)
    return "".join(out)
