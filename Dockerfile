# docker build -t tcia-mirror .
# docker run --rm --read-only --tmpfs /tmp -v /srv/tcia:/data tcia-mirror sync 4D-Lung

FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY mirror mirror
RUN python -m venv /opt/tcia-mirror && /opt/tcia-mirror/bin/pip install --no-cache-dir .

FROM python:3.12-slim
COPY --from=build /opt/tcia-mirror /opt/tcia-mirror
# The mirror lies in /data, whose owner outside must be this user (or give another one with --user).
RUN useradd --uid 1000 --no-create-home --shell /usr/sbin/nologin mirror && install -d -o mirror -g mirror /data
ENV PATH=/opt/tcia-mirror/bin:$PATH TCIA_MIRROR_TO=/data PYTHONUNBUFFERED=1
USER 1000:1000
VOLUME /data
WORKDIR /data
ENTRYPOINT ["tcia-mirror"]
CMD ["--help"]
