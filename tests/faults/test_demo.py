"""The demo on a cluster: one file changes, and no script."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from stacks import Cluster

SCRIPT = Path(__file__).with_name('demo_on_cluster.py')


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(3300)
def test_the_demo_runs_on_a_cluster_with_a_gpu(plugin_code):
    plugin_code('mace')
    plugin_code('tblite')
    if lack := Cluster.lack():
        pytest.skip(lack)
    command = [sys.executable, '-W', 'ignore', str(SCRIPT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=3200)
    assert done.returncode == 0, f'{done.stdout}\n{done.stderr[-3000:]}'
    assert 'Errors of the potential' in done.stdout
    jobs = json.loads(done.stdout.splitlines()[-1])
    assert {job['exit_status'] for job in jobs} == {0}
    with_gpu = {job['process'] for job in jobs if any('gres=gpu:1' in line for line in job['asked'])}
    assert with_gpu == {'Train<mace>', 'Evaluate<mace>'}
