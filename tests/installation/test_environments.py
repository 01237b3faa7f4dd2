"""Real virtual environments of tiny packages that are made on the spot."""

from __future__ import annotations

import fcntl
import json
import platform
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from aiida_perovmlip.installation import environments
from aiida_perovmlip.installation.diagnosis import Cause
from aiida_perovmlip.installation.environments import Environment, EnvironmentFailure, default_prefix, refuse_torch

HAS_TWO_BUILDS_OF_TORCH = platform.system() == 'Linux' and platform.machine() == 'x86_64'


@pytest.fixture
def tiny(tmp_path, make_wheel) -> Environment:
    """Return an environment of one tiny package, not yet built."""
    make_wheel('tinypackage')
    return Environment('tiny', ('tinypackage',), tmp_path / 'prefix', always=())


def build_elsewhere(environment: Environment, **kwargs) -> subprocess.Popen[str]:
    """Build in another process, which prints the outcome."""
    code = f"""
        import signal
        from pathlib import Path
        from aiida_perovmlip.installation.environments import Environment
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored
        path = Path({str(environment.prefix)!r})
        print(Environment({environment.name!r}, {environment.requirements!r}, path, always=()).build().outcome)
    """
    command = [sys.executable, '-c', textwrap.dedent(code)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, f'{path} never came'
        time.sleep(0.01)


def test_an_environment_is_built_once(tiny):
    assert not tiny.is_complete
    assert tiny.build().outcome == 'created'
    marker = tiny.path / environments.MARKER
    written = marker.stat().st_mtime_ns
    assert tiny.build().outcome == 'found'
    assert marker.stat().st_mtime_ns == written
    content = json.loads(marker.read_text())
    assert content['packages'] == ['tinypackage==1.0']
    assert content['requirements'] == ['tinypackage']
    assert content['python'] == platform.python_version()
    answer = subprocess.run([tiny.python, '-c', 'import tinypackage'], check=False)
    assert answer.returncode == 0


def test_a_dry_run_leaves_no_trace(tiny):
    done = tiny.build(dry_run=True)
    assert done.says == 'would be created'
    assert not tiny.prefix.exists()


def test_an_environment_without_its_marker_or_its_python_is_built_anew(tiny):
    tiny.path.mkdir(parents=True)
    (tiny.path / 'leftover').touch()
    assert environments.incomplete(tiny.prefix) == [tiny.path]
    assert tiny.build().outcome == 'replaced'
    assert not (tiny.path / 'leftover').exists()
    assert environments.incomplete(tiny.prefix) == []
    tiny.python.unlink()
    assert not tiny.is_complete
    assert tiny.build().outcome == 'replaced'
    assert tiny.is_complete


def test_a_killed_build_is_built_anew(tiny):
    builder = build_elsewhere(tiny)
    wait_for(tiny.path / 'pyvenv.cfg')
    builder.kill()
    builder.communicate()
    assert not tiny.is_complete
    assert tiny.build().outcome == 'replaced'


def test_an_interrupted_build_says_so_and_leaves_nothing(tiny):
    builder = build_elsewhere(tiny)
    wait_for(tiny.path / 'pyvenv.cfg')
    builder.send_signal(signal.SIGINT)
    _, said = builder.communicate()
    assert builder.returncode == 1
    assert 'EnvironmentFailure: the environment `tiny` could not be built: it was interrupted' in said
    assert not tiny.path.exists()


def test_two_builds_at_once_make_one_environment(tiny):
    builders = [build_elsewhere(tiny) for _ in range(2)]
    said = [builder.communicate() for builder in builders]
    assert sorted(out.strip() for out, _ in said) == ['created', 'found']
    assert any('waiting for another process' in err for _, err in said)


def test_the_lock_outlives_a_killed_builder_while_its_pip_works(tmp_path):
    lock, started = tmp_path / 'lock', tmp_path / 'started'
    code = f"""
        from pathlib import Path
        import fcntl
        from aiida_perovmlip.installation.running import run_logged
        handle = open({str(lock)!r}, 'w')
        fcntl.flock(handle, fcntl.LOCK_EX)
        command = ['sh', '-c', 'touch {started}; sleep 1.5']
        run_logged(command, Path({str(tmp_path / 'log')!r}), 'pip', keep_open=(handle.fileno(),))
    """
    parent = subprocess.Popen([sys.executable, '-c', textwrap.dedent(code)], stderr=subprocess.DEVNULL)
    wait_for(started)
    parent.kill()
    parent.wait()
    with lock.open('w') as handle:
        with pytest.raises(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(handle, fcntl.LOCK_EX)


def test_a_missing_package_is_a_sentence_with_what_pip_said(tiny, tmp_path):
    nobody = Environment('nobody', ('no-such-package',), tmp_path / 'prefix', always=())
    with pytest.raises(EnvironmentFailure, match='No matching distribution found for no-such-package') as failure:
        nobody.build()
    assert failure.value.cause is Cause.NO_MATCH
    assert str(nobody.log) in str(failure.value)
    assert nobody.log.exists()
    assert not nobody.path.exists()


def test_a_silent_index_is_told_from_a_missing_package(tiny, monkeypatch):
    monkeypatch.delenv('PIP_NO_INDEX')
    monkeypatch.delenv('PIP_FIND_LINKS')
    monkeypatch.setenv('PIP_INDEX_URL', 'http://127.0.0.1:9/')
    monkeypatch.setenv('PIP_RETRIES', '1')
    with pytest.raises(EnvironmentFailure, match='Check the network') as failure:
        tiny.build()
    assert failure.value.cause is Cause.UNREACHABLE


def test_a_prefix_that_cannot_be_written_is_a_sentence(tmp_path, tiny):
    (tmp_path / 'prefix').write_text('a file')
    with pytest.raises(EnvironmentFailure, match='--prefix') as failure:
        tiny.build()
    assert failure.value.cause is Cause.NOT_ALLOWED


def test_python_variables_of_the_caller_do_not_reach_pip(tiny, tmp_path, monkeypatch):
    (tmp_path / 'shadow').mkdir()
    (tmp_path / 'shadow' / 'pip.py').write_text('raise SystemExit("shadowed")')
    monkeypatch.setenv('PYTHONPATH', str(tmp_path / 'shadow'))
    assert tiny.build().outcome == 'created'


def test_ase_is_in_every_environment(tmp_path):
    assert Environment('any', ('six',), tmp_path).wanted == ('six', 'ase')


def test_the_key_follows_all_that_decides_what_is_inside(tmp_path, monkeypatch):
    constraints = tmp_path / 'constraints.txt'
    monkeypatch.setattr(environments, 'CONSTRAINTS', constraints)

    def key(text='six==1\nase==3\ntorch==2\nmypy==1\n', requirements=('six',), **kwargs):
        constraints.write_text(text)
        return Environment('any', requirements, tmp_path, **kwargs).key

    assert key() == key()
    assert key() != key(requirements=('six', 'scipy'))
    assert key() != key(text='six==2\nase==3\ntorch==2\nmypy==1\n')
    assert key() != key(text='six==1\nase==4\ntorch==2\nmypy==1\n')
    assert key() == key(text='six==1\nase==3\ntorch==2\nmypy==2\n')


def test_only_an_environment_with_torch_asks_which_torch(tmp_path):
    without = {Environment('a', ('six',), tmp_path, torch).key for torch in ('cpu', 'gpu', 'as-is')}
    assert len(without) == 1
    having = {Environment('a', ('mace-torch',), tmp_path, torch).key for torch in ('cpu', 'gpu', 'as-is')}
    assert len(having) == 3


def test_the_prefix_is_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.delenv('XDG_DATA_HOME', raising=False)
    monkeypatch.delenv(environments.PREFIX_VARIABLE, raising=False)
    assert default_prefix() == tmp_path / '.local' / 'share' / 'aiida-perovmlip'
    monkeypatch.setenv('XDG_DATA_HOME', str(tmp_path / 'xdg'))
    assert default_prefix() == tmp_path / 'xdg' / 'aiida-perovmlip'
    monkeypatch.setenv(environments.PREFIX_VARIABLE, '~/mine')
    assert default_prefix() == tmp_path / 'mine'


@pytest.mark.parametrize(
    ('version', 'system', 'machine', 'refused'),
    [
        ('2.13.0', 'Linux', 'x86_64', True),
        ('2.13.0+cu130', 'Linux', 'x86_64', True),
        ('2.13.0+cpu', 'Linux', 'x86_64', False),
        ('2.13.0', 'Linux', 'aarch64', False),
        ('2.13.0', 'Darwin', 'arm64', False),
    ],
)
def test_only_a_cuda_build_on_linux_is_refused(version, system, machine, refused):
    assert (refuse_torch(version, system, machine) is not None) is refused


@pytest.mark.skipif(not HAS_TWO_BUILDS_OF_TORCH, reason='only Linux on x86-64 has CUDA builds in the usual place')
def test_a_cuda_build_is_refused_before_it_is_loaded(tmp_path, make_wheel):
    make_wheel('torch', '2.13.0')
    environment = Environment('net', ('torch',), tmp_path / 'prefix', always=())
    with pytest.raises(EnvironmentFailure, match='--torch gpu') as failure:
        environment.build()
    assert failure.value.cause is Cause.CUDA_BUILD
    assert 'Installing collected packages: torch' not in environment.log.read_text()
    assert not environment.path.exists()


@pytest.mark.parametrize(('choice', 'version'), [('cpu', 'torch==2.13.0+cpu'), ('gpu', 'torch==9.0')])
def test_the_choice_of_torch_decides_what_is_installed(tmp_path, make_wheel, choice, version):
    make_wheel('torch', '2.13.0+cpu')
    make_wheel('torch', '9.0')
    environment = Environment('net', ('torch',), tmp_path / 'prefix', choice, always=())
    environment.build()
    assert json.loads((environment.path / environments.MARKER).read_text())['packages'] == [version]


def test_the_python_of_a_plugin_is_that_of_its_environment_once_built(tmp_path, make_wheel, tiny_plugins):
    make_wheel('tinypackage')
    make_wheel('ase', '3.29.0')
    environment = Environment('tiny', ('tinypackage',), tmp_path)
    assert environments.python_of('tiny', tmp_path) is None
    environment.build()
    assert environments.python_of('tiny', tmp_path) == environment.python
    assert environments.python_of('free', tmp_path) == environments.own_python()
