"""What was done, in sentences and with the works to cite, as the provenance graph tells it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from aiida_perovmlip.compute.citation import Citation
from aiida_perovmlip.report.citations import AIIDA, BAND, citations_of_level
from aiida_perovmlip.report.collect import inputs_of
from aiida_perovmlip.report.page import Fact, Facts, Section, Text
from aiida_perovmlip.report.quantities import write_count, write_number, write_number_of

MOST_PROCESSES = 5000
"""Ancestors that are asked for what they did; of a longer history the newest."""

STARTS = {
    'scratch': 'from scratch',
    'naive': 'on from a parent, all of whose parameters were free,',
    'multihead': 'on from a parent, with replayed frames against forgetting,',
    'freeze': 'on from a parent, whose first layers were frozen,',
    'lora': 'on from a parent, by low-rank adapters,',
}

Told = tuple[str, tuple[Citation, ...]]
"""A sentence, and the works that belong to it."""


@dataclass(frozen=True)
class Methods:
    """What was done.

    :param sentences: in the order in which it was done.
    :param citations: the works that the sentences name, each once.
    """

    sentences: tuple[str, ...]
    citations: tuple[Citation, ...]

    @property
    def paragraph(self) -> str:
        """All sentences."""
        return ' '.join(self.sentences)

    def bibtex(self) -> str:
        """Return the content of a BibTeX file."""
        return '\n'.join(citation.bibtex() for citation in self.citations)


def methods_section(methods: Methods) -> Section:
    """Return the paragraph with its references."""
    references = Facts(
        tuple(
            Fact(
                citation.short,
                f'{citation.title}. {citation.place} ({citation.year}).',
                f'doi:{citation.doi}' if citation.doi else '',
                is_wide=True,
            )
            for citation in methods.citations
        )
    )
    about = Text(
        'Written from the provenance graph. Read it before you print it: it knows what ran, and not why.', 'muted'
    )
    return Section('methods', 'Methods', (about, Text(methods.paragraph), references))


def methods_of(nodes: Iterable[Any]) -> Methods:
    """Return what was done to get to these nodes, a potential, a dataset or a chain."""
    processes = _history(nodes)
    told = [each for tell in TELLERS for each in tell(processes)]
    told.append(_workflow(processes))
    citations: dict[Citation, None] = {}
    for _, works in told:
        citations |= dict.fromkeys(works)
    return Methods(tuple(sentence for sentence, _ in told), tuple(citations))


def _history(nodes: Iterable[Any]) -> list[Any]:
    """Return the calculations that led to nodes, and those that chains among these called, oldest first."""
    from aiida import orm

    found: dict[int, Any] = {}
    for node in nodes:
        if isinstance(node, orm.ProcessNode):
            done = [each for each in (node, *node.called_descendants) if isinstance(each, orm.CalculationNode)]
            found |= {each.pk: each for each in done}
        ends = [node.pk, *(each.pk for each in _results(node))]  # the closure of the graph knows calculations alone
        query = orm.QueryBuilder().append(orm.Node, filters={'id': {'in': ends}}, tag='node')
        query.append(orm.CalculationNode, with_descendants='node')
        query.order_by({orm.CalculationNode: {'id': 'desc'}}).limit(MOST_PROCESSES).distinct()
        found |= {each.pk: each for each in query.all(flat=True)}
    return [found[pk] for pk in sorted(found)]


def _results(node: Any) -> list[Any]:
    """Return what a chain returned; nothing of anything else."""
    from aiida.common.links import LinkType

    return [link.node for link in node.base.links.get_outgoing(link_type=LinkType.RETURN).all()]


def _of(processes: Iterable[Any], *names: str) -> list[Any]:
    """Return the processes that came to their end, whose entry point begins with one of these names."""
    return [
        each
        for each in processes
        if each.is_finished_ok and (each.process_type or '').rpartition(':')[2].startswith(names)
    ]


def _citations(group: Any, name: str) -> tuple[Citation, ...]:
    """Return the works that a plug-in names; none where it is not installed here."""
    from aiida_perovmlip.compute import registry

    try:
        return tuple(registry.load(group, name).citations)
    except (registry.UnknownPlugin, ImportError, AttributeError):
        return ()


def _labels(processes: list[Any]) -> Iterator[Told]:
    """Tell each level of theory that a dataset in the history has."""
    from aiida_perovmlip.data.dataset import DatasetData

    frames: Counter[str] = Counter()
    levels: dict[str, Mapping[str, Any]] = {}
    seen: set[int] = set()
    for process in _of(processes, 'perovmlip.train', 'perovmlip.evaluate', 'perovmlip.label'):
        links = {**inputs_of(process), **{name: process.outputs[name] for name in process.outputs}}
        for node in links.values():
            if isinstance(node, DatasetData) and node.pk not in seen:
                seen.add(node.pk)
                for level in (node.base.attributes.get('levels', {}) or {}).values():
                    mark = str(level.get('fingerprint', ''))
                    levels[mark] = level
                    frames[mark] += int(node.base.attributes.get('n_frames', 0))
    for level in levels.values():
        labeller, functional = str(level.get('labeller', '')), str(level.get('functional', ''))
        if labeller == 'potential':  # what potentials predict is no reference
            continue
        works = (*_citations('labellers', labeller), *citations_of_level(functional, str(level.get('dispersion', ''))))
        details = [str(level[key]) for key in ('dispersion', 'basis', 'cutoff', 'kpoints') if level.get(key)]
        about = f' ({", ".join(details)})' if details else ''
        yield f'Reference energies and forces are those of {functional or labeller}{about}, computed with {labeller}' \
              f'{_named(works)}.', works  # fmt: skip


def _named(works: Iterable[Citation]) -> str:
    """Return works as they stand in a sentence, in brackets."""
    names = '; '.join(work.short for work in works)
    return f' [{names}]' if names else ''


def _trainings(processes: list[Any]) -> Iterator[Told]:
    for process in _of(processes, 'perovmlip.train'):
        inputs = inputs_of(process)
        if 'potential' not in process.outputs:
            continue
        facts = process.outputs['potential'].base.attributes
        name = str(facts.get('architecture', ''))
        strategy = str(inputs['strategy'].value) if 'strategy' in inputs else 'scratch'
        works = _citations('architectures', name)
        parts = [
            f'A {name} potential{_named(works)} with a cutoff of {write_number(facts.get("cutoff", None))} Å and '
            f'{write_count(facts.get("n_parameters", None))} parameters was trained {STARTS.get(strategy, strategy)} '
            f'on {_frames(inputs.get("training"))}'
        ]
        if 'validation' in inputs:
            parts.append(f'its state was chosen by {_frames(inputs["validation"])}')
        if 'seed' in inputs:
            parts.append(f'seed {inputs["seed"].value}')
        yield f'{"; ".join(parts)}.', works


def _frames(dataset: Any) -> str:
    if dataset is None:
        return 'no frames'
    return write_number_of(dataset.base.attributes.get('n_frames', 0), 'frame')


def _evaluations(processes: list[Any]) -> Iterator[Told]:
    sets = {
        inputs['dataset'].pk: inputs['dataset']
        for process in _of(processes, 'perovmlip.evaluate')
        if 'dataset' in (inputs := inputs_of(process))
    }
    if sets:
        yield f'Errors were measured on {" and on ".join(_frames(each) for each in sets.values())}.', ()


def _bands(processes: list[Any]) -> Iterator[Told]:
    from aiida_perovmlip.compute.band import BandSettings
    from aiida_perovmlip.compute.settings import read_settings

    ways = {}
    for process in _of(processes, 'perovmlip.neb'):
        inputs = inputs_of(process)
        settings = read_settings(BandSettings, inputs['settings'].get_dict() if 'settings' in inputs else {})
        images = inputs['path'].base.attributes.get('n_frames', 0)
        ways[images, settings.fmax, settings.climb, settings.spring] = settings
    for images, fmax, climb, spring in ways:
        how = 'with a climbing image' if climb else 'without a climbing image'
        yield f'Minimum-energy paths of {images} images were relaxed as nudged elastic bands {how}{_named(BAND)} to ' \
              f'forces below {fmax:g} eV/Å, with springs of {spring:g} eV/Å².', BAND  # fmt: skip


def _dynamics(processes: list[Any]) -> Iterator[Told]:
    runs: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for process in _of(processes, 'perovmlip.md'):
        inputs = inputs_of(process)
        effective = process.outputs['results'].get_dict().get('effective') or {}
        asked = {**(inputs['settings'].get_dict() if 'settings' in inputs else {}), **effective}
        engine = str(inputs['engine'].value) if 'engine' in inputs else 'ase'
        names = ('ensemble', 'thermostat', 'barostat', 'timestep')
        runs.setdefault((engine, *(str(asked.get(name) or '') for name in names)), []).append(asked)
    for (engine, ensemble, thermostat, barostat, timestep), every in runs.items():
        works = _citations('engines', engine)
        kept = ', '.join(part for part in (thermostat, barostat) if part)
        temperatures = sorted({float(part) for each in every for part in _numbers(each.get('temperature'))})
        parts = [f'Molecular dynamics ran with {engine}{_named(works)} in the ensemble {ensemble}']
        parts += [kept] if kept else []
        parts += [f'a time step of {float(timestep):g} fs'] if timestep else []
        if temperatures:
            span = (
                f'{temperatures[0]:g} K' if len(temperatures) == 1 else f'{temperatures[0]:g} to {temperatures[-1]:g} K'
            )
            parts.append(f'at {span}')
        yield f'{", ".join(parts)} ({write_number_of(len(every), "job")}).', works


def _numbers(value: Any) -> tuple[float, ...]:
    if isinstance(value, (list, tuple)):
        return tuple(value)
    return () if value is None else (value,)


def _workflow(processes: list[Any]) -> Told:
    from aiida import __version__ as version
    from aiida import orm

    from aiida_perovmlip import __version__

    jobs = [each for each in processes if isinstance(each, orm.CalcJobNode)]
    failed = sum(1 for each in jobs if each.is_finished and not each.is_finished_ok)
    about = f'{write_number_of(len(jobs), "job")} and {write_number_of(len(processes) - len(jobs), "function")}'
    lost = f', of which {write_number_of(failed, "job")} failed and stayed on record' if failed else ''
    sentence = f'All of this is recorded by AiiDA {version}{_named(AIIDA)} and aiida-perovmlip {__version__}: ' \
               f'{about}{lost}.'  # fmt: skip
    return sentence, AIIDA


TELLERS: tuple[Callable[[list[Any]], Iterator[Told]], ...] = (_labels, _trainings, _evaluations, _bands, _dynamics)
"""What is told, in this order."""
