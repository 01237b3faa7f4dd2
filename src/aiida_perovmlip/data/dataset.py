"""A dataset: an ordered list of frames with their labels and the level of theory that these were made at."""

from __future__ import annotations

import copy
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from aiida import orm
from aiida.common.exceptions import StoringNotAllowed
from aiida.orm.nodes.caching import NodeCaching
from aiida.orm.pydantic import OrmMetadataField

from aiida_perovmlip.compute.frame import Array, Frame, FrameError
from aiida_perovmlip.compute.frames import MANIFEST, SELECTION, Frames, ShardEntry, selection_bytes
from aiida_perovmlip.compute.level import Level
from aiida_perovmlip.compute.shard import Shard, build_shards, carried_by, check, differing, digests
from aiida_perovmlip.compute.summary import Summary
from aiida_perovmlip.data.sharing import adopt

Levels = Level | Mapping[str, Any] | Mapping[str, Level] | None
Parts = Mapping[str, float | int | None]
Dialect = Literal['mace', 'gpumd', 'nequip', 'ase']


class LevelError(ValueError):
    """Labels of different or unknown levels of theory would be mixed."""


class DatasetCaching(NodeCaching):
    """Two datasets are the same where their frames, labels and levels are, however these are cut into shards."""

    def get_objects_to_hash(self) -> dict[str, Any]:
        """Return what makes the dataset what it is."""
        return {'class': 'perovmlip.dataset', 'content_hash': self._node.base.attributes.get('content_hash', None)}


