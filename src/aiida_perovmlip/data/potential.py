"""A potential: the files of one trained potential with what is known of it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from aiida import orm
from aiida.common.exceptions import StoringNotAllowed
from aiida.orm.nodes.caching import NodeCaching
from aiida.orm.pydantic import OrmMetadataField

from aiida_perovmlip.compute.frame import FrameError, atomic_number
from aiida_perovmlip.compute.level import Level


class PotentialCaching(NodeCaching):
    """Two potentials are the same where their architecture, their files and their levels of theory are."""

    def get_objects_to_hash(self) -> dict[str, Any]:
        """Return what makes the potential what it is."""
        known = self._node.base.attributes
        keys = ('architecture', 'content_hash', 'heads', 'fingerprints')
        return {'class': 'perovmlip.potential', **{key: known.get(key, None) for key in keys}}


class PotentialData(orm.Data):
    """The files of one potential, its architecture, elements, cutoff, heads, levels of theory and precision.

    The files are never opened by this class: torch files are pickles, which can run foreign code when they are read.
    """

    _CLS_NODE_CACHING = PotentialCaching

    class AttributesModel(orm.Data.AttributesModel):
        """What one can ask of a potential without opening it."""

        architecture: str = OrmMetadataField('', description='Name of the architecture')
        elements: list[Any] = OrmMetadataField(default_factory=list, description='Chemical symbols that it knows')
        cutoff: float = OrmMetadataField(0.0, description='Interaction cutoff in Å')
        heads: list[Any] = OrmMetadataField(default_factory=list, description='Names of the levels that it predicts')
        levels: dict[str, Any] = OrmMetadataField(default_factory=dict, description='Level of theory of each head')
        fingerprints: list[Any] = OrmMetadataField(default_factory=list, description='Fingerprints of the levels')
        dtype: str = OrmMetadataField('', description='Precision of the parameters')
        n_parameters: int = OrmMetadataField(0, description='Number of fitted parameters')
        content_hash: str = OrmMetadataField('', description='Hash of all files')

    def __init__(
        self,
        folder: str | Path | None = None,
        *,
        architecture: str = '',
        elements: Sequence[str] = (),
        cutoff: float = 0.0,
        heads: Sequence[str] = ('default',),
        levels: Mapping[str, Level] | None = None,
        dtype: str = '',
        n_parameters: int = 0,
        **kwargs: Any,
    ) -> None:
        """Take over all files of a folder.

        :param levels: level of theory of each head; empty where it is not known.
        """
        super().__init__(**kwargs)
        if folder is None:
            return
        hashes = {}
        root = Path(folder)
        for path in sorted(entry for entry in root.rglob('*') if entry.is_file()):
            name = path.relative_to(root).as_posix()
            with path.open('rb') as handle:
                hashes[name] = hashlib.file_digest(handle, 'sha256').hexdigest()
            self.base.repository.put_object_from_file(str(path), name)
        levels = dict(levels or {})
        self.base.attributes.set_many(
            {
                'architecture': architecture,
                'elements': sorted(elements),
                'cutoff': float(cutoff),
                'heads': list(heads),
                'levels': {head: level.to_dict() for head, level in sorted(levels.items())},
                'fingerprints': sorted({level.fingerprint for level in levels.values()}),
                'dtype': dtype,
                'n_parameters': int(n_parameters),
                'content_hash': _hash_of(hashes),
            }
        )

    def _validate(self) -> bool:
        """Refuse to store a potential without files, architecture or elements."""
        super()._validate()
        problems = []
        if not self.architecture:
            problems.append('`architecture` is empty')
        if not self.elements:
            problems.append('`elements` is empty')
        if not self.cutoff > 0:
            problems.append(f'`cutoff` is {self.cutoff} Å')
        if set(self.levels) - set(self.heads):
            problems.append(f'there are levels for heads that it has not: {sorted(set(self.levels) - set(self.heads))}')
        try:
            [atomic_number(symbol) for symbol in self.elements]
        except FrameError as error:
            problems.append(str(error))
        names = self.file_names()
        if not names:
            problems.append('it has no files')
        elif self._hash_files(names) != self.content_hash:
            problems.append('its files are not those of its `content_hash`')
        if problems:
            raise StoringNotAllowed(f'This is not a complete potential: {"; ".join(problems)}.')
        return True

    def _hash_files(self, names: Sequence[str]) -> str:
        hashes = {}
        for name in names:
            with self.base.repository.open(name, 'rb') as handle:
                hashes[name] = hashlib.file_digest(handle, 'sha256').hexdigest()
        return _hash_of(hashes)

    def file_names(self) -> list[str]:
        """Return the names of all files in alphabetical order."""
        found = []
        for root, _, files in self.base.repository.walk():
            found += [(root / name).as_posix() for name in files]
        return sorted(found)

    @property
    def architecture(self) -> str:
        """Name of the architecture."""
        return str(self.base.attributes.get('architecture', ''))

    @property
    def elements(self) -> list[str]:
        """Chemical symbols that it knows, in alphabetical order."""
        return list(self.base.attributes.get('elements', []))

    @property
    def cutoff(self) -> float:
        """Interaction cutoff in Å."""
        return float(self.base.attributes.get('cutoff', 0.0))

    @property
    def heads(self) -> list[str]:
        """Names of the levels of theory that it predicts."""
        return list(self.base.attributes.get('heads', []))

    @property
    def levels(self) -> dict[str, Level]:
        """Level of theory of each head, as far as it is known."""
        return {head: Level.from_dict(content) for head, content in self.base.attributes.get('levels', {}).items()}

    @property
    def content_hash(self) -> str:
        """Hash of all files: equal for equal potentials in any profile."""
        return str(self.base.attributes.get('content_hash', ''))

    def export(self, folder: str | Path) -> Path:
        """Write all files into a folder, which is made where it is absent."""
        folder = Path(folder).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        self.base.repository.copy_tree(folder)
        return folder

    def calculator(self, device: str = 'cpu', head: str | None = None, trust: bool = False) -> Any:
        """Return an ASE calculator, where the package of the architecture is installed beside AiiDA.

        :param trust: open the files although reading them can run foreign code (torch files are pickles).
        """
        from aiida_perovmlip.compute import registry
        from aiida_perovmlip.compute.plugin import versions_of

        architecture = registry.load('architectures', self.architecture)()
        missing = [name for name, version in versions_of(architecture.packages()).items() if version == 'missing']
        if missing:
            raise ModuleNotFoundError(
                f'A calculator of this potential needs {", ".join(missing)}, which is not installed beside AiiDA. '
                f'Run it in a job instead, or export() the files and open them with {self.architecture} itself.'
            )
        if architecture.opens_pickles and not trust:
            raise PermissionError(
                'The files of this potential are pickles, which can run foreign code when they are opened. '
                'Where you know whom they are from, pass trust=True.'
            )
        return architecture.calculator(self.export(mkdtemp(prefix='potential-')), device, head)


def _hash_of(hashes: Mapping[str, str]) -> str:
    """Return one hash of the hashes of all files."""
    text = io.StringIO()
    for name, digest in sorted(hashes.items()):
        text.write(f'{digest}  {name}\n')
    return hashlib.sha256(text.getvalue().encode()).hexdigest()
