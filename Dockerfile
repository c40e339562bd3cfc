# `docker build -t berth .`; what can be set is in docs/deployment/compose.md. Only the last stage is in the image.
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS packages
# hadolint ignore=DL3008
RUN apt-get update -qq && apt-get install -qq --no-install-recommends binutils && python3 -m venv --without-pip /opt/venv
WORKDIR /opt/venv/lib
COPY requirements.txt /opt/
# As a secret, the index's URL and the password in it leave no trace.
RUN --mount=type=secret,id=pip_index_url \
    if [ -s /run/secrets/pip_index_url ]; then PIP_INDEX_URL=$(cat /run/secrets/pip_index_url); export PIP_INDEX_URL; fi; \
    python3 -m pip --python /opt/venv/bin/python3 install --quiet --no-cache-dir --no-compile --root-user-action=ignore \
        --only-binary=:all: --require-hashes -r /opt/requirements.txt
# aiomysql installs docs and examples beside itself; debug symbols are a third of all bytes, most of them uvloop's.
RUN rm -rf python3.*/site-packages/docs python3.*/site-packages/examples \
        python3.*/site-packages/*/testing python3.*/site-packages/*/tests \
    && find . -name '*.so' -exec strip --strip-unneeded {} + \
    && python3 -m compileall -q --invalidation-mode unchecked-hash .

FROM ${PYTHON_IMAGE} AS code
WORKDIR /app
COPY . .
# Readable by any user, whatever the umask of the checkout.
RUN chmod -R a+rX,go-w . && python3 -m compileall -q --invalidation-mode unchecked-hash .

FROM ${PYTHON_IMAGE}
WORKDIR /usr/local/lib
# The official image has no .pyc files: every start would compile what it imports of the standard library.
RUN rm -rf python3.*/ensurepip python3.*/idlelib python3.*/pydoc_data python3.*/tkinter python3.*/turtledemo \
        python3.*/site-packages/* /usr/local/bin/pip* /usr/local/bin/idle* /usr/local/bin/pydoc* \
    && python3 -m compileall -q --invalidation-mode unchecked-hash . \
    && install -d -o 10001 -g 10001 /data
COPY --from=packages /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 HOST=0.0.0.0 DATA_DIR=/data
WORKDIR /app
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
# An empty PORT counts as unset, as in settings.py.
HEALTHCHECK --interval=5s --timeout=3s --start-period=40s CMD ["python", "-I", "-S", "-c", "import os, socket; s = socket.create_connection(('127.0.0.1', int(os.environ.get('PORT') or 8000)), 2); s.sendall(b'GET /health/ready HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n'); raise SystemExit(b' 200 ' not in s.recv(64))"]
CMD ["python", "app.py"]

ARG VERSION=0.1.0
ARG REVISION
# What `GET /` tells where the platform names no revision of its own.
ENV K_REVISION=${REVISION}
LABEL org.opencontainers.image.title="berth" \
      org.opencontainers.image.description="Accounts and sessions as one container-native ASGI service" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=code /app /app
