"""XML from strangers: no document types, no entities, nothing that is fetched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nextvec.extras import require
from nextvec.types import InputError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

__all__ = ["parse", "text_of", "under"]

_DEEPEST = 200


def parse(body: bytes, where: str) -> Element:
    """The root of a document. InputError where it is broken, cut off, or has a document type or entities."""
    require("defusedxml", why="reading XML from other places")
    from xml.etree.ElementTree import ParseError

    from defusedxml import ElementTree
    from defusedxml.common import DefusedXmlException

    try:
        root: Any = ElementTree.fromstring(body, forbid_dtd=True)
    except DefusedXmlException:
        raise InputError(f"{where}: the XML has a document type or entities of its own: refused") from None
    except (ParseError, ValueError, LookupError) as error:  # LookupError: an encoding nobody knows
        raise InputError(f"{where}: the XML is broken or cut off ({error})") from None
    found: Element = root
    return found


def text_of(element: Element | None) -> str:
    """All text of an element and of what is in it; nothing for None."""
    if element is None:
        return ""
    parts: list[str] = []
    todo: list[tuple[Element | str, int]] = [(element, 0)]
    while todo:
        item, depth = todo.pop()
        if isinstance(item, str):
            parts.append(item)
            continue
        parts.append(item.text or "")
        if depth > _DEEPEST:
            raise InputError(f"XML elements are nested more than {_DEEPEST} deep: refused")
        for child in reversed(item):
            todo.append((child.tail or "", depth))
            todo.append((child, depth + 1))
    return "".join(parts)


def under(element: Element, tag: str) -> str:
    """The text of the first child of this (namespaced) tag, spaces made one."""
    return " ".join(text_of(element.find(tag)).split())
