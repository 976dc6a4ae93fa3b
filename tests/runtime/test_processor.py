"""Vector extensions as the system tells them."""

from pathlib import Path

import pytest

from effnet.runtime.processor import has_vnni, is_intel, sums_overflow, vector_extensions


@pytest.mark.parametrize(
    ("flags", "found", "vnni"),
    [
        ("fpu sse2 avx avx2 fma", ("avx2",), False),
        ("fpu avx2 avx512f avx512_vnni", ("avx2", "avx512f", "avx512_vnni"), True),
        ("fpu avx2 avx_vnni", ("avx2", "avx_vnni"), True),
        ("fpu not_avx512_vnni", (), False),
    ],
)
def test_flags_are_read(tmp_path: Path, flags: str, found: tuple[str, ...], vnni: bool) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    assert vector_extensions(file) == found
    assert has_vnni(file) == vnni


@pytest.mark.parametrize(
    ("machine", "flags", "overflow"),
    [
        ("x86_64", "avx2 avx512_vnni", False),
        ("x86_64", "avx2", True),
        ("aarch64", "", False),
        ("arm64", "", False),
    ],
)
def test_where_sums_overflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, flags: str, overflow: bool
) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(f"flags\t\t: {flags}\n")
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert sums_overflow(file) is overflow


def test_a_system_that_does_not_tell(tmp_path: Path) -> None:
    assert vector_extensions(tmp_path / "absent") is None
    assert not has_vnni(tmp_path / "absent")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("vendor_id\t: GenuineIntel\n", True),
        ("vendor_id\t: AuthenticAMD\n", False),
        ("processor\t: 0\n", True),  # as on ARM, which does not name a vendor
    ],
)
def test_the_maker(tmp_path: Path, text: str, expected: bool) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(text)
    assert is_intel(file) is expected
    assert is_intel(tmp_path / "absent")
