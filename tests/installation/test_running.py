from __future__ import annotations

import io
import sys

from aiida_perovmlip.installation import running
from aiida_perovmlip.installation.running import Progress, run_logged


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_one_line_that_counts():
    stream = Terminal()
    progress = Progress('work', stream)
    progress.show()
    progress.begin -= 5
    progress.show()
    progress.finish()
    assert stream.getvalue() == '\rwork … 0 s\rwork … 5 s\rwork … 5 s, done\n'


def test_a_log_sees_a_line_every_ten_seconds(monkeypatch):
    stream = io.StringIO()
    progress = Progress('work', stream)
    progress.show()
    progress.show()
    monkeypatch.setattr(running, 'SECONDS_BETWEEN_LINES', 0.0)
    progress.show()
    assert stream.getvalue() == 'work … 0 s\nwork … 0 s\n'


def test_what_a_command_says_is_in_the_log_and_its_status_is_returned(tmp_path):
    log = tmp_path / 'log'
    code = 'import sys; print("out", flush=True); print("err", file=sys.stderr); sys.exit(3)'
    assert run_logged([sys.executable, '-c', code], log, 'python') == 3
    assert run_logged([sys.executable, '-c', 'pass'], log, 'python') == 0
    lines = log.read_text().splitlines()
    assert lines[1:3] == ['out', 'err']
    assert [line[:2] for line in lines].count('$ ') == 2
