"""`/metrics`, for Prometheus."""

from __future__ import annotations

from starlette.responses import Response

from mrq_core.operations.prometheus import METRICS, installation_metrics
from mrq_dashboard.visit import Visit


def metrics(visit: Visit) -> Response:
    """Answers the numbers of jobs, queues and workers in the text format of Prometheus."""
    return Response("".join(installation_metrics(visit.broker)), media_type=METRICS)