class DatasetData(orm.Data):
    """An ordered list of frames in shards of flat columns; frames are read when they are asked for.

    Build one by `from_frames`, `from_ase`, `from_extxyz`, or from others by `select`, `split`, `append` and
    `concatenate`, none of which writes a second copy of a frame.
    """

    _CLS_NODE_CACHING = DatasetCaching

    class AttributesModel(orm.Data.AttributesModel):
        """What one can ask of a dataset without opening it."""

        n_frames: int = OrmMetadataField(0, description='Number of frames')
        n_atoms: int = OrmMetadataField(0, description='Number of atoms of all frames')
        n_stress: int = OrmMetadataField(0, description='Number of frames with a stress')
        elements: list[Any] = OrmMetadataField(
            default_factory=list, description='Chemical symbols in alphabetical order'
        )
        groups: dict[str, Any] = OrmMetadataField(default_factory=dict, description='Number of frames of each group')
        heads: dict[str, Any] = OrmMetadataField(default_factory=dict, description='Number of frames of each head')
        labels: list[Any] = OrmMetadataField(default_factory=list, description='Labels that the frames carry')
        levels: dict[str, Any] = OrmMetadataField(default_factory=dict, description='Level of theory of each head')
        fingerprints: list[Any] = OrmMetadataField(default_factory=list, description='Fingerprints of the levels')
        charges: list[Any] = OrmMetadataField(default_factory=list, description='Charges of the cells in e')
        spins: list[Any] = OrmMetadataField(default_factory=list, description='Spin multiplicities')
        energy_per_atom_range: list[Any] = OrmMetadataField(
            default_factory=list, description='Lowest and highest, eV/atom'
        )
        force_range: list[Any] = OrmMetadataField(default_factory=list, description='Smallest and largest force, eV/Å')
        content_hash: str = OrmMetadataField('', description='Hash of frames, labels and levels')

    # ------------------------------------------------------------------ building

    @classmethod
    def from_frames(cls, frames: Iterable[Frame], level: Levels = None) -> DatasetData:
        """Return an unstored dataset of these frames.

        :param level: level of theory of the labels, or one for each head; required where the frames carry labels.
        """
        return cls.from_shards(build_shards(frames), level)

    @classmethod
    def from_shards(cls, shards: Iterable[Shard], level: Levels = None) -> DatasetData:
        """Return an unstored dataset of these shards, of which one is in memory at a time."""
        node = cls()
        entries: list[ShardEntry] = []
        summary, hasher, carried = Summary(), ContentHash(), frozenset[str]()
        for shard in shards:
            if entries and carried_by(shard) != carried:
                raise FrameError(
                    differing(carried, carried_by(shard), f'the frames from {len(hasher)} on', 'those before')
                )
            carried = carried_by(shard)
            entry = node._put_shard(shard)
            entries.append(entry)
            summary += Summary.of(shard)
            hasher.update(shard)
        if not entries:
            raise FrameError('there are no frames.')
        node._seal(Frames(entries, node._open), summary, hasher, _levels_of(level, summary))
        return node

    @classmethod
    def from_ase(cls, atoms: Iterable[Any], level: Levels = None, **fields: Any) -> DatasetData:
        """Return an unstored dataset of ASE atoms; labels come from attached calculators.

        :param fields: fields of `Frame` that are the same for all, such as `group='cubic'`.
        """
        return cls.from_frames(_frames_of(atoms, fields), level)

    @classmethod
    def from_extxyz(cls, path: str | Path, level: Levels = None, **labels: str) -> DatasetData:
        """Return an unstored dataset of an extended XYZ file (`.gz` too).

        :param labels: names of the labels in the file where they are unusual: `energy='dft_energy'`.
        """
        from aiida_perovmlip.compute.extxyz import Labels, open_text, read_extxyz

        path = Path(path)
        with open_text(path) as handle:
            return cls.from_frames(read_extxyz(handle, path.name, Labels(**labels) if labels else None), level)

    def _put_shard(self, shard: Shard) -> ShardEntry:
        """Write a shard into the repository and return its entry."""
        buffer = io.BytesIO()
        shard.write(buffer)
        entry = ShardEntry(hashlib.sha256(buffer.getbuffer()).hexdigest(), len(shard), shard.n_atoms)
        buffer.seek(0)
        self.base.repository.put_object_from_filelike(buffer, entry.path)
        return entry

    def _adopt(self, frames: Frames) -> None:
        """Take over the shards of other frames; those that the object store has are named and not read."""
        adopt(self, {entry.path: entry.sha256 for entry in frames.shards}, frames.opener)

    def _seal(self, frames: Frames, summary: Summary, hasher: ContentHash, levels: dict[str, Level]) -> None:
        """Write the list of shards and the attributes; after this the node is complete."""
        self.base.repository.put_object_from_filelike(io.BytesIO(frames.manifest().encode()), MANIFEST)
        if frames.selection is not None:
            self.base.repository.put_object_from_filelike(io.BytesIO(selection_bytes(frames.selection)), SELECTION)
        self.base.attributes.set_many(_attributes(summary, hasher, levels))
        self._sealed = copy.deepcopy(self.base.attributes.all)

    def _open(self, path: str) -> Any:
        return self.base.repository.open(path, 'rb')

    def _validate(self) -> bool:
        """Refuse to store what was not built by this class and is not what it says it is."""
        super()._validate()
        if getattr(self, '_sealed', None) == self.base.attributes.all:
            return True
        try:
            self._verify()
        except (FileNotFoundError, KeyError, TypeError, ValueError) as error:
            raise StoringNotAllowed(f'This is not a complete dataset: {error}') from error
        return True

    def _verify(self) -> None:
        """Read everything and compare it with the attributes."""
        summary, hasher = Summary(), ContentHash()
        for entry in Frames.open(self._open).shards:
            with self._open(entry.path) as handle:
                if hashlib.sha256(handle.read()).hexdigest() != entry.sha256:
                    raise FrameError(f'the content of {entry.path} is not what its name says.')
        for shard in Frames.open(self._open).chunks():
            check(shard, summary.n_frames)
            if (digests(shard) != shard.columns['digest']).any():
                raise FrameError('a frame is not what its digest says.')
            summary += Summary.of(shard)
            hasher.update(shard)
        expected = _attributes(summary, hasher, self.levels)
        wrong = sorted(key for key, value in expected.items() if self.base.attributes.get(key, None) != value)
        if wrong:
            raise FrameError(f'the attributes {", ".join(wrong)} do not describe the frames.')

    # ------------------------------------------------------------------ reading

    @cached_property
    def frames(self) -> Frames:
        """The frames, opened lazily from the repository."""
        return Frames.open(self._open)

    def __len__(self) -> int:
        return int(self.base.attributes.get('n_frames', 0))

    def __iter__(self) -> Iterator[Frame]:
        return iter(self.frames)

    def __getitem__(self, index: int) -> Frame:
        return self.frames[index]

    def iter_atoms(self) -> Iterator[Any]:
        """Yield ASE atoms one by one; labels sit on an attached calculator."""
        return (frame.to_atoms() for frame in self.frames)

    @property
    def content_hash(self) -> str:
        """Hash of frames, labels and levels: equal for equal datasets in any profile."""
        return str(self.base.attributes.get('content_hash', ''))

    @property
    def labels(self) -> list[str]:
        """Labels that all frames carry (stress where the frame is periodic)."""
        return list(self.base.attributes.get('labels', []))

    @property
    def elements(self) -> list[str]:
        """Chemical symbols in alphabetical order."""
        return list(self.base.attributes.get('elements', []))

    @property
    def levels(self) -> dict[str, Level]:
        """Level of theory of each head; empty for unlabelled frames."""
        return {head: Level.from_dict(content) for head, content in self.base.attributes.get('levels', {}).items()}

    @property
    def level(self) -> Level | None:
        """The level of theory where there is just one; None for unlabelled frames."""
        levels = list(self.levels.values())
        if len(levels) > 1:
            raise LevelError(
                f'this dataset has {len(levels)} levels of theory: {", ".join(self.levels)}; see `levels`.'
            )
        return levels[0] if levels else None

    def to_extxyz(self, path: str | Path, dialect: Dialect = 'mace') -> Path:
        """Write all frames as extended XYZ in the dialect of a trainer, one frame in memory at a time."""
        from aiida_perovmlip.compute.extxyz import write_extxyz

        path = Path(path)
        with path.open('w', encoding='utf-8') as handle:
            write_extxyz(self.frames, handle, dialect)
        return path

    # ------------------------------------------------------------------ from one to another

    def select(self, indices: Any) -> DatasetData:
        """Return an unstored dataset of the frames at these positions (or where a mask is true), in this order."""
        wanted = np.arange(len(self))[indices] if isinstance(indices, slice) else np.asarray(indices)
        if not wanted.size:
            raise FrameError('the selection is empty.')
        if wanted.ndim != 1 or wanted.dtype.kind not in 'iub':
            raise IndexError(f'frames are selected by a list of positions or a mask, not by {indices!r}.')
        if wanted.dtype == np.bool_:
            if wanted.shape != (len(self),):
                raise IndexError(f'the mask has shape {wanted.shape}, but there are {len(self)} frames.')
            return self.select(np.flatnonzero(wanted))
        return self._derive(self.frames.take(wanted))

    def _derive(self, frames: Frames) -> DatasetData:
        """Return an unstored dataset of frames of this one."""
        node = DatasetData()
        node._adopt(frames)
        summary, hasher = Summary(), ContentHash()
        for shard in frames.chunks():
            summary += Summary.of(shard)
            hasher.update(shard)
        levels = {head: level for head, level in self.levels.items() if head in summary.heads}
        node._seal(frames, summary, hasher, levels)
        return node

    def select_head(self, head: str) -> DatasetData:
        """Return an unstored dataset of the frames of one head."""
        if head not in self.base.attributes.get('heads', {}):
            raise LevelError(
                f'there is no head `{head}`; there are {", ".join(self.base.attributes.get("heads", {}))}.'
            )
        return self.select(self.frames.column('head') == head)

    def split(
        self, parts: Parts, by: Literal['random', 'stratified', 'trajectory', 'group'] = 'random', seed: int = 0
    ) -> dict[str, DatasetData]:
        """Return unstored datasets that share the frames among them.

        :param parts: fraction (adding up to 1) or number of frames of each part, by name.
        :param by: `random`; `stratified`, equal fractions of every group in each part; `trajectory` or `group`, no
            trajectory or group on two sides.
        """
        return {name: self.select(indices) for name, indices in self.split_indices(parts, by, seed).items()}

    def split_indices(
        self, parts: Parts, by: Literal['random', 'stratified', 'trajectory', 'group'] = 'random', seed: int = 0
    ) -> dict[str, Array]:
        """Return the positions of the frames of each part."""
        from aiida_perovmlip.analysis.splits import split

        keys = None if by == 'random' else self.frames.column('trajectory' if by == 'trajectory' else 'group')
        how: Literal['random', 'stratified', 'grouped'] = by if by in ('random', 'stratified') else 'grouped'
        return split(len(self), parts, by=how, seed=seed, keys=keys)

    def append(self, frames: Iterable[Frame], level: Levels = None) -> DatasetData:
        """Return an unstored dataset of these frames behind those of this one, which are not read nor copied."""
        return DatasetData.concatenate(
            [self, DatasetData.from_frames(frames, level if level is not None else self.level)]
        )

    @classmethod
    def concatenate(cls, datasets: Sequence[DatasetData], heads: Sequence[str] | None = None) -> DatasetData:
        """Return an unstored dataset of the frames of all of these.

        :param heads: a head for each dataset, which allows different levels of theory: frames of one head have one
            level. Without it all must have the same level.
        """
        if not datasets:
            raise FrameError('there are no datasets to join.')
        _refuse_different(datasets)
        levels = _join_levels(datasets, heads)
        node = cls()
        entries: list[ShardEntry] = []
        selections: list[Array] = []
        start, whole = 0, True
        summary, hasher = Summary(), ContentHash()
        for position, dataset in enumerate(datasets):
            frames = dataset.frames
            head = heads[position] if heads else None
            node._adopt(frames)
            entries += [ShardEntry(e.sha256, e.n_frames, e.n_atoms, head or e.head) for e in frames.shards]
            size = sum(entry.n_frames for entry in frames.shards)
            whole &= frames.selection is None
            selections.append(start + (np.arange(size) if frames.selection is None else frames.selection))
            start += size
            summary += dataset._summary(head)
            hasher.update_from(frames, head)
        joined = Frames(entries, node._open, None if whole else np.concatenate(selections))
        node._seal(joined, summary, hasher, levels)
        return node

    def _summary(self, head: str | None = None) -> Summary:
        """Return the summary that the attributes hold."""
        known = self.base.attributes.all
        return Summary(
            n_frames=known['n_frames'],
            n_atoms=known['n_atoms'],
            n_stress=known['n_stress'],
            elements=frozenset(known['elements']),
            groups=known['groups'],
            heads={head: known['n_frames']} if head else known['heads'],
            labels=frozenset(known['labels']),
            charges=frozenset(known['charges']),
            spins=frozenset(known['spins']),
            energy_per_atom_range=_pair(known['energy_per_atom_range']),
            force_range=_pair(known['force_range']),
        )

    def without_duplicates(self, tolerance: float = 0.005) -> DatasetData:
        """Return an unstored dataset without frames that repeat an earlier one.

        :param tolerance: two frames of equal composition, charge, spin and head are one where the neighbour distances
            of their atoms differ by less than this in the root mean square, in Å.
        """
        return self.select(self.distinct(tolerance))

    def distinct(self, tolerance: float = 0.005) -> Array:
        """Return which frames repeat no earlier one, as a mask."""
        from tempfile import TemporaryDirectory

        from aiida_perovmlip.analysis.duplicates import DuplicateFinder

        with TemporaryDirectory() as scratch:
            finder = DuplicateFinder(tolerance, Path(scratch))
            for frame in self.frames:
                kind = (frame.charge, frame.spin, frame.head)
                finder.add(frame.numbers, frame.positions, frame.cell, frame.pbc, kind)
            return np.asarray(finder.keep())


