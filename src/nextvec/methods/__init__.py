"""One file per published method; what this folder holds is what there is (see CONTRIBUTING).

``nextvec.methods()`` gives their cards. The name is that of this package as well, so the package can be called: Python
sets it in place of the function as soon as a method is imported.
"""

from __future__ import annotations

import sys
from types import ModuleType

from nextvec import catalog
from nextvec.types import Card


class _Methods(ModuleType):
    def __call__(self) -> list[Card]:
        return list(catalog.cards(__name__).values())


sys.modules[__name__].__class__ = _Methods
