"""Results as Markdown, in the layouts of the tables of NVIDIA's README."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table with aligned columns."""
    cells = [list(header), *(list(row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = [
        "| " + " | ".join(cell.center(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    rule = "|" + "|".join(":" + "-" * width + ":" for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def inference_tables(runs: Sequence[dict[str, Any]]) -> str:
    """Return a table for each precision: the fastest of this project's engines by model and batch size.

    Args:
        runs: as in the result of `effnet.benchmark.inference.benchmark_inference`.
    """
    header = ("Model", "Batch Size", "Throughput Avg", "Latency Avg", "Latency 95%", "Latency 99%")
    parts = []
    for precision in dict.fromkeys(run["precision"] for run in runs):
        best = [
            (run, max(own, key=lambda row: row["images_per_second"]))
            for run in runs
            if run["precision"] == precision
            and (own := [row for row in run["rows"].values() if row["engine"]])
        ]
        if best:
            engines = ", ".join(dict.fromkeys(row["engine"] for _, row in best))
            table = markdown(header, [_inference_cells(run, row) for run, row in best])
            parts.append(f"{precision.upper()} Inference Latency ({engines})\n\n{table}")
    return "\n\n".join(parts)


def _inference_cells(run: dict[str, Any], row: dict[str, Any]) -> list[str]:
    throughput = f"{row['images_per_second']:.0f} img/s"
    return [run["arch"], str(run["batch_size"]), throughput, *latencies(row)]


def latencies(row: dict[str, Any]) -> list[str]:
    """Return the average, the 95th and the 99th percentile of a row's latency, in milliseconds."""
    return [f"{1000 * row[key]:.2f} ms" for key in ("latency", "latency_at95", "latency_at99")]


def training_table(runs: Sequence[dict[str, Any]]) -> str:
    """Return this project's training throughput by model, at the best batch size, in full and mixed precision.

    Args:
        runs: as in the result of `effnet.benchmark.train.benchmark_sweep`.
    """
    best: dict[str, dict[str, float]] = {}
    for run in runs:
        own = [row["images_per_second"] for name, row in run["rows"].items() if name.startswith("effnet")]
        rates = best.setdefault(run["arch"], {})
        rates[run["precision"]] = max(*own, rates.get(run["precision"], 0.0))
    measured = {precision for rates in best.values() for precision in rates}
    full = "tf32" if "tf32" in measured else "fp32"
    mixed = "fp16" if "fp16" in measured else "bf16"
    name = full.upper()
    header = (
        "Model",
        "GPUs",
        name,
        "Throughput - mixed precision",
        f"Throughput speedup ({name} to mixed precision)",
        f"{name} Strong Scaling",
        "Mixed Precision Strong Scaling",
    )
    return markdown(header, [_training_cells(arch, r.get(full), r.get(mixed)) for arch, r in best.items()])


def _training_cells(arch: str, full: float | None, mixed: float | None) -> list[str]:
    rates = [f"{rate:.0f} img/s" if rate else "-" for rate in (full, mixed)]
    speedup = f"{mixed / full:.2f} x" if full and mixed else "-"
    return [arch, "1", *rates, speedup, *("1.0 x" if rate else "-" for rate in (full, mixed))]


def comparison_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return a table of files on engines.

    Args:
        rows: as in the result of `effnet.benchmark.compare.benchmark_files`.
    """
    header = (
        *("File", "Engine", "Precision", "Batch Size", "Images/s", "Latency Avg", "95%", "99%"),
        *("x FP32", "x PyTorch", "Top-1", "Size"),
    )
    return markdown(header, [_comparison_cells(row) for row in rows])


def _comparison_cells(row: dict[str, Any]) -> list[str]:
    return [
        Path(row["file"]).name,
        row["engine"],
        row["precision"],
        str(row["batch_size"]),
        f"{row['images_per_second']:.1f}",
        *latencies(row),
        *(f"{row[key]:.2f}" if key in row else "-" for key in ("ratio_fp32", "ratio_torch")),
        f"{row['right']}/{row['images']} ({row['top1']:.1f} %)" if "right" in row else "-",
        f"{row['size'] / 2**20:.1f} MiB",
    ]
