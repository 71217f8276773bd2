# An image with the command `yolact`; docs/install.md says how to build and run it.
#
# BASE         Debian or Ubuntu; one without Python gets the distribution's
# TORCH_INDEX  where PyTorch comes from: its CUDA wheels bring the libraries of CUDA along
# EXTRAS       optional parts, as in serve,export
ARG BASE=python:3.12-slim

FROM ${BASE} AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && { command -v python3 \
         || apt-get install --yes --no-install-recommends python3-dev python3-venv; } \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/yolact
ENV PATH=/opt/yolact/bin:$PATH
# hadolint ignore=DL3013
RUN pip install --no-cache-dir torch torchvision --index-url "${TORCH_INDEX}"
COPY . /source
RUN pip install --no-cache-dir "/source${EXTRAS:+[$EXTRAS]}"

FROM ${BASE}
# What OpenCV is linked with.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 \
    && { command -v python3 || apt-get install --yes --no-install-recommends python3; } \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 yolact \
    && install --directory --owner=yolact /data
COPY --from=build /opt/yolact /opt/yolact
# Caches lie where any user may write: `docker run --user` knows no home.
ENV PATH=/opt/yolact/bin:$PATH XDG_CACHE_HOME=/tmp/cache
USER 10001
WORKDIR /data
ENTRYPOINT ["yolact"]
CMD ["--help"]
