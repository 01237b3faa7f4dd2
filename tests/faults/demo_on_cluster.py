"""Runs the demo of the README on Slurm over SSH, with a GPU for MACE: the file of the cluster says so, and no script.

Prints what the demo printed, and as the last line each job: what ran, how it ended, and what it asked Slurm for.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stacks import BIN, Cluster, run

DEMO = Path(__file__).resolve().parents[2] / 'examples' / 'first_potential.py'


def jobs() -> Iterator[dict[str, Any]]:
    """Yield what is known of each job."""
    from aiida import orm

    for node in orm.QueryBuilder().append(orm.CalcJobNode).all(flat=True):
        script = node.base.repository.get_object_content('_aiidasubmit.sh').splitlines()
        asked = [line.removeprefix('#SBATCH --') for line in script if line.startswith('#SBATCH --')]
        yield {'process': node.process_label, 'exit_status': node.exit_status, 'asked': asked}


def main() -> int:
    """Run the demo in a folder of its own; return its exit status."""
    from aiida_perovmlip.installation import environments

    pythons = {name: environments.python_of(name) for name in ('tblite', 'mace')}
    if None in pythons.values():
        sys.exit('There is no environment of tblite or MACE: `aiida-perovmlip setup --with mace --with tblite`.')
    codes = {name: {'executable': str(python)} for name, python in pythons.items()}
    codes['mace']['gpus'] = 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is stopped then, too
    os.environ['PATH'] = f'{BIN}:{os.environ["PATH"]}'
    with tempfile.TemporaryDirectory(prefix='perovmlip-demo-', ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / 'home').mkdir()
        os.environ |= {'AIIDA_PATH': str(folder), 'HOME': str(folder / 'home')}
        stack = Cluster(folder, codes)
        try:
            stack.start()
            output = ['--output', folder / 'demo', '--computer', stack.computer]
            done = run('verdi', 'run', DEMO, *output, check=False, seconds=3000)
            print(done.stdout, done.stderr[-3000:], json.dumps(list(jobs())), sep='\n')
            return done.returncode
        finally:
            stack.stop()


if __name__ == '__main__':
    sys.exit(main())
