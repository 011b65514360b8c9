"""Tables of the LaTeX commands that titles and abstracts use, and the Unicode they stand for."""

from __future__ import annotations

import unicodedata

_GREEK_NAMES = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma tau upsilon "
    "phi chi psi omega"
)


def _greek() -> dict[str, str]:
    table = {}
    for name in _GREEK_NAMES.split():
        unicode_name = "LAMDA" if name == "lambda" else name.upper()
        table[name] = unicodedata.lookup(f"GREEK SMALL LETTER {unicode_name}")
        table[name.capitalize()] = unicodedata.lookup(f"GREEK CAPITAL LETTER {unicode_name}")
    table |= {f"var{name}": table[name] for name in ("epsilon", "theta", "phi", "rho", "sigma", "pi")}
    return table


GREEK = _greek()

RELATIONS = {
    "times": "×", "cdot": "·", "pm": "±", "mp": "∓", "div": "÷", "ast": "∗", "star": "⋆", "circ": "∘",
    "bullet": "•", "oplus": "⊕", "otimes": "⊗", "odot": "⊙", "cap": "∩", "cup": "∪", "setminus": "∖",
    "wedge": "∧", "vee": "∨", "land": "∧", "lor": "∨",
    "leq": "≤", "le": "≤", "leqslant": "≤", "geq": "≥", "ge": "≥", "geqslant": "≥", "neq": "≠", "ne": "≠",
    "ll": "≪", "gg": "≫", "lt": "<", "gt": ">", "approx": "≈", "sim": "∼", "simeq": "≃", "cong": "≅",
    "equiv": "≡", "propto": "∝", "lesssim": "≲", "gtrsim": "≳", "in": "∈", "notin": "∉", "ni": "∋",
    "subset": "⊂", "subseteq": "⊆", "supset": "⊃", "supseteq": "⊇", "mid": "|", "parallel": "∥", "perp": "⊥",
    "to": "→", "rightarrow": "→", "leftarrow": "←", "leftrightarrow": "↔", "longrightarrow": "⟶",
    "Rightarrow": "⇒", "Leftarrow": "⇐", "Leftrightarrow": "⇔", "implies": "⇒", "iff": "⇔", "mapsto": "↦",
    "uparrow": "↑", "downarrow": "↓", "gets": "←", "colon": ":",
}  # fmt: skip

SYMBOLS = GREEK | {
    "ell": "ℓ", "hbar": "ℏ", "infty": "∞", "partial": "∂", "nabla": "∇", "forall": "∀", "exists": "∃",
    "emptyset": "∅", "varnothing": "∅", "sum": "∑", "prod": "∏", "int": "∫", "angle": "∠", "triangle": "△",
    "degree": "°", "deg": "°", "textdegree": "°", "prime": "′", "dagger": "†", "ddagger": "‡", "S": "§", "P": "¶",
    "lceil": "⌈", "rceil": "⌉", "lfloor": "⌊", "rfloor": "⌋", "langle": "⟨", "rangle": "⟩", "lvert": "|",
    "rvert": "|", "vert": "|", "lVert": "‖", "rVert": "‖", "Vert": "‖", "lbrace": "{", "rbrace": "}",
    "lbrack": "[", "rbrack": "]", "backslash": "\\", "Re": "ℜ", "Im": "ℑ", "aleph": "ℵ", "top": "⊤", "bot": "⊥",
    "ldots": "…", "dots": "…", "cdots": "⋯", "textellipsis": "…", "textgreater": ">", "textless": "<",
    "textasciitilde": "~", "textasciicircum": "^", "textbackslash": "\\", "textbar": "|", "textendash": "–",
    "textemdash": "—", "textquoteright": "’", "textquoteleft": "‘", "checkmark": "✓", "copyright": "©",
    "pounds": "£", "euro": "€", "i": "ı", "j": "ȷ", "o": "ø", "O": "Ø", "l": "ł", "L": "Ł", "ss": "ß", "ae": "æ",
    "AE": "Æ", "oe": "œ", "OE": "Œ", "aa": "å", "AA": "Å", "LaTeX": "LaTeX", "TeX": "TeX",
    "eg": "e.g.", "ie": "i.e.", "etc": "etc.", "etal": "et al.",
}  # fmt: skip

SPACES = {
    "quad": " ", "qquad": " ", "newline": " ", "par": " ", "space": " ", "linebreak": " ", "hfill": " ",
    "xspace": "", "allowbreak": "", "nobreakdash": "", "noindent": "", "left": "", "right": "", "big": "",
    "Big": "", "bigl": "", "bigr": "", "Bigl": "", "Bigr": "", "middle": "", "limits": "", "displaystyle": "",
    "textstyle": "", "protect": "", "centering": "", "small": "", "footnotesize": "", "large": "", "sf": "",
    "rm": "", "sc": "", "tt": "", "nolimits": "", "null": "", "relax": "",
}  # fmt: skip

STRONG = {"textbf", "mathbf", "bm", "boldsymbol", "pmb"}
EMPHASIS = {"emph", "textit", "mathit", "textsl"}
CODE = {"texttt", "mathtt", "verb"}
PLAIN = {
    "text", "textrm", "textsc", "textsf", "textnormal", "mathrm", "mathsf", "mathcal", "mathscr", "mathfrak",
    "operatorname", "mbox", "hbox", "fbox", "underline", "uline", "ensuremath", "widehat", "widetilde", "overline",
    "mathop", "textup", "lowercase", "uppercase", "smash", "textmd", "url",
}  # fmt: skip
DROPPED_WITH_ARGUMENT = {
    "begin", "end", "label", "cite", "citep", "citet", "ref", "eqref", "vspace", "hspace", "color",
    "includegraphics", "thanks",
}  # fmt: skip
SWITCHES = {"it": "em", "em": "em", "itshape": "em", "bf": "strong", "bfseries": "strong"}

ACCENTS = {
    "'": "\u0301", "`": "\u0300", "^": "\u0302", '"': "\u0308", "~": "\u0303", "=": "\u0304", ".": "\u0307",
    "u": "\u0306", "v": "\u030c", "H": "\u030b", "c": "\u0327", "k": "\u0328", "r": "\u030a",
    "hat": "\u0302", "bar": "\u0304", "tilde": "\u0303", "dot": "\u0307", "ddot": "\u0308", "vec": "\u20d7",
}  # fmt: skip

DOUBLE_STRUCK = dict(zip("CHNPQRZE1", "ℂℍℕℙℚℝℤ𝔼𝟙", strict=True))

SUPERSCRIPT = dict(zip("0123456789+-−=()ni", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁼⁽⁾ⁿⁱ", strict=True))
SUBSCRIPT = dict(zip("0123456789+-−=()aehijklmnoprstuvx", "₀₁₂₃₄₅₆₇₈₉₊₋₋₌₍₎ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓ", strict=True))

BARE = {
    name: (RELATIONS | SYMBOLS)[name]
    for name in (
        "cdot",
        "propto",
        "leq",
        "geq",
        "neq",
        "rightarrow",
        "leftarrow",
        "infty",
        "lceil",
        "rceil",
        "lfloor",
        "rfloor",
        "langle",
        "rangle",
    )
}  # fmt: skip
"""Command names that are no English words: sources that strip backslashes leave these behind as plain words."""
