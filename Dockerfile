# Training and inference on NVIDIA GPUs: the container brings PyTorch, CUDA, cuDNN, NCCL and DALI.
#   docker build . -t nvidia_efficientnet
#   docker run --rm -it --gpus all --ipc=host -v <path to imagenet>:/imagenet nvidia_efficientnet
ARG FROM_IMAGE_NAME=nvcr.io/nvidia/pytorch:26.02-py3
FROM ${FROM_IMAGE_NAME}

WORKDIR /workspace/effnet
COPY . .
# The container's PyTorch calls itself an alpha of the next version, which pip takes for too old: only what the container
# lacks is installed, and nothing is resolved.
# hadolint ignore=DL3013
RUN pip install --no-cache-dir filelock numpy pillow pyyaml rich safetensors simplejpeg \
    && pip install --no-cache-dir --no-deps -e .
