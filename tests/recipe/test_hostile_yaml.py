"""YAML that stands for gigabytes, hides a key, or asks for code: refused in one line."""

from pathlib import Path

import pytest

from effnet.recipe import read_recipe, read_yaml
from effnet.recipe.cfg_file import configured
from effnet.runtime.errors import UserError
from tests.limits import refusal, refused


def repeated(form: str, levels: int = 8) -> str:
    """Lists or merged mappings, each with nine times the one before."""
    lines = ["a0: &a0 {x: y}"]
    for level in range(1, levels + 1):
        lines.append(f"a{level}: &a{level} {form.format(', '.join([f'*a{level - 1}'] * 9))}")
    return "\n".join(lines)


HOSTILE = {
    "aliases": (repeated("[{}]"), "more than 20000 values"),
    "merge keys": (repeated("{{<<: [{}]}}"), "more than 20000 values"),
    "long aliases": (
        f"a: &a {'x' * 100_000}\nb: [{', '.join(['*a'] * 5000)}]",
        "more than 1,000,000 characters",
    ),
    "itself": ("a: &a [*a]", "an alias of what it is part of"),
    "deep lists": ("[" * 100_000, "nested in more than 32 levels"),
    "deep mappings": ("{a: " * 50_000, "nested in more than 32 levels"),
    "deep blocks": ("\n".join(f"{' ' * level}a:" for level in range(500)), "nested in more than 32 levels"),
    "many values": (f"a: [{'1,' * 100_000}]", "more than 20000 values"),
    "Python": ("a: !!python/object/apply:os.system ['true']", "python/object"),
    "bytes": ("model: {arch: !!binary YQ==}", "a bytes, which is no plain value"),
    "long integer": (f"a: {'9' * 5000}", "a number of 5000 characters"),
    "long sum": (f"a: 1{':1' * 100_000}", "a number of 200001 characters"),
    "large integer": (f"optimizer: {{batch_size: {'9' * 90}}}", "a number of 299 bits"),
    "key twice": ("model: {arch: a}\nmodel: {arch: b}", "the key model twice, line 2"),
    "setting twice": ("model: {dropout: 0.1, dropout: 0.2}", "the key dropout twice, line 1"),
    "NaN": ("optimizer: {lr: .nan}", "not finite"),
    "infinity": ("optimizer: {lr: .inf}", "not finite"),
    "no such date": ("a: 2001-99-99", "a value that can't be read"),
    "no such truth": ("a: !!bool x", "a value that can't be read"),
    "list as key": ("? [a]\n: b", "a key that is no text"),
    "number as key": ("1: {arch: b}", "a key that is a int"),
    "control character": ("model: {arch: \x01}", "special characters"),
    "two documents": ("model: {}\n---\nmodel: {}", "single document"),
    "list": ("- a", "holds no groups of settings"),
    "nothing": ("", "holds no groups of settings"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_is_refused(tmp_path: Path, name: str) -> None:
    text, reason = HOSTILE[name]
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    for read in (read_recipe, lambda path: configured(path, "efficientnet-b0/DGXA100/AMP")):
        with refused(path) as caught:
            read(path)
        assert reason in str(caught.value)


def test_other_encodings_and_sizes(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"model: {arch: \xff}")
    with refused(path):
        read_yaml(path)
    with path.open("wb") as file:
        file.truncate(1 << 30)
    with refused(path) as caught:
        read_yaml(path)
    assert "more than 256 KiB" in str(caught.value)


def test_what_honest_files_hold_is_read(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "\ufeffa: &a {x: 1, y: [1.5, yes, ~]}\nb: {<<: *a, x: 2}\nc: [*a, *a]\n", encoding="utf-8"
    )
    a = {"x": 1, "y": [1.5, True, None]}
    assert read_yaml(path) == {"a": a, "b": {**a, "x": 2}, "c": [a, a]}


@pytest.mark.parametrize("command", ["train", "quantize", "evaluate"])
def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(repeated("[{}]"))
    refusal(path, command, "--recipe", str(path), capsys=capsys)


def test_a_merge_key_may_be_there_twice(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("a: &a {x: 1}\nb: &b {y: 2}\nc: {<<: *a, <<: *b}\n")
    assert read_yaml(path)["c"] == {"x": 1, "y": 2}


def test_a_path_that_is_none() -> None:
    with pytest.raises(UserError, match="null byte"):
        read_yaml("a\0b")
