"""Faults on purpose, the quick ones; `make faults` has all of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from stacks import STACKS

SCRIPT = Path(__file__).with_name('faults.py')


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    ('stack', 'faults'),
    [('laptop', ('kill_broker',)), ('cluster', ('cancel_job',))],
)
def test_nothing_is_lost_doubled_or_wrong(stack, faults):
    if lack := STACKS[stack].lack():
        pytest.skip(lack)
    words = [word for fault in faults for word in ('--fault', fault)]
    command = [sys.executable, '-W', 'ignore', str(SCRIPT), '--stack', stack, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1400)
    assert done.returncode == 0, f'{done.stdout}\n{done.stderr[-3000:]}'
    found = json.loads(done.stdout.splitlines()[-1])
    assert [each['fault'] for each in found] == list(faults)
    assert all(not each['faults'] for each in found)
