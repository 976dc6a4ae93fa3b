"""Messages of a command."""

import logging

import pytest

from effnet.cli.messages import shown_log


def test_the_log_is_shown_and_the_logger_left_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("effnet")
    before = (logger.level, list(logger.handlers))
    with shown_log():
        logging.getLogger("effnet.data").info("loaded")
    assert (logger.level, logger.handlers) == before
    assert capsys.readouterr().err == "loaded\n"


def test_other_processes_than_the_first_are_silent(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    with shown_log():
        logging.getLogger("effnet").info("loaded")
    assert capsys.readouterr().err == ""
