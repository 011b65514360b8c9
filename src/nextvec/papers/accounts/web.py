"""Everything that readers with an account ask for: one router for each concern."""

from __future__ import annotations

from nextvec.papers.accounts import (
    web_account,
    web_following,
    web_lists,
    web_moderation,
    web_papers,
    web_sign_in,
    web_tokens,
)

__all__ = ["routers"]

routers = [
    module.router
    for module in (web_sign_in, web_account, web_tokens, web_papers, web_lists, web_following, web_moderation)
]
