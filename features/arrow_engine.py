"""Feast's compute engine with another last step: rows go online from Arrow, without a message a value."""

from __future__ import annotations

from typing import Any, Literal

from feast.infra.common.materialization_job import MaterializationJobStatus, MaterializationTask
from feast.infra.compute_engines.local.arrow_table_value import ArrowTableValue
from feast.infra.compute_engines.local.compute import LocalComputeEngine
from feast.infra.compute_engines.local.feature_builder import LocalFeatureBuilder
from feast.infra.compute_engines.local.job import LocalMaterializationJob
from feast.infra.compute_engines.local.local_node import LocalNode
from feast.repo_config import FeastConfigBaseModel

from features.embedded_online_store import GuardedOnlineStore

ROWS_AT_ONCE = 100_000


class ArrowComputeEngineConfig(FeastConfigBaseModel):
    """`batch_engine:` of feature_store.yaml."""

    type: Literal["features.arrow_engine.ArrowComputeEngine"] = "features.arrow_engine.ArrowComputeEngine"


class ArrowComputeEngine(LocalComputeEngine):
    """Feast's local engine; a store of ours is given Arrow tables, any other is written as Feast writes it."""

    def __init__(self, **kwargs: Any) -> None:
        """Args:
        kwargs: what Feast hands to an engine, and its configuration.
        """
        super().__init__(**{name: value for name, value in kwargs.items() if name != "type"})

    def _materialize_one(self, registry: Any, task: MaterializationTask, **kwargs: Any) -> LocalMaterializationJob:
        if not isinstance(self.online_store, GuardedOnlineStore) or task.feature_view.offline:
            return super()._materialize_one(registry, task, **kwargs)
        job = f"{task.feature_view.name}-{task.start_time}-{task.end_time}"
        try:
            context = self.get_execution_context(registry, task)
            _ArrowBuilder(registry, task, backend=self._get_backend(context)).build().execute(context)
        except Exception as error:
            return LocalMaterializationJob(job_id=job, status=MaterializationJobStatus.ERROR, error=error)
        return LocalMaterializationJob(job_id=job, status=MaterializationJobStatus.SUCCEEDED)


class _ArrowBuilder(LocalFeatureBuilder):
    """Feast's plan of one view: source, transformation, aggregation, validation; then our own last step."""

    def build_filter_node(self, view: Any, input_node: Any) -> Any:
        # without an expression the step only turns the table into a frame and back
        return super().build_filter_node(view, input_node) if getattr(view, "filter", None) else input_node

    def build_dedup_node(self, view: Any, input_node: Any) -> Any:
        # the store's guard keeps the newest row of a key, by known-at among rows of one moment
        return input_node

    def build_output_nodes(self, view: Any, input_node: Any) -> Any:
        node = _ArrowOutput("output", self.dag_root.view, inputs=[input_node])
        self.nodes.append(node)
        return node


class _ArrowOutput(LocalNode):
    def __init__(self, name: str, feature_view: Any, inputs: Any = None) -> None:
        super().__init__(name, inputs=inputs)
        self.feature_view = feature_view

    def execute(self, context: Any) -> ArrowTableValue:
        table = self.get_single_table(context).data
        if self.feature_view.online:
            for start in range(0, table.num_rows, ROWS_AT_ONCE):
                part = table.slice(start, ROWS_AT_ONCE)
                context.online_store.write_arrow(context.repo_config, self.feature_view, part)
        output = ArrowTableValue(data=table)
        context.node_outputs[self.name] = output
        return output
