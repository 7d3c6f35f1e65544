"""`seatrial features bench`: what training sets of this workspace cost, with and without an index, by engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lifecycle.commands.options import Json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import pandas as pd

    from contracts.settings import Settings
    from lifecycle.workspace import Workspace


ENGINES = ("local", "dask", "ray", "spark")


@dataclass(frozen=True)
class Run:
    """One training set: seconds of wall and CPU time, peak resident MB of its process, rows, digest of the values."""

    wall: float
    cpu: float
    peak_mb: float
    rows: int
    digest: str


def bench(
    rows: Annotated[int, typer.Option(help="Rows to ask about, sampled from the workspace's feature rows.", min=1)] = (
        20_000
    ),
    service: Annotated[str | None, typer.Option(help="Only this feature service.")] = None,
    engine: Annotated[
        list[str] | None, typer.Option(help="Engines beside local: dask, ray, spark; dask if installed when not given.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="Rounds; figures are their medians.", min=1)] = 3,
    json_output: Json = False,
) -> None:
    """Time the point-in-time join on this workspace's own rows: index present, no index, other engines installed.

    Ways alternate, each time in a process of their own; the start of an engine's workers counts. Indexes are made in a
    temporary folder; the workspace is only read. Ends with exit code 1 when answers differ.
    """
    import tempfile
    from pathlib import Path

    from lifecycle.terminal import emit, progress_bar
    from lifecycle.workspace import Workspace

    ws = Workspace()
    engines = _engines(engine)
    chosen = [_known(ws, service)] if service else list(ws.declarations.services)
    found: dict[str, dict[str, Any]] = {}
    with progress_bar(json_output=json_output) as progress, tempfile.TemporaryDirectory(prefix="seatrial-") as folder:
        for place, name in enumerate(chosen):
            progress(f"{name}", place / len(chosen))
            found[name] = _measured(ws, name, sampled_rows(ws, name, rows), Path(folder) / name, engines, rounds)
    if json_output:
        emit(found, json_output=True)
    else:
        _print(found)
    raise typer.Exit(0 if all(result["equal"] for result in found.values()) else 1)


def sampled_rows(ws: Workspace, service: str, count: int, seed: int = 0) -> pd.DataFrame:
    """Rows to ask a service about: keys from its views' own rows, moments spread evenly over their time.

    Args:
        count: number of rows.
        seed: the same seed and feature rows give the same sample.

    Returns:
        The join keys and event_timestamp (UTC).

    Raises:
        InputInvalid: a view has no rows yet.
    """
    import numpy as np
    import pandas as pd

    from contracts.declarations import join_keys
    from contracts.errors import InputInvalid

    rng = np.random.default_rng(seed)
    views = {name: ws.declarations.views[name] for name in ws.declarations.services[service].views}
    columns: dict[str, Any] = {}
    spans = []
    for name, view in sorted(views.items(), key=lambda item: -len(join_keys(item[1]))):
        frame = ws.gold.read(name)
        if not len(frame):
            raise InputInvalid(f"view {name}", "feature rows", "none", hint="run `seatrial features materialize`")
        places = rng.integers(0, len(frame), count)
        columns |= {key: frame[key].to_numpy()[places] for key in join_keys(view) if key not in columns}
        spans.append((frame["known_at"].min(), frame["known_at"].max()))
    first, last = min(low for low, _ in spans), max(high for _, high in spans)
    columns["event_timestamp"] = first + (last - first) * pd.Series(rng.random(count))
    return pd.DataFrame(columns).astype({"event_timestamp": "datetime64[us, UTC]"})


def _known(ws: Workspace, service: str) -> str:
    from contracts.errors import UnknownName

    if service not in ws.declarations.services:
        raise UnknownName("feature service", service, ws.declarations.services)
    return service


def _engines(given: list[str] | None) -> list[str]:
    """Engines beside local: those named, or dask where it is installed."""
    from importlib.util import find_spec

    from contracts.errors import UnknownName

    for name in given or []:
        if name not in ENGINES:
            raise UnknownName("engine", name, ENGINES)
    if given is None:
        return ["dask"] if find_spec("dask") and find_spec("distributed") else []
    return [name for name in dict.fromkeys(given) if name != "local"]


def _ways(index_path: str, engines: Sequence[str]) -> dict[str, dict[str, str]]:
    """The ways to answer, as settings of the offline store."""
    present = {"index": "always", "index_path": index_path}
    ways = {"local, index present": present, "local, no index": {"index": "never"}}
    return ways | {f"{engine}, index present": {**present, "engine": engine} for engine in engines}


def _measured(
    ws: Workspace, service: str, rows: pd.DataFrame, folder: Path, engines: Sequence[str], rounds: int
) -> dict[str, Any]:
    """Index build and every way of one service, in turn, round after round."""
    import statistics
    from dataclasses import asdict

    folder.mkdir()
    asked, index = folder / "rows.parquet", folder / "index"
    rows.to_parquet(asked)
    ways = _ways(str(index), engines)
    ws.feast  # noqa: B018  applied once, here: the children only read the registry
    built = _alone(_build, ws.settings, service, {"index": "always", "index_path": str(index)})
    runs: dict[str, list[Run]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, knobs in ways.items():
            runs[name].append(_alone(_ask, ws.settings, service, knobs, str(asked)))
    shown: dict[str, dict[str, Any]] = {}
    for name, of_way in runs.items():
        figures = [asdict(run) for run in of_way]
        medians = {figure: statistics.median(each[figure] for each in figures) for figure in ("wall", "cpu", "peak_mb")}
        shown[name] = {**medians, "rows": of_way[0].rows}
    digests = {run.digest for of_way in runs.values() for run in of_way}
    lost = any(run.rows != len(rows) for of_way in runs.values() for run in of_way)
    source = {name: len(ws.gold.read(name)) for name in ws.declarations.services[service].views}
    return {
        "asked": len(rows),
        "source": source,
        "build": built,
        "ways": shown,
        "equal": len(digests) == 1 and not lost,
    }


def _alone(work: Any, *arguments: Any) -> Any:
    """The result of a function of this module, run in a process of its own that has imported but read nothing yet."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    context = get_context("forkserver")
    context.set_forkserver_preload(["features.feast_store", "features.asof_offline_store"])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(work, *arguments).result()


