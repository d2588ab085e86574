# docker build -t audioldm .                            CPU
# docker build -t audioldm --build-arg DEVICE=cuda .    an NVIDIA GPU (the driver and nvidia-container-toolkit are the host's)
# BASE is any Debian image with Python 3.11 or 3.12 and pip.
ARG BASE=python:3.12-slim
FROM ${BASE}
ARG DEVICE=cpu
WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY conf conf
COPY recipes recipes
COPY data/manifests data/manifests
COPY audioldm audioldm
# PyTorch keeps wheels without CUDA on an index of its own; those of PyPI bring CUDA 13.
ARG CPU_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_BREAK_SYSTEM_PACKAGES=1
RUN if [ "$DEVICE" = cpu ]; then \
        python3 -m pip install --index-url "$CPU_INDEX" torch==2.11.0 torchaudio==2.11.0 \
        && grep -Ev '^(torch|torchaudio|triton|nvidia-|cuda-)' constraints.txt > limits.txt; \
    else cp constraints.txt limits.txt; fi \
    && python3 -m pip install --constraint limits.txt . && rm -rf /src
WORKDIR /work
ENTRYPOINT ["audioldm"]
CMD ["--help"]