class ContentHash:
    """A running hash of frames that does not depend on how these are cut into shards."""

    def __init__(self) -> None:
        self._digests = hashlib.sha256()
        self._heads = hashlib.sha256()
        self._names: set[str] = set()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def update(self, shard: Shard) -> None:
        """Add the frames of a shard."""
        self._digests.update(np.ascontiguousarray(shard.columns['digest']).tobytes())
        names = np.array([hashlib.blake2b(name.encode(), digest_size=8).digest() for name in shard.names['head']], 'S8')
        self._heads.update(names[shard.columns['head']].tobytes())
        self._names |= {shard.names['head'][code] for code in np.unique(shard.columns['head'])}
        self._count += len(shard)

    def update_from(self, frames: Frames, head: str | None = None) -> None:
        """Add frames, reading nothing but their digests and heads."""
        for shard in frames.chunks(('digest', 'head')):
            if head is not None:
                shard.rename('head', head)
            self.update(shard)

    def result(self, levels: Mapping[str, Level]) -> str:
        """Return the hash of the frames at these levels."""
        known = {head: level.fingerprint for head, level in levels.items()}
        heads = self._heads.hexdigest() if len(self._names) > 1 else ''
        return hashlib.sha256(
            json.dumps([self._digests.hexdigest(), heads, known], sort_keys=True).encode()
        ).hexdigest()


