"""The settings of a run, in groups: names, types, ranges, defaults, and the help of their flags.

This is the only list of settings: flags, YAML files, a checkpoint's metadata and the log's header are all written from
it or read into it. The docstring under a field is also its flag's help. `None` in a field whose help names a
``[default: ...]`` is open: `effnet.recipe.resolved` fills it in.
"""

from dataclasses import dataclass
from typing import Literal

from effnet.recipe.choices import (
    AugmentationName,
    BackendName,
    EngineName,
    LossName,
    MetricName,
    OptimizerName,
    SamplerName,
    ScheduleName,
    SourceName,
    TargetName,
    TrackerName,
    ViewsName,
)
from effnet.recipe.fields import setting

Interpolation = Literal["nearest", "bilinear", "bicubic", "triangular"]


@dataclass(frozen=True)
class ModelSettings:
    """Model"""

    arch: str = setting("efficientnet-b0", "-a")
    """model to train; `effnet models` lists all"""
    num_classes: int | None = setting(None, low=1, high=1_000_000)
    """number of classes [default: the class folders found]"""
    image_size: int | None = setting(None, low=32, high=4096, metavar="PIXELS")
    """side of the square input in pixels [default: the model's]"""
    dropout: float | None = setting(None, low=0, below=1, metavar="P")
    """probability of dropout before the classifier [default: the model's]"""
    survival_prob: float | None = setting(None, above=0, high=1, metavar="P")
    """probability that the last block survives stochastic depth [default: the model's]"""
    bn_momentum: float | None = setting(None, low=0, high=1)
    """weight of the new batch in BatchNorm's running statistics [default: the model's, 0.01]"""
    bn_epsilon: float | None = setting(None, above=0, high=1)
    """epsilon of BatchNorm [default: the model's, 0.001]"""
    conv_init: Literal["fan_in", "fan_out"] = setting("fan_in")
    """fan of the He initialisation of convolutions"""
    pretrained: bool = False
    """start from the model's published weights, downloaded once and kept"""
    pretrained_source: str | None = setting(None, metavar="PUBLISHER")
    """publisher whose weights --pretrained takes, one that `effnet models` lists [default: the first that has any]"""
    pretrained_from_file: str | None = setting(None, metavar="FILE")
    """start from the weights in this file (.pth, .pth.tar, .safetensors), or from hf-hub:OWNER/NAME"""
    probe: bool = False
    """before the first step, fit the classifier to the weights' features of the training images, by a regression whose
    regularisation a fifth of them chooses; each image is read once more"""
    freeze: Literal["none", "stem", "1", "2", "3", "4", "5", "6", "7", "backbone"] = setting("none")
    """part of the model that keeps its weights, from the image on: the stem, the stem with this many stages, or all but
    the classifier (`backbone`)"""
    unfreeze_every: int | None = setting(None, low=1, high=1_000_000, metavar="EPOCHS")
    """after each EPOCHS epochs train one more of the parts that --freeze holds, the nearest to the classifier first;
    the head goes with the last stage [default: never]"""
    bn_statistics: Literal["batch", "weights"] = setting("batch")
    """BatchNorm in training: normalise by the batch's statistics, or by those that the weights bring along, which then
    stay; `weights` suits small sets and small batches"""


