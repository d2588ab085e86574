# docker build -t audioldm .                            CPU
# docker build -t audioldm --build-arg DEVICE=cuda .    an NVIDIA GPU (the driver and nvidia-container-toolkit are the host's)
FROM python:3.12-slim
ARG DEVICE=cpu
WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY conf conf
COPY recipes recipes
COPY data/manifests data/manifests
COPY audioldm audioldm
# PyTorch keeps wheels without CUDA on an index of its own; those of PyPI bring CUDA 13.
RUN if [ "$DEVICE" = cpu ]; then \
        pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu torch==2.11.0 torchaudio==2.11.0 \
        && grep -Ev '^(torch|torchaudio|triton|nvidia-|cuda-)' constraints.txt > limits.txt; \
    else cp constraints.txt limits.txt; fi \
    && pip install --no-cache-dir --constraint limits.txt . && rm -rf /src
WORKDIR /work
ENTRYPOINT ["audioldm"]
CMD ["--help"]
