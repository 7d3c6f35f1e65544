"""Reading YAML files into strict objects, with errors that name file, line and key."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from contracts.errors import ConfigInvalid, InputInvalid, nearest

MAX_BYTES = 1_000_000


class Strict(BaseModel):
    """A frozen object that refuses unknown keys and does not coerce across types."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Model = TypeVar("Model", bound=BaseModel)


def read_yaml(path: Path) -> Any:
    """The file's content with line numbers kept (ruamel round-trip objects); no tags are constructed.

    Raises:
        InputInvalid: the file is missing, larger than a megabyte, uses aliases, or is not YAML.
    """
    if not path.is_file():
        raise InputInvalid(str(path), "a YAML file", "no such file")
    raw = path.read_bytes()
    if len(raw) > MAX_BYTES:
        raise InputInvalid(str(path), f"at most {MAX_BYTES} bytes", f"{len(raw)} bytes")
    yaml = YAML(typ="rt", pure=True)
    yaml.allow_duplicate_keys = False
    try:
        text = raw.decode("utf-8-sig")
        for event in yaml.parse(text):
            if event.__class__.__name__ == "AliasEvent":
                raise InputInvalid(str(path), "a file without aliases", f"an alias at line {event.start_mark.line + 1}")
        return YAML(typ="rt", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark
        raise InputInvalid(f"{path}:{mark.line + 1 if mark else '?'}", "valid YAML", str(error.problem)) from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise InputInvalid(str(path), "valid YAML in UTF-8", str(error).splitlines()[0]) from None


def load_strict(path: Path, kind: type[Model]) -> Model:
    """The file as an object of `kind`.

    Raises:
        ConfigInvalid: the first key that breaks the schema, with line, what was wanted, what came, the nearest key.
        InputInvalid: the file is no readable YAML.
    """
    tree = read_yaml(path)
    try:
        return kind.model_validate(_plain(tree))
    except ValidationError as error:
        raise _explain(path, tree, kind, error) from None


def line_of(path: Path, key: str) -> int | None:
    """Line of the deepest part of a dotted key that stands in the file, None when none of it does.

    Raises:
        InputInvalid: the file is no readable YAML.
    """
    return _line(read_yaml(path), tuple(int(part) if part.isdigit() else part for part in key.split(".")))


def _plain(node: Any) -> Any:
    if isinstance(node, dict):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    if isinstance(node, bool) or node is None:
        return node
    for plain in (int, float, str):
        if isinstance(node, plain):
            return plain(node)
    return node


def _explain(path: Path, tree: Any, kind: type[BaseModel], error: ValidationError) -> ConfigInvalid:
    first = error.errors()[0]
    location = tuple(first["loc"])
    key = ".".join(str(part) for part in location) or "(file)"
    if first["type"] == "extra_forbidden":
        known = sorted(_fields_at(kind, location[:-1]))
        close = nearest(str(location[-1]), known)
        hint = f"did you mean {close!r}?" if close else ""
        wanted = f"one of {', '.join(known)}" if known else "no such key"
        return ConfigInvalid(str(path), key, wanted, repr(location[-1]), line=_line(tree, location), hint=hint)
    wanted = str(first["msg"]).removeprefix("Value error, ")
    got = "nothing" if first["type"] == "missing" else repr(first["input"])[:120]
    return ConfigInvalid(str(path), key, wanted, got, line=_line(tree, location))


def _line(tree: Any, location: tuple[Any, ...]) -> int | None:
    """Line of the deepest part of `location` that stands in the file."""
    line: int | None = None
    for part in location:
        if isinstance(tree, CommentedMap) and part in tree:
            line = tree.lc.key(part)[0] + 1
        elif isinstance(tree, CommentedSeq) and isinstance(part, int) and part < len(tree):
            line = tree.lc.item(part)[0] + 1
        else:
            continue
        tree = tree[part]
    return line


def _fields_at(kind: Any, location: tuple[Any, ...]) -> set[str]:
    """Names of the fields that the schema allows at `location`."""
    kinds = _models_in(kind)
    for part in location:
        found: list[type[BaseModel]] = []
        for model in kinds:
            if isinstance(part, str) and part in model.model_fields:
                found += _models_in(model.model_fields[part].annotation)
        kinds = found or kinds
    return {name for model in kinds for name in model.model_fields}


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]