@dataclass(frozen=True)
class DataSettings:
    """Data and augmentation"""

    data_backend: BackendName = setting("pytorch", "--data-backends")
    """input pipeline"""
    source: Literal["auto", SourceName] = setting("auto")
    """kind of data that DIR is; auto tells it by its content or suffix"""
    root: str | None = setting(None, metavar="DIR")
    """folder that the paths of a table start from [default: the table's]"""
    path_column: str | None = setting(None, metavar="COLUMN")
    """table: column of the images' paths [default: path, file, filename, image or the like]"""
    label_column: str | None = setting(None, metavar="COLUMN")
    """table: column of the label, or several columns of 0 and 1 separated by commas, one for each label [default:
    label, class, category, target or the like, else all columns of 0 and 1]"""
    label_separator: str | None = setting(None, metavar="TEXT")
    """table: an image has several labels, which this separates in their column"""
    split_column: str | None = setting(None, metavar="COLUMN")
    """table: column that says train, val or test [default: split, if there is one]"""
    weight_column: str | None = setting(None, metavar="COLUMN")
    """table: column of the images' weights in the training loss [default: weight, if there is one]"""
    fold_column: str | None = setting(None, metavar="COLUMN")
    """table: column of the images' folds, for --fold [default: fold, if there is one]"""
    folds: int | None = setting(None, low=2, high=1000, metavar="K")
    """cross-validate: divide the images into K folds, of which classes have their shares in each, and train K times in
    fold-0, fold-1, ... of the workspace, each time to validate another fold; folds.json sums it up"""
    fold: int | None = setting(None, low=0, high=1_000_000, metavar="N")
    """validate the images of this fold, and train on the others, once: one of the table's column of folds, or from 0 of
    --folds"""
    group_column: str | None = setting(None, metavar="COLUMN")
    """table without splits: images with the same text in this column, such as those of a patient, are not divided"""
    val_split: float = setting(0.2, above=0, high=1, metavar="SHARE")
    """share of the images to validate, of each class, where the data says nothing about it; chosen by --seed and kept
    with the run; 1 validates all"""
    class_map: str | None = setting(None, metavar="FILE")
    """class folders in the order of the model's classes, one per line, for data that holds only some of them
    [default: the classes that the weights name, else the folders found]"""
    workers: int | None = setting(None, "-j", low=0, high=512)
    """processes that load images, per training process; threads of it, in turns with the training, where that computes
    on a CPU with all cores [default: the cores there are for each, at most 16]"""
    prefetch: int = setting(2, low=1, high=1000, metavar="BATCHES")
    """batches that each worker prepares ahead; of threads, in a turn"""
    data_timeout: float = setting(300.0, above=0, high=1_000_000, metavar="SECONDS")
    """stop if reading one image takes longer than this, as on a disk that does not answer, and name the file"""
    on_bad_image: Literal["stop", "skip"] = setting("stop")
    """a file that can't be decoded stops the run, before its first step if --check-images finds it, or is skipped (a
    training batch repeats another image instead) and listed in the report"""
    check_images: bool = True
    """before training, check that every image file can be decoded, unless broken ones are to be skipped or --prof is
    given; a file that passed is not checked again before it changes"""
    max_pixels: int = setting(110_000_000, low=1, high=10**10, metavar="PIXELS")
    """refuse larger images before they are decoded, as broken ones; a WebP, a progressive JPEG or a TIFF that takes
    more memory than others has a lower limit in proportion, a file two bytes for each pixel"""
    interpolation: Interpolation | None = None
    """interpolation of every resize; triangular is DALI's name for the antialiased bilinear that every backend has
    [default: the pretrained weights', else bicubic]"""
    progressive_sizes: int | None = setting(None, low=32, high=4096, metavar="LOW")
    """side of the training images in the first epoch, in pixels; it grows with the epochs to --image-size, in multiples
    of 32 (arXiv 2104.00298); --data-backend pytorch or packed [default: --image-size in all]"""
    resize: int | None = setting(None, low=32, high=8192, metavar="PIXELS")
    """shorter side of validation images before the centre crop [default: --image-size + 32, at most 8/7 of it]"""
    augmentation: AugmentationName = setting("autoaugment")
    """automatic augmentation after crop and flip; autoaugment is the ImageNet policy of NVIDIA's implementation,
    autoaugment-torchvision that of torchvision (arXiv 1805.09501)"""
    augmentation_strength: float = setting(1.0, low=0, high=10, metavar="X")
    """times that --augmentation is applied to an image, on average: with 0.5 to every other image, with 1.5 to each
    once and to every other twice"""
    crop_scale: tuple[float, float] = setting((0.08, 1.0), above=0, high=1, metavar=("LOW HIGH"))
    """random resized crop: share of the image's area"""
    crop_ratio: tuple[float, float] = setting((3 / 4, 4 / 3), above=0, high=1000, metavar=("LOW HIGH"))
    """random resized crop: aspect ratio, width by height"""
    hflip: float = setting(0.5, low=0, high=1, metavar="P")
    """probability of a horizontal flip"""
    mixup: float = setting(0.2, low=0, high=1000, metavar="ALPHA")
    """mix pairs of images by a weight from Beta(ALPHA, ALPHA) (arXiv 1710.09412); 0 for none"""
    cutmix: float = setting(0.0, low=0, high=1000, metavar="ALPHA")
    """paste a box of another image, whose share of the area is from Beta(ALPHA, ALPHA), into each image (arXiv
    1905.04899); 0 for none; with --mixup as well, each batch takes one of the two"""
    random_erasing: float = setting(0.0, low=0, high=1, metavar="P")
    """probability that a box of a training image is replaced by noise (arXiv 1708.04896); --data-backend pytorch or
    packed"""


