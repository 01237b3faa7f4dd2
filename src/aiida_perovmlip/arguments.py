"""Values from the words of a command line: pairs, settings, parts of a dataset, levels of theory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

REST = 'rest'
"""What a part of a dataset is called that has whatever the others leave."""


def read_pairs(words: Sequence[str]) -> dict[str, str]:
    """Return the values of `key=value` words by their keys; a key that comes twice is refused."""
    found: dict[str, str] = {}
    for word in words:
        key, sign, value = word.partition('=')
        if not (key and sign and value):
            raise ValueError(f'`{word}` is not `key=value`, such as `functional=PBE`.')
        if key in found:
            raise ValueError(f'`{key}` is said twice: {found[key]} and {value}.')
        found[key] = value
    return found


def read_settings(words: Sequence[str]) -> dict[str, Any]:
    """Return settings from `key=value` words; a value is read as JSON where it is such, and else as text.

    `rate=0.01` is a number, `zbl=null` is None, `l_max=[4,2,1]` a list, and `trainer=gpumd` text.
    """
    return {key: _value(text) for key, text in read_pairs(words).items()}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return {'True': True, 'False': False, 'None': None}.get(text, text)


def read_parts(words: Sequence[str]) -> dict[str, float | int | None]:
    """Return the parts of a dataset by name: fractions, numbers of frames, or None for what the others leave."""
    return {name: _part(name, text) for name, text in read_pairs(words).items()}


def _part(name: str, text: str) -> float | int | None:
    if text == REST:
        return None
    try:
        return int(text) if text.isdecimal() else float(text)
    except ValueError:
        raise ValueError(
            f'the part `{name}` is `{text}`, which is no fraction (0.8), no number of frames (200) and not `{REST}`.'
        ) from None


def read_level(words: Sequence[str]) -> dict[str, Any]:
    """Return a level of theory from `key=value` words, or from the one name of a JSON file.

    A file holds one level, or one for each head.
    """
    from aiida_perovmlip.compute.level import Level

    content: dict[str, Any] = dict(read_pairs(words)) if len(words) != 1 or '=' in words[0] else read_json(words[0])
    for level in [content] if 'labeller' in content or len(words) > 1 else content.values():
        if not isinstance(level, dict):
            raise ValueError('a level of theory needs a `labeller`, such as `--level labeller=vasp`.')
        Level.from_dict(level)
    return content


def read_json(name: str) -> dict[str, Any]:
    """Return the object that a JSON file holds."""
    file = Path(name)
    if not file.is_file():
        raise ValueError(f'`{name}` is neither `key=value` nor a JSON file.')
    try:
        content = json.loads(file.read_text(encoding='utf-8'))
    except ValueError as error:
        raise ValueError(f'{file} is no JSON: {error}.') from error
    if not isinstance(content, dict):
        raise ValueError(f'{file} holds no JSON object, which is written {{"key": "value"}}.')
    return content
