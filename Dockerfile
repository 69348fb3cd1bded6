# A worker: mrq with the drivers of Redis and MongoDB and the dashboard, run by a user without rights.
#
# Tasks go to /app. Mount them there, or write a Dockerfile that begins with `FROM mrq` and copies them.

ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS build
RUN python -m venv /opt/mrq
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY mrq_core mrq_core
COPY mrq_broker_redis mrq_broker_redis
COPY mrq_broker_mongo mrq_broker_mongo
COPY mrq_dashboard mrq_dashboard
COPY mrq mrq
RUN /opt/mrq/bin/pip install --no-cache-dir ".[all]"

FROM python:${PYTHON}-slim-bookworm
# tini is process 1: it passes signals on, also to a worker that is still starting, and buries the orphans
# of what tasks start.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 mrq \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /app --shell /usr/sbin/nologin mrq
COPY --from=build /opt/mrq /opt/mrq
ENV PATH=/opt/mrq/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /app
# A number, so that Kubernetes sees that it is not root.
USER 10001:10001
ENTRYPOINT ["tini", "--", "mrq"]
CMD ["worker"]
