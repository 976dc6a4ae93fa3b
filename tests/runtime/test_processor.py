"""Vector extensions as the system tells them."""

from pathlib import Path

import pytest

from effnet.runtime.processor import has_vnni, vector_extensions


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


def test_a_system_that_does_not_tell(tmp_path: Path) -> None:
    assert vector_extensions(tmp_path / "absent") is None
    assert not has_vnni(tmp_path / "absent")
