"""Read thousands of files that were damaged at random: each gives a sentence or correct frames.

    python tests/fuzz/damaged_files.py KIND COUNT SEED FILE...

prints a JSON list of what went wrong: the seed that repeats it, and the traceback. KIND is a name in KINDS.
"""

from __future__ import annotations

import gzip
import io
import json
import resource
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

SECONDS = 20
"""No file of these sizes takes a hundredth of it."""

MEMORY = 6 * 2**30
"""Bytes of addresses; a count of atoms that was damaged must not ask for more."""

NUMBERS = (
    b'nan', b'inf', b'-inf', b'-1', b'0', b'1e308', b'1e999', b'99999999999', b'', b'1.0.0', b'0x1f', b'1_000',
    b'\xd9\xa1', b'1e-400', b'-0.0', b'True', b'****', b'.', b'+',
)  # fmt: skip
INSERTS = (
    b'\x00',
    b'\xff\xfe',
    b'"',
    b"'",
    b'<',
    b'>',
    b'&x;',
    b']]>',
    b'\r',
    b'\n\n',
    b'=',
    b':',
    b'\xe2\x98\x83',
    b'{',
    b'[[',
)


def damage(content: bytes, rng: np.random.Generator) -> bytes:
    """Return the content with one to four damages."""
    for _ in range(int(rng.integers(1, 5))):
        content = DAMAGES[int(rng.integers(len(DAMAGES)))](content, rng)
    return content


def _place(content: bytes, rng: np.random.Generator) -> int:
    """Return where a damage is: half of them are near the beginning, where headers are."""
    size = max(1, len(content))
    return int(rng.integers(size if rng.random() < 0.5 else min(size, 2000)))


def flip(content: bytes, rng: np.random.Generator) -> bytes:
    """Change one byte."""
    place = _place(content, rng)
    return content[:place] + bytes([int(rng.integers(256))]) + content[place + 1 :]


def cut(content: bytes, rng: np.random.Generator) -> bytes:
    """Lose what follows."""
    return content[: _place(content, rng)]


def lose(content: bytes, rng: np.random.Generator) -> bytes:
    """Lose some bytes."""
    place = _place(content, rng)
    return content[:place] + content[place + int(rng.integers(1, 200)) :]


def insert(content: bytes, rng: np.random.Generator) -> bytes:
    """Put in what has a meaning for some parser."""
    place = _place(content, rng)
    return content[:place] + INSERTS[int(rng.integers(len(INSERTS)))] + content[place:]


def repeat(content: bytes, rng: np.random.Generator) -> bytes:
    """Write a piece twice."""
    place = _place(content, rng)
    end = place + int(rng.integers(1, 500))
    return content[:end] + content[place:]


def _lines(change: Callable[[list[bytes], int, np.random.Generator], None]) -> Callable[..., bytes]:
    def act(content: bytes, rng: np.random.Generator) -> bytes:
        lines = content.split(b'\n')
        index = content.count(b'\n', 0, _place(content, rng))
        change(lines, index, rng)
        return b'\n'.join(lines)

    return act


def _lose_line(lines: list[bytes], index: int, _: np.random.Generator) -> None:
    del lines[index]


def _repeat_line(lines: list[bytes], index: int, _: np.random.Generator) -> None:
    lines.insert(index, lines[index])


def _swap_lines(lines: list[bytes], index: int, rng: np.random.Generator) -> None:
    other = int(rng.integers(len(lines)))
    lines[index], lines[other] = lines[other], lines[index]


def _replace_number(lines: list[bytes], index: int, rng: np.random.Generator) -> None:
    words = lines[index].split(b' ')
    known = [place for place, word in enumerate(words) if any(48 <= byte <= 57 for byte in word)]
    if known:
        words[known[int(rng.integers(len(known)))]] = NUMBERS[int(rng.integers(len(NUMBERS)))]
        lines[index] = b' '.join(words)


def _lose_word(lines: list[bytes], index: int, rng: np.random.Generator) -> None:
    words = lines[index].split(b' ')
    del words[int(rng.integers(len(words)))]
    lines[index] = b' '.join(words)


