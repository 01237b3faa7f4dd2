"""A user with an empty home runs `setup`: every test starts the real command in a process of its own."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

INSPECT = """
import json
import os
from aiida import load_profile, orm
profile = load_profile()
computer = orm.load_computer('localhost')
codes = orm.QueryBuilder().append(orm.InstalledCode).all(flat=True)
print(json.dumps({
    'profile': profile.name,
    'storage': profile.storage_backend,
    'broker': profile.process_control_backend,
    'workdir': computer.get_workdir(),
    'configured': computer.is_configured,
    'interval': computer.get_minimum_job_poll_interval(),
    'transport': computer.get_configuration(),
    'codes': {code.full_label: [str(code.filepath_executable), code.is_hidden] for code in codes},
}))
"""


def rows(text: str) -> dict[str, list[str]]:
    """Return what `setup` printed by the kind and name of each row."""
    return {' '.join(line.split()[:2]): line.split()[2:] for line in text.splitlines()}


def test_a_dry_run_writes_nothing_at_all(new_user, tmp_path):
    answer = new_user('setup', '--with', 'tiny', '--dry-run')
    assert answer.returncode == 0, answer.stderr
    assert rows(answer.stdout)['profile perovmlip'][:3] == ['would', 'be', 'created']
    assert rows(answer.stdout)['code free@localhost'][:3] == ['would', 'be', 'created']
    assert list((tmp_path / 'home').iterdir()) == []


def test_setup_makes_all_that_a_first_job_needs(user):
    found = json.loads(user(code=INSPECT).stdout)
    assert found['profile'] == 'perovmlip'
    assert found['storage'] == 'core.sqlite_dos'
    assert found['broker'] == 'core.zeromq'
    assert found['configured'] is True
    assert found['interval'] == 2.0
    assert found['transport']['use_login_shell'] is False
    assert Path(found['workdir']).is_absolute()
    assert Path(found['workdir']).parts[-3:] == ('.aiida', 'work', 'perovmlip')
    assert {'free@localhost', 'reference@localhost'} <= set(found['codes'])
    assert 'tiny@localhost' not in found['codes']


def test_setup_can_be_repeated(user):
    answer = user('setup')
    assert answer.returncode == 0
    assert {row[0] for row in rows(answer.stdout).values()} == {'found'}


def test_setup_uses_the_default_profile_of_the_user_and_obeys_a_name(new_user):
    assert new_user('setup', '--profile', 'mine').returncode == 0
    answer = new_user('setup')
    assert rows(answer.stdout)['profile mine'][0] == 'found'
    answer = new_user('-p', 'second', 'setup')
    assert rows(answer.stdout)['profile second'][0] == 'created'
    assert json.loads(new_user(code=INSPECT).stdout)['profile'] == 'mine'


def test_a_code_that_moved_is_replaced_and_the_old_one_hidden(new_user):
    assert new_user('setup').returncode == 0
    move = """
from pathlib import Path
from aiida_perovmlip.installation import profile
profile.load_profile()
print(profile.ensure_code('free', Path('/elsewhere/python'), dry_run=True).says)
print(profile.ensure_code('free', Path('/elsewhere/python')).says)
print(profile.find_code('free').filepath_executable)
"""
    assert new_user(code=move).stdout.split('\n')[:3] == ['would be replaced', 'replaced', '/elsewhere/python']
    assert rows(new_user('setup').stdout)['code free@localhost'][0] == 'replaced'
    codes = json.loads(new_user(code=INSPECT).stdout)['codes']
    old = {label: hidden for label, (_, hidden) in codes.items() if label.startswith('free-')}
    assert list(old.values()) == [True, True]
    assert codes['free@localhost'][1] is False


def test_setup_with_a_plugin_builds_its_environment_and_makes_its_code(new_user, make_wheel, tmp_path):
    make_wheel('tinypackage')
    make_wheel('ase', '3.29.0')
    pip = {name: value for name, value in os.environ.items() if name.startswith('PIP_')}
    prefix = tmp_path / 'prefix'
    only = new_user('setup', '--with', 'tiny', '--prefix', str(prefix), '--environments-only', **pip)
    assert list(rows(only.stdout)) == ['environment tiny']
    assert not (tmp_path / 'home' / '.aiida').exists()
    answer = new_user('setup', '--with', 'tiny', '--prefix', str(prefix), **pip)
    table = rows(answer.stdout)
    assert table['environment tiny'][0] == 'found'
    assert table['code tiny@localhost'] == ['created', f'{table["environment tiny"][1]}/bin/python']


@pytest.mark.parametrize('arguments', [('--with', 'nonsense'), ('--with', 'broken')])
def test_setup_of_what_cannot_be_set_up_is_one_sentence(new_user, tmp_path, arguments):
    answer = new_user('setup', *arguments)
    assert answer.returncode == 1
    assert answer.stderr.startswith('Error: the')
    assert 'Traceback' not in answer.stderr
    assert list((tmp_path / 'home').iterdir()) == []


def test_a_failed_environment_leaves_aiida_alone(new_user, make_wheel, tmp_path):
    make_wheel('unrelated')
    pip = {name: value for name, value in os.environ.items() if name.startswith('PIP_')}
    answer = new_user('setup', '--with', 'tiny', '--prefix', str(tmp_path / 'prefix'), **pip)
    assert answer.returncode == 1
    assert 'Error: the environment `tiny` could not be built' in answer.stderr
    assert 'Traceback' not in answer.stderr
    assert not (tmp_path / 'home' / '.aiida').exists()