def _store(settings: Settings, knobs: Mapping[str, str]) -> Any:
    """Feast's store of a workspace, its offline store set by `knobs`."""
    from contracts.declarations import load_declarations
    from features.feast_store import FeatureRepo

    store = FeatureRepo(settings, load_declarations(settings.features)).feast
    for name, value in knobs.items():
        setattr(store.config.offline_store, name, value)
    return store


def _build(settings: Settings, service: str, knobs: Mapping[str, str]) -> dict[str, float]:
    """In the child: build the indexes of a service's views; seconds and megabytes on disk."""
    import time

    from features.asof_offline_store import build_indexes

    store = _store(settings, knobs)
    wanted = {projection.name for projection in store.get_feature_service(service).feature_view_projections}
    views = [view for view in store.list_feature_views() if view.name in wanted]
    wall, cpu = time.perf_counter(), time.process_time()
    sizes = build_indexes(store.config, views)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"wall": wall, "cpu": cpu, "megabytes": sum(sizes.values()) / (1 << 20)}


def _ask(settings: Settings, service: str, knobs: Mapping[str, str], asked: str) -> Run:
    """In the child: one training set, timed; what it imports is imported before."""
    import hashlib
    import time

    import pandas as pd

    rows = pd.read_parquet(asked)
    store = _store(settings, knobs)
    wanted = store.get_feature_service(service)
    store.get_historical_features(rows.head(1), wanted, full_feature_names=True)  # asked, not answered: imports only
    wall, cpu = time.perf_counter(), time.process_time()
    table = store.get_historical_features(rows, wanted, full_feature_names=True).to_arrow()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = _peak_mb()
    hashes = pd.util.hash_pandas_object(table.to_pandas(), index=False)
    return Run(wall, cpu, peak, table.num_rows, hashlib.sha256(hashes.to_numpy().tobytes()).hexdigest())


def _peak_mb() -> float:
    """Most resident memory of this process so far. Linux: without what its parent held, which getrusage counts too."""
    import resource
    from pathlib import Path

    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    lines = status.read_text(encoding="utf-8").splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def _print(found: Mapping[str, Mapping[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    for service, result in found.items():
        source = sum(result["source"].values())
        table = Table(title=f"{service}: {result['asked']:,} rows x {source:,} source rows")
        for column in ("how", "wall s", "CPU s", "peak MB", "rows", "answers"):
            table.add_column(column, justify="left" if column in ("how", "answers") else "right")
        for row in _rows(result):
            table.add_row(*row)
        Console().print(table)


def _rows(result: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    built = result["build"]
    size = f"{built['megabytes']:,.1f} MB on disk"
    yield "index build, once", f"{built['wall']:.3f}", f"{built['cpu']:.3f}", "", "", size
    for name, way in result["ways"].items():
        answers = "equal" if result["equal"] else "DIFFERENT"
        yield name, f"{way['wall']:.3f}", f"{way['cpu']:.3f}", f"{way['peak_mb']:,.0f}", f"{way['rows']:,}", answers
