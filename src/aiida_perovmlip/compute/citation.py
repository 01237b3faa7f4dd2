"""A published work that whoever uses a program has to cite."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Citation:
    """A work as a list of references names it.

    :param key: name of the entry in a BibTeX file.
    :param authors: family name and given names of each, such as `Batatia, Ilyes`; of many, the first and `others`.
    :param place: journal with volume and page, proceedings, or number of a preprint.
    """

    key: str
    authors: tuple[str, ...]
    title: str
    place: str
    year: int
    doi: str = ''

    @property
    def short(self) -> str:
        """The work as a sentence names it."""
        names = [author.partition(',')[0] for author in self.authors]
        if len(names) > 2 or 'others' in names:
            return f'{names[0]} et al. ({self.year})'
        return f'{" and ".join(names)} ({self.year})'

    def bibtex(self) -> str:
        """Return the entry of a BibTeX file."""
        fields = {
            'author': ' and '.join(self.authors),
            'title': f'{{{self.title}}}',
            'journal': self.place,
            'year': str(self.year),
            'doi': self.doi,
        }
        lines = [f'  {name} = {{{value}}},' for name, value in fields.items() if value]
        return '\n'.join([f'@article{{{self.key},', *lines, '}', ''])