@dataclass(frozen=True)
class TaskSettings:
    """Labels and balance of the classes"""

    task: Literal["auto", "single", "multi"] = setting("auto")
    """labels of an image: one (single), or any number (multi: each class is a question of its own, with a threshold
    chosen on the validation set); auto: as the data and the weights have them"""
    loss: LossName = setting("cross-entropy")
    """loss that training lowers; with several labels its binary form for each class"""
    focal_gamma: float = setting(2.0, low=0, high=100, metavar="GAMMA")
    """focal loss: power of the missing probability by which an image counts; 0 is cross entropy"""
    class_weights: str = setting("none", metavar="none|auto|FILE")
    """weights of the classes in the loss. auto: in inverse proportion to their training images, as scikit-learn's
    `balanced`, or with several labels the images without a label for each one with it; FILE: a CSV, JSON or YAML file
    of class and weight that names every class"""
    logit_adjustment: float = setting(0.0, low=0, high=100, metavar="TAU")
    """add TAU times the log of each class's share of the training images to its logit in the loss, so that the model
    does not learn to prefer frequent classes (arXiv 2007.07314); 1 suits unbalanced classes, 0 is none"""
    sampler: SamplerName = setting("none")
    """share of an epoch that each training image has; none: every image once"""


@dataclass(frozen=True)
class OptimizerSettings:
    """Optimizer and loss"""

    optimizer: OptimizerName = setting("rmsprop")
    """update rule"""
    batch_size: int | None = setting(64, "-b", low=1, high=65_536, none_as="auto", metavar="IMAGES")
    """images in a batch of one process; auto: the largest power of two that fits the memory and leaves ten batches in
    an epoch"""
    optimizer_batch_size: int | None = setting(None, low=1, high=2**24, metavar="IMAGES")
    """images in a step of the optimizer over all processes, reached by gradient accumulation [default: one batch of
    each]"""
    lr: float | None = setting(None, "--learning-rate", above=0, high=1e38)
    """learning rate after the warm-up, used as it is for any number of images in a step; published recipes set it
    [default: --base-lr for 4096 images, scaled linearly to a step's images]"""
    base_lr: float | None = setting(None, above=0, high=1e38)
    """learning rate for 4096 images, in place of a recipe's --lr [default: the model's recipe, 0.08 (B0 to B3, Lite) or
    0.16 (B4 to B7)]"""
    backbone_lr_factor: float = setting(1.0, low=0, high=1000, metavar="FACTOR")
    """learning rate of all but the classifier, as a factor of --lr; below 1 for fine-tuning"""
    layer_decay: float = setting(1.0, above=0, high=1, metavar="FACTOR")
    """learning rate of each stage as a factor of that of the next one towards the classifier, from the stem, which has
    the lowest, to the classifier, which has --lr; 0.7 to 0.9 for fine-tuning"""
    momentum: float = setting(0.9, low=0, below=1)
    """momentum of the optimizer, where it has one"""
    nesterov: bool = False
    """Nesterov momentum (SGD)"""
    weight_decay: float | None = setting(None, "--wd", low=0, high=1000)
    """weight decay [default: the model's recipe, 1e-5 (B0 to B3, Lite) or 5e-6 (B4 to B7)]"""
    bn_weight_decay: bool = False
    """apply weight decay to BatchNorm's parameters too"""
    rmsprop_alpha: float = setting(0.9, low=0, below=1)
    """RMSprop: decay of the squared gradient's mean"""
    rmsprop_eps: float = setting(1e-2, above=0, high=1000)
    """RMSprop: added to the root of the squared gradient's mean"""
    adamw_betas: tuple[float, float] = setting((0.9, 0.999), low=0, below=1, metavar="BETA1 BETA2")
    """AdamW: decay of the means of the gradient and of its square"""
    adamw_eps: float = setting(1e-8, above=0, high=1000)
    """AdamW: added to the root of the squared gradient's mean"""
    clip_grad: float | None = setting(None, above=0, high=1e30, metavar="NORM")
    """scale a step's gradients down to this norm, over all parameters, where theirs is larger [default: never]"""
    label_smoothing: float = setting(0.1, low=0, below=1)
    """share of the target spread evenly over all classes, or with several labels over yes and no"""
    teacher: str | None = setting(None, metavar="MODEL")
    """follow the answers of this trained model too: a weight file, a checkpoint, the folder of a run,
    hf-hub:OWNER/NAME, or a model that `effnet models` lists, which knows the same classes (distillation, arXiv
    1503.02531)"""
    teacher_weight: float = setting(0.9, low=0, high=1, metavar="SHARE")
    """share of the teacher's answers in the loss; the rest is the targets'"""
    teacher_temperature: float = setting(4.0, above=0, high=1000, metavar="T")
    """divisor of both models' logits where the answers are compared; higher shows more of the unlikely classes"""
    use_ema: float | None = setting(None, above=0, below=1, metavar="DECAY")
    """keep an exponential moving average of the weights with this decay per step, and validate it too"""