def _frames_of(atoms: Iterable[Any], fields: Mapping[str, Any]) -> Iterator[Frame]:
    """Yield the frames of ASE atoms; a bad one is named by its number."""
    for index, one in enumerate(atoms):
        try:
            yield Frame.from_atoms(one, **fields)
        except FrameError as error:
            raise FrameError(f'frame {index}: {error}') from error


def _refuse_different(datasets: Sequence[DatasetData]) -> None:
    """Refuse to join frames that do not carry the same."""
    for dataset in datasets[1:]:
        one, other = _carried_by(datasets[0]), _carried_by(dataset)
        if one != other:
            raise FrameError('the datasets do not carry the same: ' + differing(one, other, 'a later one', 'the first'))


def _carried_by(dataset: DatasetData) -> frozenset[str]:
    """Return what all frames of a dataset have; a stress may be there or not."""
    known = dataset.base.attributes.all
    names = {'charge': bool(known['charges']), 'spin': bool(known['spins'])}
    return frozenset(known['labels']) - {'stress'} | {name for name, there in names.items() if there}


def _attributes(summary: Summary, hasher: ContentHash, levels: Mapping[str, Level]) -> dict[str, Any]:
    """Return the attributes of a dataset."""
    return {
        'n_frames': summary.n_frames,
        'n_atoms': summary.n_atoms,
        'n_stress': summary.n_stress,
        'elements': sorted(summary.elements),
        'groups': dict(sorted(summary.groups.items())),
        'heads': dict(sorted(summary.heads.items())),
        'labels': sorted(summary.labels or ()),
        'levels': {head: level.to_dict() for head, level in sorted(levels.items())},
        'fingerprints': sorted({level.fingerprint for level in levels.values()}),
        'charges': sorted(summary.charges),
        'spins': sorted(summary.spins),
        'energy_per_atom_range': _rounded(summary.energy_per_atom_range),
        'force_range': _rounded(summary.force_range),
        'content_hash': hasher.result(levels),
    }


