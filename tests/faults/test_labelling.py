"""The labelling chain under fire, small; `labelling_campaign.py` itself takes any size."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CAMPAIGN = Path(__file__).with_name('labelling_campaign.py')


@pytest.mark.slow
def test_no_label_is_lost_doubled_or_wrong_whatever_is_killed(plugin_code):
    python = plugin_code('tblite').filepath_executable
    command = [sys.executable, str(CAMPAIGN), '--frames', '12', '--kills', '1', '--batch', '2', '--python', str(python)]
    environment = {key: value for key, value in os.environ.items() if key != 'AIIDA_PATH'}
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500, env=environment)
    assert ran.returncode == 0, ran.stderr[-3000:]
    found = json.loads(ran.stdout.splitlines()[-1])
    killed = [event for event in found['events'] if 'killed' in event]
    assert len(killed) == 2, found['events']
    assert found['exit_status'] == 0
    assert found['n_labelled'] == 11
    assert found['n_wrong'] == 0
    assert found['n_computed_twice'] == 0
    assert found['n_duplicate_links'] == 0
    assert found['sources_are_jobs']
    ((frame, kind, reason),) = found['failures']
    assert (frame, kind) == (found['bad_frame'], 'failed')
    assert 'interatomic' in reason
    assert found['n_jobs_of_broken_code'] > 0