@dataclass(frozen=True)
class ScheduleSettings:
    """Schedule"""

    epochs: int = setting(400, low=0, high=1_000_000)
    """epochs of the training, which the learning rate's schedule spans; 0, for `effnet quantize`, skips training"""
    run_epochs: int | None = setting(None, low=1, high=1_000_000, no_limit=-1, metavar="EPOCHS")
    """stop after this many epochs of this run; --resume goes on; -1 for no limit [default: all]"""
    lr_schedule: ScheduleName = setting("cosine")
    """fall of the learning rate after the warm-up; step: a tenth after 30, 60 and 80 of 90 parts"""
    warmup: float | None = setting(None, low=0, high=1_000_000, metavar="EPOCHS")
    """epochs of linear warm-up [default: 16, or a tenth of --epochs if that is less]"""
    end_lr: float = setting(0.0, low=0, high=1e38)
    """learning rate at the end"""
    average_last: int = setting(0, low=0, high=1_000_000, metavar="N")
    """average the weights of the last N epochs' ends, validate the mean after the last one, and write it to
    model_averaged.safetensors; 0 for none"""
    early_stopping_patience: int | None = setting(None, low=1, high=1_000_000, metavar="EPOCHS")
    """stop when --best-metric has not improved for this many epochs [default: never]"""
    best_metric: MetricName | None = setting(None)
    """validation metric that decides which epoch is the best, for model_best.pth.tar and early stopping; topk is the
    top-K accuracy of --topk [default: top1, or average_precision with several labels]"""