def _levels_of(level: Levels, summary: Summary) -> dict[str, Level]:
    """Return one level for each head; refuse labels without a level and heads without one."""
    if not summary.labels:
        return {}
    heads = sorted(summary.heads)
    if level is None:
        raise LevelError(
            f'the frames carry {", ".join(sorted(summary.labels))} but no level of theory; state it, for example '
            "level={'labeller': 'vasp', 'functional': 'PBE', 'cutoff': '520 eV', 'kpoints': '2x2x2'}."
        )
    if isinstance(level, Mapping) and set(level) == set(heads) and 'labeller' not in level:
        return {head: _level(level[head]) for head in heads}
    if len(heads) > 1:
        raise LevelError(f'the frames have the heads {", ".join(heads)}; give a level of theory for each of them.')
    return {heads[0]: _level(cast(Any, level))}


def _level(level: Level | Mapping[str, Any]) -> Level:
    return level if isinstance(level, Level) else Level.from_dict(level)


def _join_levels(datasets: Sequence[DatasetData], heads: Sequence[str] | None) -> dict[str, Level]:
    """Return the levels of joined datasets, or refuse to mix them."""
    if heads is not None and len(heads) != len(datasets):
        raise LevelError(f'there are {len(datasets)} datasets, but {len(heads)} heads.')
    if heads is not None and not all(isinstance(head, str) and head for head in heads):
        raise LevelError('a head is a name and cannot be empty.')
    levels: dict[str, Level] = {}
    for position, dataset in enumerate(datasets):
        own = dataset.levels if heads is None else ({heads[position]: dataset.level} if dataset.level else {})
        for head, level in own.items():
            if level is not None and levels.setdefault(head, level).fingerprint != level.fingerprint:
                known = levels[head]
                raise LevelError(
                    f'head `{head}` would mix two levels of theory: {known} ({known.fingerprint}) and {level} '
                    f'({level.fingerprint}). Pass heads=[…], one for each dataset, to keep them apart.'
                )
    return levels


def _rounded(span: tuple[float, float] | None) -> list[float]:
    """Return a range with fewer digits than AiiDA keeps, so that storing does not change it."""
    return [float(f'{value:.12g}') for value in span or ()]


def _pair(values: Sequence[float]) -> tuple[float, float] | None:
    return (values[0], values[1]) if values else None
