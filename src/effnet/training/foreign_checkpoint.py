"""Checkpoints of NVIDIA's implementation, and of others that save PyTorch's own state dicts, in the form of ours."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from effnet.models.efficientnet import EfficientNet
from effnet.runtime.errors import UserError
from effnet.runtime.plain import is_number
from effnet.training.optimizer import batch_norm_parameters
from effnet.weights import fitted_state_dict
from effnet.weights.tensors import check_finite, check_tensors

Checkpoint = Mapping[str, Any]
OptimizerState = dict[str, dict[str, Tensor]]

_REMEDY = "for its weights alone use --pretrained-from-file"


def is_foreign(checkpoint: Checkpoint) -> bool:
    """Return True if another program wrote a checkpoint: ours all hold the recipe."""
    return "recipe" not in checkpoint


def with_our_names(checkpoint: Checkpoint, model: EfficientNet) -> Checkpoint:
    """Return a checkpoint whose weights have the names and shapes of `model`, and are finite.

    Args:
        checkpoint: `state_dict`, optionally `state_dict_ema`, with or without the prefixes of a distributed run, in any
            known layout. The weights keep their order.
        model: the network that they are for.

    Raises:
        UserError: the weights don't fit the model.
    """
    weights = {
        entry: fitted_state_dict(model, checkpoint[entry])
        for entry in ("state_dict", "state_dict_ema")
        if checkpoint.get(entry) is not None
    }
    return {**checkpoint, **weights}


def training_state(
    checkpoint: Checkpoint, model: EfficientNet, optimizer: OptimizerState, steps_per_epoch: int
) -> dict[str, Any]:
    """Return the training state in another program's checkpoint.

    Args:
        checkpoint: `epoch` (finished ones), `state_dict`, `optimizer` (a state dict of `torch.optim`) and optionally
            `best_prec1` and `state_dict_ema`.
        model: the network in training.
        optimizer: state of its optimizer now, by parameter; the same is read from the checkpoint.
        steps_per_epoch: optimizer steps in an epoch.

    Returns:
        Entries of `TrainingState.state_dict`: weights, average, optimizer state, progress and position in the data.

    Raises:
        UserError: the weights don't fit the model.
        UserError: something is missing; it is named.
    """
    if missing := [entry for entry in ("epoch", "state_dict", "optimizer") if checkpoint.get(entry) is None]:
        raise UserError(f"--resume: the checkpoint holds no {' and no '.join(missing)}; {_REMEDY}")
    renamed = with_our_names(checkpoint, model)
    weights, epoch = renamed["state_dict"], checkpoint["epoch"]
    parameters = dict(model.named_parameters())
    # In the order of the file, in which its optimizer has numbered them.
    ordered = {name: parameters[name] for name in weights if name in parameters}
    best = _best(checkpoint.get("best_prec1", -1.0))
    return {
        "epoch": epoch,
        "state_dict": weights,
        "state_dict_ema": renamed.get("state_dict_ema") or weights,
        "optimizer": _optimizer_state(checkpoint["optimizer"], ordered, _batch_norm(model), optimizer),
        "progress": {"epoch": epoch, "step": epoch * steps_per_epoch, "best_top1": best},
        "loader": {"epoch": epoch, "step": 0},
    }


def _best(value: object) -> float:
    """Return the best accuracy, a number or a tensor of one; -1 for anything else."""
    is_one = isinstance(value, Tensor) and value.numel() == 1
    found = float(value) if is_one or is_number(value, 0, 100) else -1.0  # type: ignore[arg-type]
    return found if 0 <= found <= 100 else -1.0


def describe(checkpoint: Checkpoint, *, averages: bool) -> str:
    """Return a line that says what of another program's checkpoint a run goes on with, and what begins from scratch.

    Args:
        checkpoint: its content.
        averages: the run keeps averaged weights.
    """
    taken, fresh = ["weights", "optimizer state"], ["loss scale"]
    line = ""
    if averages:
        (taken if checkpoint.get("state_dict_ema") is not None else fresh).append("averaged weights")
    elif checkpoint.get("state_dict_ema") is not None:
        line = "; its averaged weights are ignored; use --use-ema to take them over"
    return (
        f"resumed after epoch {checkpoint['epoch']} of another program's checkpoint: {', '.join(taken)}; "
        f"not in it, from scratch: {', '.join(fresh)}{line}"
    )


def _optimizer_state(
    foreign: object,
    parameters: Mapping[str, nn.Parameter],
    batch_norm: set[str],
    wanted: OptimizerState,
) -> OptimizerState:
    by_number, groups = _checked(foreign)
    found: OptimizerState = {}
    for group in groups:
        names = _names_of(group["params"], by_number, parameters, batch_norm)
        for number, name in zip(group["params"], names, strict=True):
            if name in wanted:  # a frozen parameter has no state here
                found[name] = _state_of(by_number.get(number, {}), name, wanted[name])
    if absent := [name for name in wanted if name not in found]:
        raise UserError(
            f"--resume: the checkpoint's optimizer has no state of {absent[0]} and {len(absent) - 1} more; {_REMEDY}"
        )
    return found


def _checked(foreign: object) -> tuple[Mapping[int, Mapping[str, Any]], Sequence[Mapping[str, Any]]]:
    """Return the state by number and the groups of a state dict of `torch.optim`."""
    state, groups = (
        foreign.get(key) if isinstance(foreign, Mapping) else None for key in ("state", "param_groups")
    )
    if not isinstance(state, Mapping) or not isinstance(groups, Sequence):
        raise UserError(f"--resume: the checkpoint's optimizer is not a state dict of torch.optim; {_REMEDY}")
    if not all(isinstance(of_one, Mapping) for of_one in state.values()) or not all(
        isinstance(group, Mapping) and isinstance(group.get("params"), list) for group in groups
    ):
        raise UserError(f"--resume: the checkpoint's optimizer has damaged groups; {_REMEDY}")
    for number, of_one in state.items():
        tensors = {kind: value for kind, value in of_one.items() if isinstance(value, Tensor)}
        if tensors:
            check_tensors(tensors, f"--resume: the checkpoint's optimizer, parameter {number}")
            check_finite(tensors, f"--resume: the checkpoint's optimizer, parameter {number}")
    return state, groups


def _names_of(
    numbers: Sequence[int],
    by_number: Mapping[int, Mapping[str, Any]],
    parameters: Mapping[str, nn.Parameter],
    batch_norm: set[str],
) -> Sequence[str]:
    """Return the parameters of a group, by sizes: those with weight decay, BatchNorm's without it, or all."""
    decayed = [name for name in parameters if name not in batch_norm]
    undecayed = [name for name in parameters if name in batch_norm]
    sizes = [_sizes(by_number.get(number, {}).values()) for number in numbers]
    for names in (decayed, undecayed, list(parameters)):
        if len(names) == len(numbers) and all(
            size <= {parameters[name].numel()} for size, name in zip(sizes, names, strict=True)
        ):
            return names
    raise UserError(
        f"--resume: a group of {len(numbers)} parameters in the checkpoint's optimizer is neither all "
        f"{len(parameters)} of the model's, nor its {len(undecayed)} of BatchNorm, nor the {len(decayed)} others, in "
        f"size; {_REMEDY}"
    )


def _sizes(state: Iterable[Any]) -> set[int]:
    """Return the sizes of a parameter's state, without scalars such as a step counter."""
    return {value.numel() for value in state if isinstance(value, Tensor) and value.ndim > 0}


def _state_of(state: Mapping[str, Any], name: str, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if missing := [kind for kind in wanted if not isinstance(state.get(kind), Tensor)]:
        held = ", ".join(kind for kind, value in state.items() if isinstance(value, Tensor)) or "nothing"
        raise UserError(
            f"--resume: the checkpoint's optimizer holds no {' and no '.join(missing)} of {name}, but {held}; give the "
            f"--optimizer and --momentum that it was trained with, or {_REMEDY}"
        )
    return {kind: state[kind].reshape(tensor.shape) for kind, tensor in wanted.items()}


def _batch_norm(model: nn.Module) -> set[str]:
    parameters = set(batch_norm_parameters(model))
    return {name for name, parameter in model.named_parameters() if parameter in parameters}