@dataclass(frozen=True)
class ComputeSettings:
    """Device and precision"""

    device: Literal["auto", "cuda", "cpu"] = setting("auto")
    """where to run; auto takes a GPU if there is one"""
    precision: Literal["fp32", "tf32", "fp16", "bf16", "amp"] | None = None
    """arithmetic: fp32, tf32 (Ampere and newer), or mixed precision in fp16 (loss scaling) or bf16; amp is fp16 on a
    GPU and bf16 on a CPU [default: tf32 on a GPU that has it, else fp32]"""
    static_loss_scale: float | None = setting(None, above=0, high=1e38, metavar="SCALE")
    """fixed loss scale for fp16 [default: dynamic]"""
    initial_loss_scale: float = setting(128.0, above=0, high=1e38, metavar="SCALE")
    """loss scale at the start of fp16 training, doubled after 100 steps without overflow, halved on overflow"""
    memory_format: Literal["nchw", "nhwc"] = setting("nhwc")
    """layout of images and activations; nhwc is channels-last"""
    compile: bool = False
    """compile the training step with torch.compile"""
    cuda_graphs: Literal["auto", "on", "off"] = setting("auto")
    """replay compiled steps as CUDA graphs; auto does so in a run of one process"""
    recompute: bool = False
    """keep no activations within a block for the backward pass, which computes them again: less memory, a third more
    time, the same results (arXiv 1604.06174)"""
    kernels: Literal["auto", "triton", "torch"] = setting("auto")
    """depthwise convolutions in training: PyTorch's (torch), this project's Triton kernels, or whatever is faster:
    measured on a GPU for each shape at the first start, known for a CPU"""
    seed: int = setting(0, low=0, high=2**63 - 1)
    """seed of every random choice"""
    gpu_affinity: Literal[
        "none",
        "auto",
        "socket",
        "socket_single",
        "socket_single_unique",
        "socket_unique_interleaved",
        "socket_unique_contiguous",
    ] = setting("auto")
    """cores of each process and its workers. auto: those next to its GPU, or for several on a CPU cores of their own,
    NUMA node by node; socket: all of its GPU's NUMA node; socket_single: the node's first core; socket_single_unique:
    one core of its own; socket_unique_interleaved, socket_unique_contiguous: the node's cores divided among the
    processes on it, in turn or in runs; none leaves it to the system. A core is a physical one, with its hyper-threads;
    on a CPU the processes are spread over the NUMA nodes"""
    sync_bn: bool = False
    """normalise by the statistics of all processes' images (SyncBatchNorm), not of each one's own"""
    bucket_size: float = setting(4.0, above=0, high=65_536, metavar="MB")
    """megabytes of gradients that the processes sum at a time, while the backward pass goes on"""
    collective_timeout: float = setting(600.0, above=0, high=1_000_000, metavar="SECONDS")
    """stop if a process waits longer than this for the others, and name those that did not come"""
    deterministic: bool = False
    """use deterministic algorithms only, and PyTorch's own kernels on a GPU: two runs on the same machine, or an
    interrupted and an uninterrupted one, then end with the same bits; slower on a GPU, without effect on a CPU"""
    max_bad_steps: int = setting(10, low=1, high=10**9, metavar="STEPS")
    """stop after this many steps of the optimizer in a row that are skipped, as their loss, a gradient or a statistic
    of BatchNorm is not finite"""
    divergence_factor: float = setting(10.0, low=0, high=1e30, metavar="FACTOR")
    """stop when the training loss stays above this many times that of a uniform guess, log(classes), or at least above
    this number: for 22 batches in a row at five times that limit, or three at 100,000 times; 0 never stops"""
    on_nan: Literal["stop", "rollback"] = setting("stop")
    """after --max-bad-steps, or when the training has diverged: stop, or go back to the end of the last good epoch (the
    start, before there is one) with half the learning rate, at most three times"""


