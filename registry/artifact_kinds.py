"""What kinds of file a model may be made of: plain data only, judged by name and by content before anything is read."""

from __future__ import annotations

import pickletools
from pathlib import Path

TEXT = frozenset({".json", ".jsonl", ".txt", ".csv", ".md", ".html", ".svg", ".yaml", ".yml"})
_BEGINS = {".parquet": b"PAR1", ".arrow": b"ARROW1", ".png": b"\x89PNG\r\n\x1a\n"}
ALLOWED = TEXT | frozenset(_BEGINS)
_PICKLE_CALLS = frozenset({"GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "REDUCE", "NEWOBJ", "NEWOBJ_EX", "BUILD"})


def why_forbidden(path: Path) -> str | None:
    """Why the file may not be part of a model, or None when it may.

    Allowed are texts (UTF-8 without NUL), Parquet, Arrow and PNG, each with the content its name promises. So a
    pickle, joblib, cloudpickle, archive or program is refused under any name.
    """
    suffix = path.suffix.lower()
    if suffix not in ALLOWED:
        return f"{path.name}: files of kind {suffix or 'without suffix'!r} are not allowed (plain data only)"
    content = path.read_bytes()
    if suffix in _BEGINS:
        magic = _BEGINS[suffix]
        whole = content.startswith(magic) and (suffix != ".parquet" or (len(content) >= 12 and content.endswith(magic)))
        return None if whole else f"{path.name}: the content is not {suffix[1:]}"
    try:
        if "\0" in content.decode("utf-8"):
            return f"{path.name}: a NUL byte in a text"
    except UnicodeDecodeError:
        return f"{path.name}: not a text in UTF-8"
    return f"{path.name}: holds a pickle" if _is_text_pickle(content) else None


def _is_text_pickle(content: bytes) -> bool:
    """True when the bytes are a pickle (protocol 0 is plain text) that calls or imports something."""
    calls = False
    try:
        for opcode, _, _ in pickletools.genops(content):
            calls = calls or opcode.name in _PICKLE_CALLS
    except Exception:  # any text that is no pickle ends here, in whatever way the parser gives up
        return False
    return calls