DAMAGES: tuple[Callable[..., bytes], ...] = (
    flip, cut, lose, insert, repeat, _lines(_lose_line), _lines(_repeat_line), _lines(_swap_lines),
    _lines(_replace_number), _lines(_replace_number), _lines(_replace_number), _lines(_lose_word),
)  # fmt: skip


# ---------------------------------------------------------------------- the readers, and what is right


def read_extxyz(content: bytes, folder: Path) -> None:
    """Read extended XYZ."""
    from aiida_perovmlip.compute.extxyz import open_text, read_extxyz

    path = folder / 'frames.xyz'
    path.write_bytes(content)
    with open_text(path) as stream:
        _check(list(read_extxyz(stream, 'frames.xyz')))


def read_vasprun(content: bytes, folder: Path) -> None:
    """Read vasprun.xml."""
    from aiida_perovmlip.labellers.vasp.run import read_run

    path = folder / 'vasprun.xml'
    path.write_bytes(content)
    _check(list(read_run(path).frames))


def read_ml_ab(content: bytes, _: Path) -> None:
    """Read ML_AB."""
    from aiida_perovmlip.labellers.vasp.ml_ab import read_ml_ab

    _check(list(read_ml_ab(io.StringIO(content.decode('utf-8', errors='replace')))))


def read_nep(content: bytes, folder: Path) -> None:
    """Read nep.txt."""
    from aiida_perovmlip.compute.architectures.nep.potential_file import read_nep

    path = folder / 'nep.txt'
    path.write_bytes(content)
    found = read_nep(path)
    assert np.isfinite(found.values).all()
    assert len(found.values) == found.header.n_values
    assert np.isfinite(found.header.cutoffs).all()
    assert min(found.header.cutoffs) > 0
    assert len(set(found.header.elements)) == len(found.header.elements)


KINDS = {'extxyz': read_extxyz, 'vasprun': read_vasprun, 'ml_ab': read_ml_ab, 'nep': read_nep}


def _check(frames: list[Any]) -> None:
    """Put frames into a shard, as an import does; raise where it takes what is not finite."""
    from aiida_perovmlip.compute.shard import ShardBuilder

    if not frames:
        return
    builder = ShardBuilder()
    for frame in frames:
        builder.add(frame)
    for frame in builder.build():
        assert np.isfinite(frame.positions).all()
        assert np.isfinite(frame.cell).all()
        assert frame.energy is None or np.isfinite(frame.energy)
        assert frame.forces is None or np.isfinite(frame.forces).all()
        assert frame.stress is None or np.isfinite(frame.stress).all()
        assert not frame.pbc.all() or abs(np.linalg.det(frame.cell)) > 0


@contextmanager
def soon() -> Iterator[None]:
    """Raise a TimeoutError where something hangs."""

    def ring(*_: Any) -> None:
        raise TimeoutError(f'it took more than {SECONDS} s.')

    signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)


def expected() -> tuple[type[Exception], ...]:
    """Return the errors whose message is a sentence for a user."""
    from aiida_perovmlip.compute.contract import JobError
    from aiida_perovmlip.compute.extxyz import UNDECODABLE
    from aiida_perovmlip.compute.frame import FrameError

    return (FrameError, JobError, *UNDECODABLE)


def run(kind: str, count: int, seed: int, files: list[Path]) -> list[dict[str, Any]]:
    """Damage and read so many files; return what went wrong."""
    contents = [
        gzip.decompress(raw) if raw[:2] == b'\x1f\x8b' else raw for raw in (path.read_bytes() for path in files)
    ]
    wrong, sentences, whole = [], 0, 0
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(count):
            rng = np.random.default_rng([seed, number])
            content = damage(contents[number % len(contents)], rng)
            try:
                with soon():
                    KINDS[kind](content, Path(scratch))
                whole += 1
            except expected() as error:
                sentences += 1
                if not 5 < len(str(error)) < 3000:
                    wrong.append({'seed': [seed, number], 'why': f'no sentence: {str(error)[:300]!r}'})
            except BaseException:
                wrong.append({'seed': [seed, number], 'why': traceback.format_exc()[-1500:]})
    print(f'{kind}: {count} files, {whole} read, {sentences} refused, {len(wrong)} wrong', file=sys.stderr)
    return wrong


if __name__ == '__main__':
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    print(json.dumps(run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), [Path(each) for each in sys.argv[4:]])))
