"""Signals: where they raise, where they wait, and how the process ends that does not."""

import os
import signal
import subprocess
import sys
import time

import pytest

from effnet.runtime.signals import HANDLED, Interrupted, handled_signals, starting_children


def signalled(number: int) -> None:
    """Send this process a signal, and wait for it."""
    os.kill(os.getpid(), number)
    time.sleep(5)


def run(code: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run Python code that sends itself signals."""
    head = "import os, signal, sys, threading, time\nfrom effnet.runtime.signals import *\n"
    return subprocess.run(
        [sys.executable, "-c", head + code], capture_output=True, text=True, timeout=timeout, check=False
    )


@pytest.mark.parametrize("number", HANDLED)
def test_a_signal_raises_where_the_program_is(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with handled_signals() as signals, pytest.raises(Interrupted) as caught:
        signalled(number)
    assert caught.value.exit_code == 128 + number
    assert str(caught.value) == f"stopped by {number.name}"
    assert signals.received == number
    assert signal.getsignal(number) is before


def test_a_deferred_signal_is_noted() -> None:
    with handled_signals() as signals, signals.deferred():
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.05)
        assert signals.received == signal.SIGUSR1


def test_one_object_for_the_whole_process() -> None:
    with handled_signals() as outer:
        with handled_signals() as inner:
            assert inner is outer
        with pytest.raises(Interrupted):
            signalled(signal.SIGTERM)


def test_a_start_of_children_is_finished_first() -> None:
    done = run(
        "with handled_signals():\n"
        "    with starting_children():\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        time.sleep(0.3)\n"
        "        print('started', flush=True)\n"
        "    time.sleep(5)\n"
    )
    assert done.stdout == "started\n"
    assert "Interrupted: stopped by SIGTERM" in done.stderr


def test_children_take_no_signals() -> None:
    with starting_children():
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1); print('done')"])
    for number in HANDLED:
        child.send_signal(number)
    assert child.wait(timeout=60) == 0


def test_a_finalizer_does_not_swallow_it() -> None:
    done = run(
        "class Slow:\n"
        "    def __del__(self):\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        time.sleep(0.3)\n"
        "with handled_signals():\n"
        "    try:\n"
        "        slow = Slow(); del slow; time.sleep(30)\n"
        "    except Interrupted as error:\n"
        "        sys.exit(error.exit_code)\n"
    )
    assert (done.returncode, done.stderr) == (143, "")


def test_a_second_signal_ends_the_process_at_once() -> None:
    done = run(
        "threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "with handled_signals() as signals, signals.deferred():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(30)\n"
    )
    assert done.returncode == 130
    assert done.stderr == "stopped by SIGINT: at once, after a second signal\n"


def test_the_same_request_twice_is_one() -> None:
    done = run(
        "with handled_signals() as signals, signals.deferred():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(0.1)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(0.3)\n"
        "print(int(signals.received))\n"
    )
    assert (done.returncode, done.stdout) == (0, "15\n"), done.stderr


def test_what_does_not_end_is_ended() -> None:
    done = run(
        "threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()\n"
        "with handled_signals(grace=0.5):\n"
        "    try:\n"
        "        time.sleep(30)\n"
        "    except Interrupted:\n"
        "        time.sleep(30)\n"
    )
    assert done.returncode == 143
    assert done.stderr == "stopped by SIGTERM: did not stop within 0.5 s of the signal\n"


def test_a_signal_at_the_end_changes_nothing() -> None:
    done = run(
        "from effnet import cli\n"
        "cli.kill_children = lambda: os.kill(os.getpid(), signal.SIGTERM)\n"
        "sys.exit(cli.main(['train', '/nowhere']))\n"
    )
    assert done.returncode == 2
    assert "/nowhere" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_end_that_is_stuck_is_ended_after_a_signal() -> None:
    done = run(
        "with handled_signals(grace=0.5) as signals:\n"
        "    signals.end()\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(20)\n"
    )
    assert done.returncode == 143
    assert done.stderr == "stopped by SIGTERM: did not stop within 0.5 s of the signal\n"
