"""A committee: potentials that differ by chance alone, so that their spread tells how little they know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida import orm
from aiida.common import AttributeDict
from aiida.common.links import LinkType
from aiida.engine import ExitCode, ProcessSpec, while_

from aiida_perovmlip.calculations.functions.dataset import split_dataset
from aiida_perovmlip.calculations.functions.training import draw_bootstrap, list_members
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.data.potential import PotentialData
from aiida_perovmlip.workflows.pool import PoolWorkChain
from aiida_perovmlip.workflows.train import PASSED_ON, TrainWorkChain, validate_training
from aiida_perovmlip.workflows.training import fill, given, how_it_ended

WAYS = {
    'seed': 'the same frames, another seed for each member',
    'bootstrap': 'training frames drawn with replacement for each member',
    'split': 'another random split of `training` into training and validation frames for each member',
}
"""How the members of a committee differ."""

FEWEST = 2
"""Members that make a committee: one potential has no spread."""

OF_A_TRAINING = (*PASSED_ON, 'settings', 'options', 'monitors', 'max_iterations')


class CommitteeWorkChain(PoolWorkChain):
    """Train several potentials that differ by seed or by frames, a few at a time.

    Members that fail are listed in `members` with the reason; the others are the committee.
    """

    @classmethod
    def define(cls, spec: ProcessSpec) -> None:
        """Define what goes in, what is done, and what comes out."""
        super().define(spec)
        to_node: dict[str, Any] = {'serializer': orm.to_aiida_type}
        spec.expose_inputs(TrainWorkChain, include=list(OF_A_TRAINING))
        spec.inputs['seed'].help = 'Seed of the first member; those of the others follow.'
        spec.input(
            'n_members', valid_type=orm.Int, default=lambda: orm.Int(4), help='Members that are asked for.', **to_node
        )
        ways = '; '.join(f'`{name}`, {what}' for name, what in WAYS.items())
        spec.input(
            'by', valid_type=orm.Str, default=lambda: orm.Str('seed'), help=f'How members differ: {ways}.', **to_node
        )
        spec.input(
            'validation_fraction',
            valid_type=orm.Float,
            default=lambda: orm.Float(0.1),
            help='Part of the frames that a random split keeps for validation.',
            **to_node,
        )
        spec.input(
            'max_concurrent',
            valid_type=orm.Int,
            default=lambda: orm.Int(4),
            help='Largest number of trainings at a time.',
            **to_node,
        )
        spec.input(
            'group',
            valid_type=orm.Str,
            required=False,
            help='Label of the group that will hold the potentials; derived from the chain if left out.',
            **to_node,
        )
        spec.inputs.validator = _validate
        spec.outline(
            cls.setup,
            while_(cls.is_without_frames)(cls.draw),
            while_(cls.has_work)(cls.take_stock, cls.launch),
            cls.collect,
        )
        spec.output_namespace(
            'potentials', valid_type=PotentialData, dynamic=True, help='The potential of each member that was made.'
        )
        spec.output(
            'members',
            valid_type=orm.Dict,
            help='`asked`, `made`, the `group`, and of each of the `members` its seed, state, training and reason.',
        )
        spec.exit_code(
            560,
            'ERROR_NO_COMMITTEE',
            message='{n_made} of {n_asked} members were made; a committee has at least two. {message}',
        )

    @classmethod
    def get_builder_from_protocol(
        cls,
        architecture: str,
        code: orm.AbstractCode,
        training: DatasetData,
        validation: DatasetData | None = None,
        *,
        n_members: int = 4,
        by: str = 'seed',
        max_concurrent: int = 4,
        group: str | None = None,
        validation_fraction: float = 0.1,
        **inputs: Any,
    ) -> Any:
        """Return a builder with the settings of a protocol.

        :param by: one of `WAYS`.
        :param inputs: `protocol`, `strategy`, `parent`, `settings` and whatever else `TrainWorkChain` takes.
        """
        one = TrainWorkChain.get_builder_from_protocol(architecture, code, training, validation, **inputs)
        known = {
            **given(one._inputs(prune=True), *OF_A_TRAINING),
            'n_members': n_members,
            'by': by,
            'max_concurrent': max_concurrent,
            'group': group,
            'validation_fraction': validation_fraction,
        }
        return fill(cls.get_builder(), known)

    # ------------------------------------------------------------------ the steps

    def setup(self) -> None:
        """Give each member its number and its seed."""
        first, self.ctx.members = self.inputs.seed.value, {}
        frames: dict[str, int] | None = {} if self.inputs.by.value == 'seed' else None
        for number in range(self.inputs.n_members.value):
            member = {'seed': first + number, 'state': 'waiting', 'pk': None, 'uuid': None, 'reason': None}
            self.ctx.members[f'member_{number + 1:02d}'] = {**member, 'number': number, 'frames': frames}
        self.report(f'{len(self.ctx.members)} members, {self.inputs.max_concurrent.value} at a time.')

    def is_without_frames(self) -> bool:
        """Whether the frames of a member are not drawn yet."""
        return any(member['frames'] is None for member in self.ctx.members.values())

    def draw(self) -> None:
        """Draw the frames of one member: each is a step, so that a daemon that is killed repeats one at most."""
        name, member = next((name, each) for name, each in self.ctx.members.items() if each['frames'] is None)
        try:
            member['frames'] = self._draw(name, member)
        except ValueError as error:
            member |= {'frames': {}, 'state': 'failed', 'reason': f'Its frames could not be drawn: {error}'}

    def has_work(self) -> bool:
        """Whether there is something to start or to wait for."""
        return any(member['state'] in ('waiting', 'running') for member in self.ctx.members.values())

    def take_stock(self) -> None:
        """Enter what has ended."""
        for name, member in self.ctx.members.items():
            if member['state'] != 'running':
                continue
            node = orm.load_node(member['pk'])
            if not node.is_terminated:
                continue
            member['state'] = 'trained' if node.is_finished_ok else 'failed'
            if not node.is_finished_ok:
                member['reason'] = how_it_ended(node)
                self.report(f'{name} gave no potential. {member["reason"]}')

    def launch(self) -> None:
        """Start members in the slots that are free, and wait for the first that ends."""
        for name, member in self.ctx.members.items():
            running = [each for each in self.ctx.members.values() if each['state'] == 'running']
            if len(running) >= self.inputs.max_concurrent.value:
                break
            if member['state'] == 'waiting':
                self._start(name, member)
        self.watch([member['pk'] for member in self.ctx.members.values() if member['state'] == 'running'])

    def collect(self) -> ExitCode | None:
        """Return the potentials of the members that were made, and put these into a group."""
        made = {
            name: orm.load_node(member['pk']).outputs
            for name, member in self.ctx.members.items()
            if member['state'] == 'trained'
        }
        for name, outputs in made.items():
            self.out(f'potentials.{name}', outputs.potential)
        potentials = {name: outputs.potential for name, outputs in made.items()}
        notes = _same(potentials)
        for note in notes:
            self.report(note)
        members = {name: _public(member, potentials.get(name)) for name, member in self.ctx.members.items()}
        group = self._group(list(potentials.values())) if potentials else None
        told = {
            'asked': len(members),
            'made': len(made),
            'by': self.inputs.by.value,
            'group': group.label if group else None,
            'members': members,
            'notes': notes,
        }
        self.out('members', list_members(orm.Dict(told), **{name: outputs.results for name, outputs in made.items()}))
        if len(made) >= FEWEST:
            return None
        first = next(f'{name}: {each["reason"]}' for name, each in members.items() if each['reason'])
        return self.exit_codes.ERROR_NO_COMMITTEE.format(n_made=len(made), n_asked=len(members), message=first)

    # ------------------------------------------------------------------ what the steps are made of

    def _draw(self, name: str, member: Mapping[str, Any]) -> dict[str, int]:
        """Return the PK of the datasets of a member that are its own; those that were drawn already are found."""
        label = f'frames_of_{name}'
        drawn = self._started(label)
        if drawn is None or not drawn.is_finished_ok:
            self._draw_anew(member, {'call_link_label': label})
            drawn = self._started(label)
        assert drawn is not None
        found = {each.link_label: each.node.pk for each in drawn.base.links.get_outgoing(link_type=LinkType.CREATE)}
        return {'training': found['result']} if 'result' in found else found

    def _draw_anew(self, member: Mapping[str, Any], metadata: dict[str, str]) -> None:
        """Draw the frames of a member, which depend on the seed of the committee and its number alone."""
        dataset, seed = self.inputs.training, self.inputs.seed
        if self.inputs.by.value == 'bootstrap':
            draw_bootstrap(dataset, seed, orm.Int(member['number']), metadata=metadata)
            return
        kept = self.inputs.validation_fraction.value
        parts = orm.Dict({'training': 1 - kept, 'validation': kept})
        split_dataset(dataset, parts, orm.Str('random'), orm.Int(member['seed']), metadata=metadata)

    def _start(self, name: str, member: dict[str, Any]) -> None:
        """Start the training of a member."""
        builder = fill(TrainWorkChain.get_builder(), given(self.inputs, *OF_A_TRAINING))
        fill(builder, {each: orm.load_node(pk) for each, pk in member['frames'].items()})
        builder.seed = orm.Int(member['seed'])
        try:
            node = self.start(name, builder)
        except ValueError as error:  # what AiiDA raises where inputs are refused
            member |= {'state': 'failed', 'reason': f'It could not be submitted: {" ".join(str(error).split())}'}
            self.report(f'{name} gave no potential. {member["reason"]}')
            return
        member |= {'state': 'running', 'pk': node.pk, 'uuid': node.uuid}

    def _group(self, potentials: list[PotentialData]) -> orm.Group:
        """Return the group of the committee with the potentials in it."""
        derived = f'committee-{self.inputs.architecture.value}-{self.node.uuid[:8]}'
        label = self.inputs.group.value if 'group' in self.inputs else derived
        group, is_new = orm.Group.collection.get_or_create(label)
        ours = {potential.uuid for potential in potentials}
        if not is_new and any(node.uuid not in ours for node in group.nodes):
            self.report(f'the group `{label}` has other nodes by now; the committee is in `{derived}`.')
            group, _ = orm.Group.collection.get_or_create(derived)
        group.add_nodes(potentials)
        return group


def _public(member: Mapping[str, Any], potential: PotentialData | None) -> dict[str, Any]:
    """Return what is told of a member."""
    told = {name: member[name] for name in ('seed', 'state', 'uuid', 'reason')}
    return {**told, 'potential': potential.uuid if potential is not None else None}


def _same(potentials: Mapping[str, PotentialData]) -> list[str]:
    """Return a sentence for members that are one and the same potential."""
    by_content: dict[str, list[str]] = {}
    for name, potential in potentials.items():
        by_content.setdefault(potential.content_hash, []).append(name)
    return [
        f'{", ".join(names)} are the same potential: their spread is no uncertainty. Where the architecture draws no '
        'random numbers, let the members differ by `bootstrap`.'
        for names in by_content.values()
        if len(names) > 1
    ]


def _validate(inputs: Mapping[str, Any], _: Any) -> str | None:
    """Refuse what no job could do."""
    if any(name not in inputs for name in ('by', 'training', 'n_members')):
        return None
    by = inputs['by'].value
    if by not in WAYS:
        return f'`by` is {by!r} but has to be one of {", ".join(WAYS)}.'
    if inputs['n_members'].value < FEWEST:
        return f'`n_members` is {inputs["n_members"].value} but has to be at least {FEWEST}.'
    if inputs['max_concurrent'].value < 1:
        return f'`max_concurrent` is {inputs["max_concurrent"].value} but has to be at least 1.'
    if by == 'split' and 'validation' in inputs:
        return 'a random split takes its validation frames from `training`: leave `validation` out.'
    if not 0 < inputs['validation_fraction'].value < 1:
        return f'`validation_fraction` is {inputs["validation_fraction"].value} but has to lie between 0 and 1.'
    return _taken(inputs) or validate_training(_example(inputs), None)


def _example(inputs: Mapping[str, Any]) -> AttributeDict:
    """Return the inputs of a member, as far as these are known before its frames are drawn."""
    own = {'validation': inputs['training']} if inputs['by'].value == 'split' else {}
    return AttributeDict({**given(inputs, *OF_A_TRAINING), **own})


def _taken(inputs: Mapping[str, Any]) -> str | None:
    """Return a sentence where there is a group of this label with other nodes in it."""
    label = inputs['group'].value if 'group' in inputs else None
    found = orm.QueryBuilder().append(orm.Group, filters={'label': label}).first() if label else None
    if found and found[0].count():
        return f'there is a group `{label}` already, with {found[0].count()} nodes; choose another label.'
    return None
