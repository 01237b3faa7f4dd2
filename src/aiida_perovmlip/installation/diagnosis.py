"""Why pip stopped: a name for the cause and a sentence of advice, from what pip wrote."""

from __future__ import annotations

import re
from enum import StrEnum


class Cause(StrEnum):
    """Why an environment could not be built."""

    DISK_FULL = 'disk_full'
    NO_VENV = 'no_venv'
    INTERRUPTED = 'interrupted'
    NO_COMPILER = 'no_compiler'
    BUILD_FAILED = 'build_failed'
    CONFLICT = 'conflict'
    OTHER_PYTHON = 'other_python'
    UNREACHABLE = 'unreachable'
    NO_MATCH = 'no_match'
    CUDA_BUILD = 'cuda_build'  # found before pip runs, and said by what finds it
    NOT_ALLOWED = 'not_allowed'
    UNKNOWN = 'unknown'


# The order matters: a warning about an index that did not answer is harmless where another one did, and pip says
# `No matching distribution` also where it could not ask anybody.
PATTERNS: tuple[tuple[Cause, str], ...] = (
    (Cause.DISK_FULL, r'\[Errno 28\]|No space left on device|Disk quota exceeded|\[Errno 122\]'),
    (Cause.NOT_ALLOWED, r'\[Errno (1|13|30)\]'),
    (Cause.NO_VENV, r'No module named \'?(venv|ensurepip|pip)\b|ensurepip is not\s+available'),
    (Cause.INTERRUPTED, r'Operation cancelled by user|KeyboardInterrupt'),
    (
        Cause.NO_COMPILER,
        r'No such file or directory: \'[^\']*(gcc|g\+\+|cc|c\+\+|clang)\''
        r'|command \'[^\']*(gcc|cc|clang)\' failed: No such file'
        r'|Python\.h: No such file|Unknown compiler\(s\)|No C(XX)? compiler|CMAKE_C(XX)?_COMPILER not set',
    ),
    (
        Cause.BUILD_FAILED,
        r'Failed building wheel|Failed to build(?!.*build dependencies)|metadata-generation-failed',
    ),
    (Cause.OTHER_PYTHON, r'requires a different Python'),
    (
        Cause.UNREACHABLE,
        r'connection broken by|NewConnectionError|ConnectTimeoutError|ReadTimeoutError|Max retries exceeded|ProxyError'
        r'|SSLError|Temporary failure in name resolution|Name or service not known|Could not fetch URL'
        # What builds our own package exists for every Python: where pip sees no version of it, it sees no index.
        r'|satisfies the requirement hatchling\S* \(from versions: none\)',
    ),
    (
        Cause.NO_MATCH,
        r'No matching distribution found|Could not find a version that satisfies'
        # A version that exists nowhere contradicts, for pip, the wish to have the package.
        r'|caused by:\n +The user requested (\S+)\n +The user requested \(constraint\) \1\S*\n\s*\n',
    ),
    (Cause.CONFLICT, r'ResolutionImpossible|has requirement .* but you have|requires .*, which is not installed'),
)

ADVICE: dict[Cause, str] = {
    Cause.DISK_FULL: (
        'the disk is full. Make room (an environment with torch takes 1.5 GB on CPU and several times that with CUDA), '
        'or name a larger disk with `--prefix` (`make … PREFIX=…`).'
    ),
    Cause.NO_VENV: (
        'this Python cannot make virtual environments. Install what it lacks (Debian and Ubuntu: `apt-get install '
        'python3-venv`), or name another Python (`make … PYTHON=python3.12`).'
    ),
    Cause.INTERRUPTED: 'it was interrupted. Run the same command again; what is half built is built anew.',
    Cause.NO_COMPILER: (
        'a package has to be compiled here, and there is no working C compiler. Install one with the headers of Python '
        '(Debian and Ubuntu: `apt-get install build-essential python3-dev`).'
    ),
    Cause.BUILD_FAILED: (
        'a package had to be built from its source, and that failed; the lines below name it. Often another '
        'Python has it ready made (`make … PYTHON=python3.12`).'
    ),
    Cause.CONFLICT: (
        'the required versions contradict each other, or one does not exist for this Python; the lines below name '
        'them. Another Python may help (`make … PYTHON=python3.12`); if not, please report this.'
    ),
    Cause.OTHER_PYTHON: 'a package does not exist for this Python. Name another one (`make … PYTHON=python3.12`).',
    Cause.UNREACHABLE: (
        'pip reached no package index. Check the network, or tell pip of a mirror or a proxy with its own settings '
        '(PIP_INDEX_URL, PIP_FIND_LINKS, PIP_PROXY, or `pip config`).'
    ),
    Cause.NO_MATCH: (
        'pip found no package of this name and version for this Python and this machine; the lines below name it. '
        'Name another Python (`make … PYTHON=python3.12`); where no version at all was found, check also that pip '
        'reaches its index.'
    ),
    Cause.NOT_ALLOWED: 'this folder cannot be written. Name another one with `--prefix` (`make … PREFIX=…`).',
    Cause.UNKNOWN: 'pip stopped for a reason that is in the lines below.',
}

SAYS_NOTHING = (
    r'\s*(note: |\[notice\]|\[end of output\]|╰─> See above'
    r'|To fix this you|[12]\. (loosen|remove)|ERROR: ResolutionImpossible)'
)
"""Lines of pip that help nobody."""


def diagnose(log: str) -> Cause:
    """Return why pip stopped."""
    for cause, pattern in PATTERNS:
        if re.search(pattern, log):
            return cause
    return Cause.UNKNOWN


def last_lines(log: str, count: int = 8) -> str:
    """Return the last lines that say something, indented."""
    lines = [line.rstrip() for line in log.splitlines() if line.strip() and not re.match(SAYS_NOTHING, line)]
    return '\n'.join(f'    {line[:200]}' for line in lines[-count:])