@dataclass(frozen=True)
class RunSettings:
    """Run and results"""

    resume: str | None = setting(None, metavar="CHECKPOINT")
    """go on from this checkpoint; `auto` goes on from the latest one in the workspace, or the one before if it is
    damaged, and starts from scratch in a workspace without results, so that the same command can be started again after
    an interruption"""
    overwrite: bool = False
    """with --resume auto: start from scratch even if the workspace holds results of a run whose latest checkpoint is
    lost or damaged; they are replaced one after the other"""
    evaluate: bool = False
    """validate only"""
    training_only: bool = False
    """train without validation"""
    prof: int | None = setting(None, low=1, high=10**9, no_limit=-1, metavar="N")
    """run N iterations only; -1 for no limit"""
    workspace: str = setting(".", metavar="DIR")
    """folder for checkpoints and the log"""
    report_file: str = setting("report.json", "--raport-file", metavar="FILE", file_name=True)
    """JSON log in the workspace, one JSON object per line"""
    checkpoint_filename: str = setting("checkpoint.pth.tar", metavar="FILE", file_name=True)
    """name of the latest checkpoint in the workspace; the one before it stays beside it as checkpoint.previous.pth.tar,
    so the workspace takes the space of two checkpoints and of model_best.pth.tar"""
    gather_checkpoints: int = setting(0, low=-1, high=1_000_000, metavar="N")
    """keep the last N checkpoints under their epochs' names as well, checkpoint_0000.pth.tar for the first epoch; -1
    keeps all"""
    checkpoint_every: str | None = setting(None, metavar="STEPS|MINUTESm")
    """write the latest checkpoint within epochs too, after this many steps of the optimizer (500) or minutes (10m)
    [default: at the end of each epoch only]"""
    no_checkpoints: bool = False
    """write no checkpoints"""
    write_retry: float = setting(0.0, low=0, high=100_000, metavar="MINUTES")
    """try for this long to write a checkpoint that the disk does not take, before the run ends"""
    print_freq: int = setting(10, "-p", low=1, high=10**9, metavar="STEPS")
    """steps between two lines of progress, the only points at which training waits for the device"""
    quiet: bool = False
    """print warnings and errors only; the log in the workspace holds the rest"""
    track: tuple[TrackerName, ...] = setting((), metavar="TRACKER")
    """show metrics, recipe, training images, confusion matrix and the best model in one or several trackers of
    experiments, too (docs/trackers.md)"""
    engine: Literal["auto", EngineName] | None = None
    """evaluation: engine that runs the model; auto measures which is the fastest [default: the one that the file is
    for, torch for weights]"""
    per_class: str | None = setting(None, metavar="FILE")
    """evaluation: write the accuracy of each class to this CSV file"""
    confusion: str | None = setting(None, metavar="FILE")
    """evaluation: write the confusion matrix to this file, .csv or a picture such as .png"""
    reliability: str | None = setting(None, metavar="FILE")
    """evaluation: write how often answers of each confidence are right to this file, .csv or a picture such as .png"""
    tta: ViewsName = setting("none")
    """average the probabilities over views of each image (test-time augmentation), which takes so many times as long:
    flip, it and its mirror image; five, crops of the centre and the corners; ten, these and mirrored"""
    topk: int = setting(5, low=1, high=1_000_000, metavar="K")
    """validate top-K accuracy beside top-1"""
    calibrate_confidence: bool = True
    """fit a temperature of the logits at each validation and store it with the weights, so that a probability is the
    share of right answers, with a rule for images of none of the classes (docs/confidence.md); changes no weights"""
    unknown_keep: float = setting(0.95, above=0, below=1, metavar="SHARE")
    """share of the validation images that `effnet classify --unknown` answers with a class"""
    ranking_metrics: Literal["auto", "on", "off"] = setting("auto")
    """validation metrics that sort the answers for each class (average precision, AUROC), for which every probability
    is kept, 4 bytes each; auto: for up to 20 million of them, images times classes"""


@dataclass(frozen=True)
class QuantizationSettings:
    """Quantization"""

    target: TargetName = setting("tensorrt")
    """engine that the model is for; decides which tensors are quantized and how (docs/quantization.md)"""
    calib_method: Literal["percentile", "max", "entropy", "mse"] = setting("percentile")
    """method that finds the range of an activation from its histogram"""
    calib_percentile: float = setting(99.99, above=50, high=100, metavar="PERCENT")
    """share of an activation's values that its range holds, with --calib-method percentile"""
    calib_batches: int = setting(10, low=1, high=1_000_000, metavar="BATCHES")
    """batches of each process to calibrate on"""
    calib_data: str | None = setting(None, metavar="DIR")
    """folder with <class>/ folders to calibrate on; images are taken evenly from all [default: DIR/train]"""
    skip_calibration: bool = False
    """keep the ranges that the weights bring along"""
    keep_float: tuple[str, ...] = setting((), metavar="LAYER")
    """layers not to quantize: names as --sensitivity prints them, or patterns such as 'layers.0.*'"""
    cpu: Literal["auto", "vnni", "any"] = "auto"
    """CPU that a model for onnxruntime or openvino will run on. Its weights have 8 bits for `vnni` (x86 CPUs with VNNI,
    and ARM), 7 for `any`: on x86 CPUs without VNNI, sums of products of 8 bits overflow. `auto` is for this CPU"""
    reduce_range: bool | None = None
    """older form of --cpu, which decides where both are known: weights in 7 bits, as by --cpu any; --no-reduce-range as
    by --cpu vnni"""
    rounding: Literal["gptq", "nearest"] | None = None
    """rounding of weights after calibration: `gptq` keeps each layer's outputs on the calibration images and corrects
    their means, `nearest` rounds each weight by itself [default: gptq; nearest if --epochs is above 0 or with
    --sensitivity]"""
    freeze_bn: int = setting(0, low=0, high=1_000_000, metavar="EPOCHS")
    """keep BatchNorm's statistics in the last EPOCHS epochs, so that the weights settle on those that are folded into
    them at export"""
    sensitivity: bool = False
    """after calibration, print what each layer alone costs if it is quantized, and stop"""
    from_scratch: bool = False
    """quantize a model with random weights; without this, weights are required"""
