"""`effnet serve` under load from wrk: with and without batches in interleaved rounds, and its memory over time."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from effnet.benchmark.environment import environment
from effnet.runtime.errors import UserError

BATCHED, SINGLE = "batched", "single"
_WARMING = 200  # requests before memory is looked at
_MOST_CLIENTS = 32
_SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "multipart/form-data; boundary=effnet"
local file = io.open(os.getenv("EFFNET_PHOTO"), "rb")
wrk.body = '--effnet\\r\\nContent-Disposition: form-data; name="file"; filename="p.jpg"\\r\\n'
  .. 'Content-Type: image/jpeg\\r\\n\\r\\n' .. file:read("*all") .. '\\r\\n--effnet--\\r\\n'
file:close()
done = function(summary, latency, requests)
  local e = summary.errors
  io.stderr:write(string.format(
    '{"requests": %d, "seconds": %.6f, "lost": %d, "refused": %d, "p50": %.3f, "p95": %.3f, "p99": %.3f}',
    summary.requests, summary.duration / 1e6, e.connect + e.read + e.write + e.timeout, e.status,
    latency:percentile(50) / 1e3, latency:percentile(95) / 1e3, latency:percentile(99) / 1e3))
end
"""


@dataclass(frozen=True)
class ServeBenchmark:
    """Settings of the benchmark.

    Attributes:
        model: as `effnet serve` takes it.
        photo: image file that clients send.
        engines: engines of the servers.
        clients: numbers of clients, one after the other.
        rounds: turns of each server, of which the median is taken.
        seconds: of a turn.
        requests: requests over which memory is looked at, after the rounds; 0 for none.
    """

    model: str
    photo: Path
    engines: tuple[str, ...]
    clients: tuple[int, ...] = (1, 8, _MOST_CLIENTS)
    rounds: int = 5
    seconds: int = 8
    requests: int = 10_000


def benchmark_serve(settings: ServeBenchmark) -> dict[str, Any]:
    """Measure servers on this machine, whose cores wrk shares with them, and print each result as soon as it is there.

    Returns:
        For each engine and number of clients requests per second and latencies in milliseconds of both servers, medians
        over the rounds, and the median ratio of their rates; memory in bytes before and after; the environment.

    Raises:
        UserError: wrk is missing, or a server does not start or refuses requests.
    """
    if shutil.which("wrk") is None:
        raise UserError("wrk is not installed: apt-get install wrk")
    rows: list[dict[str, Any]] = []
    memory: list[dict[str, Any]] = []
    for engine in settings.engines:
        with ExitStack() as stack:
            servers = {
                name: stack.enter_context(_server(settings.model, engine, largest))
                for name, largest in ((BATCHED, 8), (SINGLE, 1))
            }
            for clients in settings.clients:
                rows.append(_row(settings, engine, servers, clients))
                _print_row(rows[-1])
            if settings.requests:
                memory.append({"engine": engine, **_memory(settings, *servers[BATCHED])})
                _print_memory(memory[-1])
    return {"benchmark": "serve", "rows": rows, "memory": memory, "environment": environment()}


def _row(
    settings: ServeBenchmark, engine: str, servers: dict[str, tuple[str, int]], clients: int
) -> dict[str, Any]:
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in servers}
    for _ in range(settings.rounds):
        for name, (address, _process) in servers.items():
            turns[name].append(_load(settings.photo, address, clients, settings.seconds))
    rates = {name: [each["requests"] / each["seconds"] for each in own] for name, own in turns.items()}
    medians = {
        name: {
            "requests_per_second": statistics.median(rates[name]),
            **{key: statistics.median(each[key] for each in own) for key in ("p50", "p95", "p99")},
        }
        for name, own in turns.items()
    }
    ratios = [a / b for a, b in zip(rates[BATCHED], rates[SINGLE], strict=True)]
    return {
        "engine": engine,
        "clients": clients,
        **medians,
        "ratio": statistics.median(ratios),
        "turns": turns,
    }


def _memory(settings: ServeBenchmark, address: str, process: int) -> dict[str, int]:
    def send(wanted: int) -> int:
        sent = 0
        while sent < wanted:
            sent += int(_load(settings.photo, address, _MOST_CLIENTS, settings.seconds)["requests"])
        return sent

    send(_WARMING)
    before = _resident(process)
    sent = send(settings.requests)
    return {"requests": sent, "before": before, "after": _resident(process)}


def _resident(process: int) -> int:
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def _server(model: str, engine: str, largest: int) -> Iterator[tuple[str, int]]:
    """The address and the process of a server that runs within the block."""
    command = [
        sys.executable,
        "-m",
        "effnet",
        "serve",
        model,
        "--engine",
        engine,
        "--max-batch",
        str(largest),
    ]
    command += ["--port", "0", "--cpu"]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert process.stdout is not None
            words = process.stdout.readline().split()
            addresses = [word for word in words if word.startswith("http://")]
            if not addresses:
                log.seek(0)
                raise UserError(
                    f"the server did not start: {log.read()[-300:].decode(errors='replace').strip()}"
                )
            yield addresses[0], process.pid
        finally:
            process.terminate()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def _load(photo: Path, address: str, clients: int, seconds: int) -> dict[str, float]:
    """Let clients send requests, each the next one after its answer; return what wrk has counted."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_SCRIPT)
        script.flush()
        flags = ["-t1", f"-c{clients}", f"-d{seconds}", "--timeout", "30", "-s", script.name]
        done = subprocess.run(
            ["wrk", *flags, f"{address}/classify"],
            capture_output=True,
            text=True,
            env={**os.environ, "EFFNET_PHOTO": str(photo)},
        )
    try:
        found: dict[str, float] = json.loads(done.stderr)
    except ValueError:
        raise UserError(f"wrk fails: {(done.stderr or done.stdout).strip()[-200:]}") from None
    if found["lost"] or found["refused"]:
        lost, refused = found["lost"], found["refused"]
        raise UserError(f"of {found['requests']} requests {refused} were refused and {lost} got no answer")
    return found


def _print_row(row: dict[str, Any]) -> None:
    console = Console()
    for name in (BATCHED, SINGLE):
        each = row[name]
        rate = f"{each['requests_per_second']:7.1f} requests/s"
        console.print(
            f"{row['engine']:12} {row['clients']:3} clients, {name:8} {rate}, p50/95/99 "
            f"{each['p50']:.0f}/{each['p95']:.0f}/{each['p99']:.0f} ms"
        )
    console.print(f"{'':12} {row['clients']:3} clients, batches gain {row['ratio']:.2f} x")


def _print_memory(found: dict[str, Any]) -> None:
    before, after = (found[key] / 2**20 for key in ("before", "after"))
    Console().print(
        f"{found['engine']:12} memory {before:.0f} MiB, after {found['requests']} requests {after:.0f} MiB"
    )
