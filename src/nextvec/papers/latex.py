r"""The reader of LaTeX and of the remains of Markdown in titles and abstracts: text -> nodes (``rendering.Node``).

It is lenient by design: what cannot be read stays as it was written, commands nobody knows become their name.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from nextvec.papers import symbols
from nextvec.papers.records import safe_url
from nextvec.papers.rendering import Kind, Node, to_plain

__all__ = ["read"]

_DEPTH = 12
_GREEK_NAMES = "|".join(symbols.GREEK)


_URL = re.compile(r"(?:https?://|www\.)[^\s<>\"{}|\\^`\[\]]+")
_COMMAND = re.compile(r"\\([A-Za-z]+)\*?")
_BARE_WORD = re.compile(rf"(?:{'|'.join(symbols.BARE)})(?![A-Za-z])")
_BARE_GREEK = re.compile(rf"(?:ell|{_GREEK_NAMES})(?=[_^][\w{{])")
_BARE_WRAPPER = re.compile(r"(?:textbf|textit|texttt|textsc|emph|mathbf|mathcal|mathrm|boldsymbol)(?=\{)")
_ORDINARY = re.compile(rf"(?:(?!https?:|www\.|{_BARE_WORD.pattern})[A-Za-z]+[ ,.;:()/%]+)+")
_SUPERSCRIPT = re.compile(r"circ(?![a-z])|[+-]?\d+|\([+-]?\d+\)|[A-Za-z*+](?![A-Za-z])")
_SUBSCRIPT = re.compile(r"(?:\d{1,2}|[A-Za-z])(?![A-Za-z0-9_])")
_SUBSCRIPTED = re.compile(rf"(?:^|[^\w^])(?:[A-Za-z]|ell|{_GREEK_NAMES})$")
_STRONG = re.compile(r"\*\*(?=\S)([^*]{1,200}?)(?<=\S)\*\*")
_CODE = re.compile(r"`([^`'\n]{1,80})`")
_DOLLAR = re.compile(r"\$\$(.{1,400}?)\$\$|\$(?=\S)([^$]{1,300}?)(?<=\S)\$(?!\d)")


class _Parser:
    def __init__(self, text: str) -> None:
        self.s = text
        self.i = 0

    # One run: until ``stop`` or the end. ``math`` decides what letters, scripts and spaces mean.
    def run(self, stop: str, *, math: bool, depth: int) -> list[Node]:
        out: list[Node] = []
        while self.i < len(self.s):
            if stop and self.s.startswith(stop, self.i):
                self.i += len(stop)
                return out
            out.extend(self._step(math=math, depth=depth, before=_last_character(out)))
        return out

    def _step(self, *, math: bool, depth: int, before: str) -> Iterable[Node]:
        char = self.s[self.i]
        if char == "\\":
            return self._backslash(math=math, depth=depth)
        if char in "^_":
            return self._script(char, math=math, depth=depth, before=before)
        if char == "{":
            return self._group(math=math, depth=depth)
        if math:
            return self._math_character(char)
        return self._text_character(char, depth=depth, before=before)

    def _take(self, length: int, text: str | None = None) -> list[Node]:
        piece = self.s[self.i : self.i + length]
        self.i += length
        return [Node("text", piece if text is None else text)] if (text is None or text) else []

    # -- text ----------------------------------------------------------------------------------------------
    def _text_character(self, char: str, *, depth: int, before: str) -> list[Node]:
        s, i = self.s, self.i
        if not before.isalnum() and (ordinary := _ORDINARY.match(s, i)):
            return self._take(ordinary.end() - i)
        if char in "hw" and not before.isalnum() and (match := _URL.match(s, i)):
            return self._link(match.group())
        if char == "$":
            return self._dollar(depth)
        if char == "~":
            tie = before.strip() and i + 1 < len(s) and not s[i + 1].isspace()
            return self._take(1, "\u00a0" if tie else "~")
        if char in "`'" and s.startswith(char * 2, i):
            return self._take(2, "“" if char == "`" else "”")
        if char == "`" and (match := _CODE.match(s, i)):
            self.i = match.end()
            return [Node("code", children=(Node("text", match.group(1)),))]
        if char == "`" or (char == "'" and before.isalnum()):
            return self._take(1, "‘" if char == "`" else "’")
        if char == "*" and depth < _DEPTH and (match := _STRONG.match(s, i)):
            self.i = match.end()
            return [Node("strong", children=tuple(_Parser(match.group(1)).run("", math=False, depth=depth + 1)))]
        if char == "-" and s.startswith("--", i) and not s.startswith("----", i):
            return self._dashes(before)
        if char == "t" and before.isdigit() and s.startswith("times", i) and not s[i + 5 : i + 6].isalpha():
            return self._take(5, "×")
        if char.isalpha() and not before.isalnum():
            return self._word(depth)
        return self._take(1)

    def _word(self, depth: int) -> list[Node]:
        s, i = self.s, self.i
        if match := _BARE_WORD.match(s, i):
            return self._take(len(match.group()), symbols.BARE[match.group()])
        if match := _BARE_GREEK.match(s, i):
            return self._take(len(match.group()), symbols.SYMBOLS[match.group()])
        if match := _BARE_WRAPPER.match(s, i):
            self.i = match.end()
            return list(self._command(match.group(), math=False, depth=depth))
        end = i + 1
        while end < len(s) and s[end].isalpha():
            end += 1
        return self._take(end - i)

    def _dashes(self, before: str) -> list[Node]:
        length = 3 if self.s.startswith("---", self.i) else 2
        after = self.s[self.i + length : self.i + length + 1]
        option = length == 2 and (not before or before.isspace()) and after.isalpha()
        return self._take(length, None if option else ("—" if length == 3 else "–"))

    def _dollar(self, depth: int) -> list[Node]:
        match = _DOLLAR.match(self.s, self.i)
        body = (match.group(1) or match.group(2) or "") if match else ""
        # "$5 to fine-tune, $6 to run" is money; "$k$", "$n \times d$" and "$O(n)$" are maths.
        maths = bool(re.search(r"[\\^_{}=<>]", body)) or (bool(body) and " " not in body and not body[0].isdigit())
        if match is None or not (maths or re.fullmatch(r"\d+", body)) or depth >= _DEPTH:
            return self._take(1)
        self.i = match.end()
        return _Parser(body.strip()).run("", math=True, depth=depth + 1)

    def _link(self, address: str) -> list[Node]:
        address = address.rstrip(".,;:!?'*~")
        while address.endswith(")") and address.count(")") > address.count("("):
            address = address[:-1].rstrip(".,;:!?'*~")
        href = safe_url(address if address.startswith("http") else f"https://{address}")
        if href is None:
            return self._take(max(1, len(address)))
        self.i += len(address)
        if self.s.startswith("{" + address + "}", self.i):  # what is left of \href{address}{address}
            self.i += len(address) + 2
        return [_link_node(href)]

    # -- maths ---------------------------------------------------------------------------------------------
    def _math_character(self, char: str) -> list[Node]:
        if char.isascii() and char.isalpha():
            end = self.i + 1
            while end < len(self.s) and self.s[end].isascii() and self.s[end].isalpha():
                end += 1
            word = self.s[self.i : end]
            if len(word) > 2 and word in symbols.RELATIONS:  # a source that lost its backslashes
                return self._take(len(word), symbols.RELATIONS[word])
            return [Node("em", children=tuple(self._take(len(word))))]
        if char == "&":
            return self._take(1, "")
        return self._take(1, {"-": "−", "'": "′", "~": "\u00a0"}.get(char))

    def _script(self, char: str, *, math: bool, depth: int, before: str) -> list[Node]:
        kind: Kind = "sup" if char == "^" else "sub"
        s, i = self.s, self.i
        attached = bool(before) and not before.isspace()
        if (not attached and not math) or depth >= _DEPTH:
            return self._take(1)
        if s.startswith("{", i + 1) and "}" in s[i + 2 : i + 120]:
            self.i += 2
            children = self.run("}", math=True, depth=depth + 1)
            return _script_node(kind, children)
        if math:
            return self._math_script(kind, depth)
        return self._text_script(kind)

    def _math_script(self, kind: Kind, depth: int) -> list[Node]:
        self.i += 1
        if self.i >= len(self.s):
            return [Node("text", "^" if kind == "sup" else "_")]
        if self.s[self.i] == "\\":
            return _script_node(kind, list(self._backslash(math=True, depth=depth + 1)))
        if self.s[self.i] in "^_{}":
            return []
        char = self.s[self.i]
        return _script_node(kind, self._take(1, {"-": "−", "'": "′", "*": "∗"}.get(char)))

    def _text_script(self, kind: Kind) -> list[Node]:
        """Outside maths: R^2, A^2Search, 10^-9, 360^circ; W_Q and Z_2, but not tool_call or file_2."""
        s, i = self.s, self.i
        if kind == "sup":
            match = _SUPERSCRIPT.match(s, i + 1)
        else:
            symbol = not s[i - 1].isascii() or _SUBSCRIPTED.search(s[max(0, i - 9) : i])
            match = _SUBSCRIPT.match(s, i + 1) if symbol else None
        if match is None:
            return self._take(1)
        self.i = match.end()
        return _script_node(kind, [Node("text", match.group().strip("()").replace("-", "−"))])

    def _group(self, *, math: bool, depth: int) -> list[Node]:
        closing = self.s.find("}", self.i)
        if depth >= _DEPTH or closing < 0:
            return self._take(1)
        inside = self.s[self.i + 1 : closing]
        # Braces that only group (BibTeX's {L}arge, {\it x}) vanish; sets such as {cat, dog} keep theirs.
        groups = math or inside.startswith(("\\", "{")) or re.fullmatch(r"\w{0,12}", inside) is not None
        self.i += 1
        children = self.run("}", math=math, depth=depth + 1)
        return children if groups else [Node("text", "{"), *children, Node("text", "}")]

    # -- commands ------------------------------------------------------------------------------------------
    def _backslash(self, *, math: bool, depth: int) -> Iterable[Node]:
        match = _COMMAND.match(self.s, self.i)
        if match:
            self.i = match.end()
            return self._command(match.group(1), math=math, depth=depth)
        following = self.s[self.i + 1 : self.i + 2]
        if following in "([" and following and depth < _DEPTH and not math:
            end = {"(": r"\)", "[": r"\]"}[following]
            if self.s.find(end, self.i) > 0:
                self.i += 2
                while self.i < len(self.s) and self.s[self.i] == " ":
                    self.i += 1
                return _strip(self.run(end, math=True, depth=depth + 1))
        if following in symbols.ACCENTS and following and not math:
            self.i += 2
            return self._accent(following)
        if following in ",;:! /\\-" or not following:
            space = following in ",;: \\" and following != ""
            return self._take(2 if following else 1, " " if space else "")
        if following == "|" and math:
            return self._take(2, "‖")
        self.i += 1
        return self._take(1)

    def _command(self, name: str, *, math: bool, depth: int) -> Iterable[Node]:
        if name in symbols.RELATIONS:
            return [Node("text", symbols.RELATIONS[name])]
        if name in symbols.SYMBOLS and not (name in symbols.ACCENTS and self._brace()):
            self._gobble(math)
            return [Node("text", symbols.SYMBOLS[name])]
        if name in symbols.SPACES:
            self._gobble(math=True)
            return [Node("text", symbols.SPACES[name])] if symbols.SPACES[name] else []
        if name in symbols.ACCENTS:
            return self._accent(name)
        if name in symbols.SWITCHES and depth < _DEPTH:
            self._gobble(math=True)
            kind: Kind = "strong" if symbols.SWITCHES[name] == "strong" else "em"
            start = self.i
            children = self.run("}", math=math, depth=depth + 1)
            if self.s[self.i - 1 : self.i] == "}" and self.i > start:
                self.i -= 1  # the brace belongs to the group around the switch
            return [Node(kind, children=tuple(children))]
        return self._with_argument(name, math=math, depth=depth)

    def _with_argument(self, name: str, *, math: bool, depth: int) -> Iterable[Node]:
        if name in symbols.DROPPED_WITH_ARGUMENT:
            self._argument_text()
            return []
        if name == "href":
            href = safe_url(self._argument_text())
            label = self._argument(math=False, depth=depth)
            return [Node("link", href, tuple(label))] if href else label
        if name == "url":
            address = self._argument_text()
            href = safe_url(address.rstrip("."))
            return [_link_node(href)] if href else [Node("text", address)]
        if name == "footnote":
            return [Node("text", " ("), *self._argument(math=False, depth=depth), Node("text", ")")]
        if name in ("frac", "tfrac", "dfrac"):
            top = _bracketed(self._argument(math=True, depth=depth))
            return [*top, Node("text", "/"), *_bracketed(self._argument(math=True, depth=depth))]
        if name in ("binom", "tbinom", "dbinom"):
            top, below = (self._argument(math=True, depth=depth) for _ in range(2))
            return [Node("text", "C("), *top, Node("text", ", "), *below, Node("text", ")")]
        if name == "sqrt":
            return [Node("text", "√"), *_bracketed(self._argument(math=True, depth=depth))]
        if name == "mathbb":
            text = to_plain(self._argument(math=False, depth=depth))
            return [Node("text", "".join(symbols.DOUBLE_STRUCK.get(char, char) for char in text))]
        if name in symbols.STRONG | symbols.EMPHASIS | symbols.CODE:
            kind: Kind = "strong" if name in symbols.STRONG else "em" if name in symbols.EMPHASIS else "code"
            return [Node(kind, children=tuple(self._argument(math=False, depth=depth)))]
        if name in symbols.PLAIN:
            return self._argument(math=False, depth=depth)
        if math and name in (
            "log",
            "exp",
            "max",
            "min",
            "arg",
            "sup",
            "inf",
            "lim",
            "sin",
            "cos",
            "det",
            "Pr",
        ):
            return [Node("text", name)]
        if self.s.startswith("{}", self.i):
            self.i += 2
        return [Node("text", name)]

    def _brace(self) -> bool:
        return self.s.startswith("{", self.i)

    def _gobble(self, math: bool) -> None:
        """TeX ends a command's name at a space and eats it; authors of text forget that, so only in maths."""
        if self.s.startswith("{}", self.i):
            self.i += 2
        elif math and self.s.startswith(" ", self.i) and self.s[self.i + 1 : self.i + 2].isalnum():
            self.i += 1

    def _argument(self, *, math: bool, depth: int) -> list[Node]:
        while self.s.startswith(" ", self.i) and self.s.startswith("{", self.i + 1):
            self.i += 1
        if self._brace() and depth < _DEPTH:
            self.i += 1
            return self.run("}", math=math, depth=depth + 1)
        if self._brace() or self.i >= len(self.s):
            return []
        if self.s[self.i] == "\\" and depth < _DEPTH:
            return list(self._backslash(math=math, depth=depth + 1))
        return [Node("em", children=tuple(self._take(1)))] if math and self.s[self.i].isalpha() else self._take(1)

    def _argument_text(self) -> str:
        if not self._brace():
            return ""
        end = self.s.find("}", self.i)
        end = len(self.s) if end < 0 else end
        text = self.s[self.i + 1 : end]
        self.i = end + 1
        return text.strip()

    def _accent(self, name: str) -> list[Node]:
        text = self._argument_text() if self._brace() else self.s[self.i : self.i + 1]
        if not self._brace() and text and not self.s.startswith("{" + text + "}", self.i - len(text) - 2):
            self.i += 1
        text = {"\\i": "i", "\\j": "j"}.get(text, text.strip("\\{} "))
        if not text:
            return [Node("text", name)] if name == '"' else []
        return [Node("text", unicodedata.normalize("NFC", text[0] + symbols.ACCENTS[name] + text[1:]))]


def _last_character(nodes: list[Node]) -> str:
    node = nodes[-1] if nodes else None
    while node is not None and node.kind != "text":
        node = node.children[-1] if node.children else None
    return node.text[-1:] if node is not None else ""


def _script_node(kind: Kind, children: list[Node]) -> list[Node]:
    if kind == "sup" and to_plain(children) in ("∘", "circ", "deg"):
        return [Node("text", "°")]
    return [Node(kind, children=tuple(children))] if children else []


def _bracketed(nodes: list[Node]) -> list[Node]:
    return nodes if len(to_plain(nodes)) <= 1 else [Node("text", "("), *nodes, Node("text", ")")]


def _link_node(href: str) -> Node:
    label = re.sub(r"^https?://(www\.)?", "", href).rstrip("/")
    return Node("link", href, (Node("text", label if len(label) <= 60 else label[:59] + "…"),))


def _strip(nodes: list[Node]) -> list[Node]:
    while nodes and nodes[-1].kind == "text" and not nodes[-1].text.strip():
        nodes = nodes[:-1]
    return nodes


def read(text: str) -> list[Node]:
    """The nodes of ``text``; neighbouring pieces of text are not joined. Never raises."""
    return _Parser(text).run("", math=False, depth=0)
