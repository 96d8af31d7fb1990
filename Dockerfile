# peft-sweep in a container, as a user without privileges. torch's CPU build by default:
#   docker build -t peft-sweep .
# For NVIDIA GPUs, a CUDA build from PyTorch's index; for KubeRay also the extra "cluster":
#   docker build -t peft-sweep:gpu --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 --build-arg EXTRAS=quickstart,cluster .
# Results stay in the folder that is mounted; Ray needs shared memory:
#   docker run --rm --shm-size=2g --user "$(id -u)" -v "$PWD:/work" peft-sweep run --space quickstart
#   docker run --rm --gpus all --shm-size=8g --user "$(id -u)" -v "$PWD:/work" peft-sweep:gpu run --space tickets.py --gpus 1
FROM python:3.12-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=quickstart

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONUNBUFFERED=1

# KubeRay asks with wget whether a container is alive.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends wget \
    && rm -rf /var/lib/apt/lists/*

# Before the source, so that a change of it does not download torch again. The range is that of pyproject.toml.
RUN pip install --index-url "$TORCH_INDEX" "torch>=2.9,<2.14"

COPY pyproject.toml README.md /source/
COPY orchestrator /source/orchestrator
COPY trainables /source/trainables
COPY search_spaces /source/search_spaces
COPY reports /source/reports
RUN pip install "/source[$EXTRAS]" \
    && rm -rf /source

# Any user id may run it, also one without an entry in /etc/passwd: what is written goes to /work and /tmp.
RUN useradd --create-home --uid 1000 sweep \
    && mkdir --mode=1777 /work
ENV HOME=/tmp \
    HF_HOME=/work/.huggingface
USER 1000
WORKDIR /work

# SIGTERM, as `docker stop` sends it, ends a sweep with exit code 75 after at most half a minute: docker stop --time 60
STOPSIGNAL SIGTERM
ENTRYPOINT ["peft-sweep"]
CMD ["--help"]
