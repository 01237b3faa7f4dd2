"""The package in `tests/external`, importable with its entry points, as an installation would make it."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / 'external'


def install_external_package(site: Path) -> list[str]:
    """Write its entry points into a folder; return the folders that are on the path now, for other processes."""
    project = tomllib.loads((SOURCE / 'pyproject.toml').read_text())['project']
    info = site / f'{project["name"].replace("-", "_")}-{project["version"]}.dist-info'
    info.mkdir(parents=True)
    (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {project["name"]}\nVersion: {project["version"]}\n')
    groups = [
        f'[{group}]\n' + ''.join(f'{name} = {value}\n' for name, value in points.items())
        for group, points in project['entry-points'].items()
    ]
    (info / 'entry_points.txt').write_text('\n'.join(groups))
    folders = [str(SOURCE), str(site)]
    sys.path[:0] = folders
    return folders
