# The interpreters of all stages are Python 3.13 on Debian 13, so wheels and bytecode fit the final one. A release passes
# both with the digests of .github/bases.env.
ARG PYTHON=python:3.13-slim-trixie
ARG DISTROLESS=gcr.io/distroless/python3-debian13:nonroot

FROM ${PYTHON} AS packages
COPY requirements.txt /build/
# Wheels only: nothing is compiled or run while installing. What a server never uses is left out.
RUN python -m pip install --quiet --no-cache-dir --disable-pip-version-check --no-compile \
      --only-binary :all: --require-hashes --target /packages -r /build/requirements.txt \
 && find /packages -type d \( -name tests -o -name test -o -name bin \) -prune -exec rm -r {} +

# The development loop's image: it starts the webhook anew when a file changes. skaffold needs its shell and tar.
FROM packages AS dev
COPY requirements-dev.txt /build/
RUN sed -n '/^watchfiles==/,/[^\\]$/p' /build/requirements-dev.txt > /build/reload.txt \
 && python -m pip install --quiet --no-cache-dir --disable-pip-version-check --no-compile \
      --only-binary :all: --require-hashes --no-deps --target /packages -r /build/reload.txt
RUN install --directory --owner 65532 --group 65532 /app
COPY --chown=65532:65532 injector /app/injector
WORKDIR /app
ENV PYTHONPATH=/app:/packages PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
ENTRYPOINT ["python", "-m", "injector"]
CMD ["serve", "--reload"]

FROM packages AS compiled
COPY main.py /app/
COPY injector /app/injector
# Bytecode that is never checked against its source: the root is read-only.
RUN python -m compileall -q --invalidation-mode unchecked-hash /app /packages

FROM ${DISTROLESS}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="litestream-hook" \
      org.opencontainers.image.description="A mutating admission webhook that gives SQLite Pods a Litestream replica" \
      org.opencontainers.image.source="https://github.com/kaidotio/litestream-hook" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=compiled /packages /packages
COPY --from=compiled /app /app
WORKDIR /app
ENV PYTHONPATH=/app:/packages PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
EXPOSE 9443 8080 8081
ENTRYPOINT ["/usr/bin/python3", "-m", "injector"]
CMD ["serve"]
