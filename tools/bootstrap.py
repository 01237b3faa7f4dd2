"""The virtual environment `.venv` of a checkout: made, brought up to date, or refused in one sentence.

Any Python from 3.6 on can read this file, so that one which is too old gets a sentence and not a syntax error.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / 'src' / 'aiida_perovmlip' / 'installation' / 'constraints.txt'
VENV = ROOT / '.venv'
KEY = VENV / '.key'  # written last: what `.venv` was made from
BUILDING = VENV / '.building'  # there while `.venv` is being made, and after an interruption
LOG = VENV / 'bootstrap.log'
OLDEST = (3, 11)


def main():
    """Make `.venv` for the users of a demonstration, or with all tools of a developer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--dev', action='store_true', help='with all that tests, checks and documentation need')
    parser.add_argument('--python', default=sys.executable, help='how the user calls this Python')
    parser.add_argument('--goal', default='demo', help='what the user wants to make')
    arguments = parser.parse_args()
    if sys.version_info < OLDEST:
        sys.exit(too_old(arguments.python, arguments.goal))
    if VENV.exists() and not KEY.exists() and not BUILDING.exists():
        sys.exit(f'{VENV} was not made by make. Move it away, and run `make {arguments.goal}` again.')
    state = {'python': sys.version.split()[0], 'content': digest(), 'dev': arguments.dev}
    known = read_state()
    if is_enough(known, state):
        return
    state['dev'] = state['dev'] or known.get('dev', False)
    note_compiler()
    try:
        make(state, keep=known.get('python') == state['python'])
    except KeyboardInterrupt:
        sys.exit(f'Interrupted. Run `make {arguments.goal}` again; what is half built is built anew.')


def too_old(called, goal):
    """Return what to say to a Python that is too old."""
    oldest, ours = '.'.join(map(str, OLDEST)), sys.version.split()[0]
    others = newer_pythons()
    example = others[0] if others else 'python3.12'
    found = f' Found here: {", ".join(others)}.' if others else ' None was found here.'
    return (
        f'aiida-perovmlip needs Python {oldest} or newer, but `{called}` is Python {ours} ({sys.executable}).'
        f'{found}\nName another one: `make {goal} PYTHON={example}`'
    )


def newer_pythons():
    """Return the names of Pythons on the PATH that are new enough and do start."""
    found = []
    for minor in (12, 13, 11, 14):
        name = f'python3.{minor}'
        if shutil.which(name):
            answer = subprocess.run([name, '-c', ''], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
            if answer.returncode == 0:
                found.append(name)
    return found


def digest():
    """Return a digest of all that decides what is in `.venv`."""
    content = (ROOT / 'pyproject.toml').read_bytes() + CONSTRAINTS.read_bytes()
    return hashlib.sha256(str(ROOT).encode() + content).hexdigest()[:16]


def read_state():
    """Return what `.venv` was made from; nothing where it is missing or half made."""
    try:
        return {} if BUILDING.exists() else json.loads(KEY.read_text())
    except (OSError, ValueError):
        return {}


def is_enough(known, wanted):
    """Tell whether `.venv` is what is wanted, or more."""
    same = all(known.get(name) == wanted[name] for name in ('python', 'content'))
    return same and known['dev'] >= wanted['dev'] and (VENV / 'bin' / 'python').exists()


def note_compiler():
    """Say beforehand that a compiler may be missed; on many machines everything comes ready made."""
    if not any(shutil.which(name) for name in ('cc', 'gcc', 'clang')):
        print(
            'Note: there is no C compiler here (`cc`). If pip has to compile a package it will stop; then install one '
            '(Debian and Ubuntu: `apt-get install build-essential python3-dev`).',
            flush=True,
        )


def make(state, keep):
    """Make `.venv` anew, or update one of the same Python, and write down from what."""
    if VENV.exists() and not keep:
        shutil.rmtree(str(VENV))
    VENV.mkdir(exist_ok=True)
    BUILDING.touch()
    LOG.write_text('')
    python = str(VENV / 'bin' / 'python')
    if not keep:
        run('virtual environment', sys.executable, '-I', '-m', 'venv', '--without-pip', str(VENV))
        run('pip', python, '-I', '-m', 'ensurepip', '--default-pip')
    wanted = f'{ROOT}[dev]' if state['dev'] else str(ROOT)
    pip = (python, '-I', '-m', 'pip', '--no-input', '--disable-pip-version-check')
    run('packages', *pip, 'install', '-c', str(CONSTRAINTS), '-e', wanted)
    KEY.write_text(json.dumps(state))
    BUILDING.unlink()


def run(title, *command):
    """Run one command; where it fails, say why and what to do."""
    # The package is not installed yet, but these two modules need nothing but the standard library.
    sys.path.insert(0, str(ROOT / 'src'))
    from aiida_perovmlip.installation.diagnosis import ADVICE, diagnose, last_lines
    from aiida_perovmlip.installation.running import run_logged

    if run_logged(command, LOG, f'.venv: {title}') == 0:
        return
    said = LOG.read_text(errors='replace')
    sys.exit(
        f'\nThe environment of this checkout could not be made: {ADVICE[diagnose(said)]}\n'
        f'The last that was said:\n{last_lines(said)}\nAll of it is in {LOG}'
    )


if __name__ == '__main__':
    main()
