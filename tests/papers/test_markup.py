from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nextvec.papers.markup import html, parse, plain, teaser
from nextvec.papers.records import Paper

CASES = [
    (r"cost $0.1 and $5 for $10^{-3}$", "cost $0.1 and $5 for 10⁻³"),
    (r"from $120 to $65) it", "from $120 to $65) it"),
    (r"$\alpha \leq 1$ and \(L_{1} \times 2\)", "α ≤ 1 and L₁ × 2"),
    (r"$O(n \log n)$ for $k$-NN", "O(n log n) for k-NN"),
    (r"$\mathbf{x}_{i}^{2} \in \mathbb{R}^d$", "xᵢ² ∈ ℝ^d"),
    (r"$\frac{1}{2}$, $\sqrt{n+1}$", "1/2, √(n+1)"),
    (r"$\binom{n}{k}$ and $\|x\|_2$", "C(n, k) and ‖x‖₂"),
    (r"360{\deg}, 360^circ, 360^{\circ}", "360°, 360°, 360°"),
    (r"A^2Search, OPD^2, 10^(-9), 2^{18}", "A²Search, OPD², 10⁻⁹, 2¹⁸"),
    ("W_Q and Z_2 but tool_call and file_2", "W_Q and Z₂ but tool_call and file_2"),
    (r"2.3\times faster, 8times8, O(N cdot T)", "2.3× faster, 8×8, O(N · T)"),
    (r"R^{d times d}, T propto D", "R^(d × d), T ∝ D"),
    (r"45\% \& more \#1 a\_b \$5", "45% & more #1 a_b $5"),
    (r"\textbf{C}ausal \emph{x} \textsc{S-Agent} {\it Shallow UNet} end", "Causal x S-Agent Shallow UNet end"),
    (r"we introduce \method, \name\ and \ours{}: x", "we introduce method, name and ours: x"),
    (r"Schr\"odinger, Erd\H{o}s, caf\'e, na\"{\i}ve, Gar\c{c}on", "Schrödinger, Erdős, café, naïve, Garçon"),
    ("``game'' and `thinking' -- AIME~2024, ~10 it's", "“game” and ‘thinking’ – AIME\u00a02024, ~10 it’s"),
    ("the --flag option", "the --flag option"),
    ("**bold** and `code_x`", "bold and code_x"),
    ("[{cat, dog}] {L}arge", "[{cat, dog}] Large"),
    ("a\n  b\tc\x00d", "a b c d"),
    ("", ""),
]


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_plain_text_is_readable(text: str, expected: str) -> None:
    assert plain(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"$x_{i}^{2}$", "<em>x</em><sub><em>i</em></sub><sup>2</sup>"),
        (r"\textbf{a} \texttt{b}", "<strong>a</strong> <code>b</code>"),
        ("a < b & c", "a &lt; b &amp; c"),
        ("see https://x.io/a_b).", 'see <a href="https://x.io/a_b" rel="noopener nofollow">x.io/a_b</a>).'),
        (r"\href{https://x.io}{here}", '<a href="https://x.io" rel="noopener nofollow">here</a>'),
        (r"\href{javascript:alert(1)}{here}", "here"),
        (r"\url{data:text/html,x}", "data:text/html,x"),
        ("https://a.io/b{https://a.io/b}.", '<a href="https://a.io/b" rel="noopener nofollow">a.io/b</a>.'),
    ],
)
def test_html(text: str, expected: str) -> None:
    assert str(html(text)) == expected


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in {"em", "strong", "code", "sup", "sub", "a"}
        assert {name for name, _ in attrs} <= {"href", "rel"}
        self.addresses += [value or "" for name, value in attrs if name == "href"]
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


_PIECES = st.sampled_from(
    ["<script>", "</p>", '"', "'", "&", "\\", "\\textbf{", "\\href{", "\\url{", "}", "{", "$", "$$", "^", "_", "~",
     "`", "**", "https://", "javascript:", "\\(", "\\)", "\\frac", "\\it ", "\\'", "\\begin{x}", "x", " ", "\x00",
     "\ud800", "é", "times", "2", "^{circ}", "\\\\", "[", "--"]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.lists(_PIECES, max_size=40).map("".join), st.text(max_size=200)))
@example("\\href{javascript:alert(1)}{<script>}")
@example('https://x.io/"onmouseover="alert(1)')
@example("$" * 50 + "^{" * 50)
def test_never_raises_and_never_lets_markup_through(text: str) -> None:
    shown = str(html(text))
    reader = _Tags()
    reader.feed(shown)
    reader.close()
    assert not reader.open, "every element is closed"
    assert all(re.match(r"https?://[A-Za-z0-9]", address) for address in reader.addresses)
    assert "<script" not in shown
    assert isinstance(plain(text), str)
    assert len(teaser(text, 80)) <= 80


def test_hostile_length_takes_linear_time() -> None:
    for piece in ("{", "\\textbf{", "^{", "**a", "\\(", "a_{", "`a", "$a"):
        assert parse(piece * (25_000 // len(piece)))


def test_every_bundled_title_and_abstract_is_rendered(bundled: list[Paper]) -> None:
    for paper in bundled[::7]:
        title, summary = plain(paper.title), plain(paper.summary)
        assert title.strip() and "\\text" not in summary and "\\url" not in summary
        assert len(summary) > 0.5 * len(paper.summary)


def test_teaser_ends_at_a_word() -> None:
    assert teaser("one two three four", 12) == "one two…"
    assert teaser("short", 12) == "short"
