# The programs in a container, for CPUs or for NVIDIA GPUs. docs/DOCKER.md says how to build and run it.
#
#   docker build --target cpu --build-arg TORCH_INDEX=URL -t siamtransfer:cpu .
#   docker build --target cuda -t siamtransfer:cuda .
#
# torch's wheels bring the CUDA libraries along, so both targets stand on the same slim image.

ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS build
# The index of torch's CPU builds, as the "Get started" page of pytorch.org names it. Empty: pip's own index,
# whose torch has CUDA.
ARG TORCH_INDEX=
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /source
# torch alone first: its gigabytes stay in the layer cache while the code changes. The index is an additional one,
# since numpy and others of the pinned versions come from pip's own; of two equal versions pip takes that with +cpu.
COPY constraints.txt ./
RUN pip install -c constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} torch torchvision
COPY pyproject.toml setup.py README.md LICENSE ./
COPY siamtransfer ./siamtransfer
COPY configs ./configs

FROM build AS build-cpu
RUN pip install -c constraints.txt ".[cpu,parquet]"

FROM build AS build-cuda
RUN pip install -c constraints.txt ".[gpu,parquet]"

FROM python:${PYTHON}-slim AS runtime
# Any user may run it (--user "$(id -u):$(id -g)"), so the home folder is everybody's and the user has a name
# even where /etc/passwd does not know its number.
RUN useradd --uid 1000 --no-create-home --home-dir /home/siam siam \
    && mkdir -m 1777 /home/siam \
    && mkdir -m 777 /work
ENV PATH=/opt/venv/bin:$PATH HOME=/home/siam USER=siam PYTHONUNBUFFERED=1
USER 1000:1000
WORKDIR /work
ENTRYPOINT ["siamtransfer"]
CMD ["--help"]

FROM runtime AS cpu
COPY --from=build-cpu /opt/venv /opt/venv

FROM runtime AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=build-cuda /opt/venv /opt/venv
