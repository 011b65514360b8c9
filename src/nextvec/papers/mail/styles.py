"""How mails look. Readers of mail drop style sheets, so every element carries its own style; only what is dark, or for
narrow screens, stands in a media query, which those that know neither leave out."""

from __future__ import annotations

__all__ = ["CSS", "DARK"]

_SANS = "font-family:-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif"
_SERIF = "font-family:Charter,Georgia,'Times New Roman',serif"

CSS = {
    "body": f"margin:0;padding:0;background:#faf8f4;color:#1b1f24;{_SANS}",
    "ground": "background:#faf8f4",
    "column": "max-width:620px;margin:0 auto;text-align:left",
    "preheader": "display:none;max-height:0;max-width:0;overflow:hidden;opacity:0;mso-hide:all",
    "brand": f"margin:0 0 12px;font-size:15px;line-height:20px;{_SERIF}",
    "brandlink": "color:#1b1f24;text-decoration:none",
    "h1": f"margin:0 0 6px;font-size:25px;line-height:30px;font-weight:700;color:#1b1f24;{_SERIF}",
    "small": f"margin:0 0 8px;font-size:14px;line-height:20px;color:#565c63;{_SANS}",
    "quiet": "color:#565c63;text-decoration:underline",
    "more": f"margin:0 0 14px;font-size:16px;line-height:22px;font-weight:600;color:#1b1f24;{_SANS}",
    "card": "background:#fffefb;border:1px solid #e4dfd5;border-radius:10px;padding:4px 18px",
    "letter": "background:#fffefb;border:1px solid #e4dfd5;border-radius:10px;padding:24px 24px 16px",
    "votes": "width:46px;padding:18px 12px 18px 0;border-bottom:1px solid #e4dfd5;vertical-align:top;text-align:center",
    "count": f"display:block;font-size:20px;line-height:24px;color:#1b1f24;{_SERIF}",
    "unit": f"display:block;font-size:12px;line-height:15px;color:#565c63;{_SANS}",
    "paper": "padding:18px 0;border-bottom:1px solid #e4dfd5;vertical-align:top;word-break:break-word",
    "h2": f"margin:0;font-size:18px;line-height:24px;font-weight:700;{_SERIF}",
    "title": "color:#1b1f24;text-decoration:none",
    "facts": f"margin:4px 0 0;font-size:14px;line-height:20px;color:#565c63;{_SANS}",
    "why": f"margin:4px 0 0;font-size:14px;line-height:20px;color:#1d6a4b;{_SANS}",
    "teaser": f"margin:8px 0 0;font-size:15px;line-height:23px;color:#1b1f24;{_SANS}",
    "links": f"margin:8px 0 0;font-size:14px;line-height:20px;color:#565c63;{_SANS}",
    "link": "color:#a8401c;text-decoration:underline",
    "said": f"margin:0 0 18px;font-size:16px;line-height:24px;color:#1b1f24;{_SANS}",
    "button": "background:#16324f;border-radius:8px;padding:11px 26px",
    "buttonlink": f"color:#faf8f4;font-size:16px;line-height:22px;font-weight:600;text-decoration:none;{_SANS}",
}
"""The style of each element, by its name in the templates."""

DARK = """@media (prefers-color-scheme: dark) {
.ground { background: #12161b !important; }
.card { background: #181d24 !important; border-color: #2a313a !important; }
.line { border-color: #2a313a !important; }
.ink { color: #e9e6df !important; }
.soft { color: #a2a8b0 !important; }
.accent { color: #ff9f78 !important; }
.why { color: #7fd6ac !important; }
.button { background: #dfe8f2 !important; }
.buttonlink { color: #12161b !important; }
}"""
