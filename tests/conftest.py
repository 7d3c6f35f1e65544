"""What holds for every test."""

import prometheus_client  # noqa: F401  before Feast, which would make its counters shared by all handlers of a process

from tests.postgres_cluster import postgres  # noqa: F401  one cluster for the whole session
