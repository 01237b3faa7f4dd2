"""A potential leaves one profile in an archive and is the same in another."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from aiida import orm
from aiida.engine import run_get_node
from aiida.tools.archive import create_archive

from aiida_perovmlip.calculations.evaluate import EvaluateCalculation
from aiida_perovmlip.calculations.functions.dataset import split_dataset
from aiida_perovmlip.calculations.train import TrainCalculation
from aiida_perovmlip.data.potential import PotentialData

QUESTION = """
import json
from aiida import orm
from aiida_perovmlip.calculations.evaluate import EvaluateCalculation
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.data.potential import PotentialData

def ask(uuid):
    query = orm.QueryBuilder()
    query.append(PotentialData, filters={'uuid': uuid}, tag='potential', project=['uuid', 'attributes'])
    query.append(EvaluateCalculation, with_incoming='potential', tag='evaluation', project='uuid')
    query.append(DatasetData, with_outgoing='evaluation', project=['uuid', 'attributes'])
    query.append(orm.Dict, with_incoming='evaluation', edge_filters={'label': 'metrics'}, project='attributes')
    answer = query.first()
    dataset = orm.load_node(answer[3])
    parts = [[frame.energy, frame.forces.tolist()] for frame in dataset]
    sources = sorted(orm.load_node(answer[0]).file_names())
    return json.dumps([answer, parts, sources], sort_keys=True)
"""

IMPORT = """
import json, sys
from aiida import load_profile
from aiida.manage.configuration import create_profile, get_config
from aiida.tools.archive import import_archive

config = get_config(create=True)
create_profile(
    config, name='other', email='a@b', storage_backend=sys.argv[3], storage_config=json.loads(sys.argv[4])
)
load_profile('other')
import_archive(sys.argv[1])
print('ANSWER', ask(sys.argv[2]))
"""


@pytest.fixture
def potential(python_code, make_dataset):
    """Return a potential with an evaluation, both with their whole history."""
    parts = split_dataset(make_dataset(12).store(), orm.Dict({'training': 9, 'test': 3}), orm.Str('random'), orm.Int(0))
    builder = TrainCalculation.get_builder()
    builder.code, builder.training, builder.architecture = python_code, parts['training'], 'reference'
    potential = run_get_node(builder)[0]['potential']
    builder = EvaluateCalculation.get_builder()
    builder.code, builder.potential, builder.dataset = python_code, potential, parts['test']
    assert run_get_node(builder)[1].is_finished_ok
    return potential


@pytest.mark.parametrize('storage', ['core.sqlite_dos', 'core.psql_dos'])
def test_an_archive_gives_the_same_answers_in_an_empty_profile(potential, storage, request, tmp_path):
    group = orm.Group(label=f'archive-{potential.pk}').store()
    group.add_nodes(potential)
    evaluations = [link.node for link in potential.base.links.get_outgoing()]
    archive = tmp_path / 'potential.aiida'
    create_archive([group, *evaluations], filename=archive, return_backward=True, call_calc_backward=True)
    here: dict = {}
    exec(QUESTION, here)
    environment = {**os.environ, 'AIIDA_PATH': str(tmp_path)}
    config = {}
    if storage == 'core.psql_dos':
        config = {**request.getfixturevalue('postgres')(), 'repository_uri': f'file://{tmp_path}/repository'}
    script = ['-W', 'ignore', '-c', QUESTION + IMPORT]
    command = [sys.executable, *script, str(archive), potential.uuid, storage, json.dumps(config)]
    there = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert there.returncode == 0, there.stderr
    answer = next(line for line in there.stdout.splitlines() if line.startswith('ANSWER')).removeprefix('ANSWER ')
    assert json.loads(answer) == json.loads(here['ask'](potential.uuid))
    assert isinstance(orm.load_node(potential.uuid), PotentialData)
