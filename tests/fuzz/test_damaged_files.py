"""Damaged files give a sentence or correct frames: some here, and as many as one likes with PEROVMLIP_FUZZ."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
COUNT = int(os.environ.get('PEROVMLIP_FUZZ', '300'))
SEED = int(os.environ.get('PEROVMLIP_FUZZ_SEED', '1'))
MOST_BYTES = 60_000


def damaged(kind: str, files: list[Path], count: int = COUNT) -> None:
    command = [sys.executable, str(HERE / 'damaged_files.py'), kind, str(count), str(SEED), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    sys.stderr.write(done.stderr)
    wrong = json.loads(done.stdout)
    assert not wrong, f'{len(wrong)} of {count} went wrong:\n' + '\n'.join(
        f'{entry["seed"]}: {entry["why"]}' for entry in wrong[:5]
    )


@pytest.mark.timeout(0)
def test_extended_xyz(make_dataset, make_frames, tmp_path):
    files = []
    for dialect in ('ase', 'mace', 'gpumd', 'nequip'):
        files.append(tmp_path / f'{dialect}.xyz')
        make_dataset(3, seed=5).to_extxyz(files[-1], dialect)
    damaged('extxyz', files)


@pytest.mark.timeout(0)
def test_ml_ab():
    damaged('ml_ab', [HERE.parent / 'labellers' / 'vasp' / 'made_up.ML_AB'])


@pytest.mark.timeout(0)
def test_vasprun(shared_data, tmp_path):
    whole = gzip.decompress((shared_data / 'fasni3_r2scan_vasp' / 'cubic.vasprun.xml.gz').read_bytes())
    end = whole.index(b'</calculation>', whole.index(b'</calculation>') + 1) + len(b'</calculation>')
    (tmp_path / 'short.xml').write_bytes(whole[:end] + b'\n</modeling>\n')  # two steps
    damaged('vasprun', [tmp_path / 'short.xml'])


@pytest.mark.timeout(0)
def test_nep(shared_data):
    damaged('nep', [shared_data / 'bazrs3_nep' / 'nep.txt'])


def test_what_is_wrong_would_be_found(tmp_path):
    import damaged_files

    (tmp_path / 'x').write_bytes(b'3\n')

    def boom(content, folder):
        raise KeyError('x')

    damaged_files.KINDS['boom'] = boom
    try:
        wrong = damaged_files.run('boom', 3, 0, [tmp_path / 'x'])
    finally:
        del damaged_files.KINDS['boom']
    assert [entry['seed'] for entry in wrong] == [[0, 0], [0, 1], [0, 2]]
    assert 'KeyError' in wrong[0]['why']
