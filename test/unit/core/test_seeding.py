from __future__ import annotations

from nnunetlike.core.seeding import stream


def test_a_stream_depends_on_seed_and_path_only() -> None:
    assert stream(1, 2, 3).random() == stream(1, 2, 3).random()
    others = {stream(*p).random() for p in [(1, 2, 3), (1, 3, 2), (2, 2, 3), (1, 2), (1,)]}
    assert len(others) == 5
