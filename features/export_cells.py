"""Cells of tables that people open in a spreadsheet: what would run as a formula is made text."""

from __future__ import annotations

import re

_STARTS = ("=", "+", "-", "@", "\t", "\r")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


def safe_cell(text: str) -> str:
    """`text` with a leading apostrophe when a spreadsheet could take it for a formula; plain numbers stay.

    >>> safe_cell("=1+1"), safe_cell("-5.5"), safe_cell("milk")
    ("'=1+1", '-5.5', 'milk')

    Source: OWASP, CSV Injection.
    """
    return f"'{text}" if text.startswith(_STARTS) and not _NUMBER.fullmatch(text) else text
