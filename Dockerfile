# docker build -t tcia-mirror .
# docker run --rm --read-only --tmpfs /tmp -v /srv/tcia:/data tcia-mirror sync 4D-Lung
#
# podman and buildah keep the HEALTHCHECK with --format docker. `make container` builds it and puts it to the test.

# An environment is only right beside the interpreter that made it, so both stages begin here.
FROM python:3.12-slim AS base

FROM base AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY mirror mirror
# pip works from an environment of its own and stays behind with it.
RUN python3 -m venv /opt/pip \
    && python3 -m venv --without-pip /opt/tcia-mirror \
    && /opt/pip/bin/pip --python /opt/tcia-mirror install --no-cache-dir ".[fast,page,zstd]"

FROM base
ARG VERSION=0.1.0
ARG REVISION=
LABEL org.opencontainers.image.title="tcia-mirror" \
      org.opencontainers.image.description="Mirror whole collections of The Cancer Imaging Archive into a verified DICOM tree, and serve it back" \
      org.opencontainers.image.source="https://github.com/tcia-mirror/tcia-mirror" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
# Nothing is installed from here on: the base's pip goes. The mirror lies in /data, whose owner outside must be the user
# (--user gives another one). Where the platform picks the user, as OpenShift does, its group is 0: that may write, too.
RUN lib=$(python3 -c 'import os; print(os.path.dirname(os.__file__))') \
    && rm -rf "$lib/ensurepip" "$lib"/site-packages/pip* /usr/local/bin/pip* \
    && useradd --uid 1000 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin mirror \
    && install -d -o mirror -g 0 -m 0775 /data
COPY --from=build /opt/tcia-mirror /opt/tcia-mirror
COPY mirror/cli/healthcheck.py /opt/tcia-mirror/healthcheck.py
ENV PATH=/opt/tcia-mirror/bin:$PATH TCIA_MIRROR_TO=/data PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 1000:1000
VOLUME /data
WORKDIR /data
EXPOSE 8042
STOPSIGNAL SIGTERM
# Asks a container that serves whether it still can; one that does anything else is well as long as it runs.
HEALTHCHECK --interval=60s --timeout=10s --start-period=30s --retries=3 CMD ["python3", "-I", "-S", "/opt/tcia-mirror/healthcheck.py"]
ENTRYPOINT ["tcia-mirror"]
CMD ["--help"]
