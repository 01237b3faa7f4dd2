"""The one parser of all compute jobs: it reads the response and makes nodes of what the job left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aiida.engine import ExitCode
from aiida.parsers import Parser

from aiida_perovmlip.compute.contract import LOG, RESPONSE, Response, Status

TAIL = 4096
"""How many bytes at the end of a file are looked at for the last words of a job."""


class ResponseParser(Parser):
    """Turn the response of a job into nodes and an exit code."""

    def parse(self, **kwargs: Any) -> ExitCode | None:
        """Read, attach, judge."""
        folder = Path(kwargs.get('retrieved_temporary_folder') or '/nonexistent')
        response, unreadable = self.read_response()
        problem = self.attach_outputs(response, folder)
        if unreadable:
            return self.exit_codes.ERROR_RESPONSE_UNREADABLE.format(message=unreadable)
        if response is None:
            return self.no_response()
        if response.status is not Status.OK:
            return self.failure(response)
        if problem:
            return self.exit_codes.ERROR_PRODUCT_UNREADABLE.format(message=problem)
        # An explicit success: a scheduler that killed the job in its last second does not take its results.
        return self.judge_metrics() or ExitCode(0)

    def read_response(self) -> tuple[Response | None, str | None]:
        """Return the response (None where there is none) and what is wrong with its file."""
        if RESPONSE not in self.retrieved.base.repository.list_object_names():
            return None, None
        try:
            return Response.load(self.retrieved.base.repository.get_object_content(RESPONSE)), None
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            return None, f'{type(error).__name__}: {error}'

    def attach_outputs(self, response: Response | None, folder: Path) -> str | None:
        """Attach all nodes that can be made; return what was wrong with the others."""
        try:
            for name, node in self.node.process_class.outputs_of(self.node, response, folder):
                node._validate()  # now, while there is an exit code for it, and not when the engine stores it
                self.out(name, node)
        except Exception as error:  # whatever a half-written product raises must not lose the rest
            self.logger.warning(f'The products of the job could not be read: {error}')
            return f'{type(error).__name__}: {error}'
        return None

    def no_response(self) -> ExitCode:
        """Return the exit code of a job that could not answer; the scheduler may know why."""
        if self.node.exit_status is not None:
            return ExitCode(self.node.exit_status, self.node.exit_message)
        return self.exit_codes.ERROR_NO_RESPONSE.format(message=self.last_words())

    def last_words(self) -> str:
        """Return the end of what the job printed."""
        names = self.retrieved.base.repository.list_object_names()
        for name in (LOG, '_scheduler-stderr.txt'):
            text = self._end_of(name) if name in names else ''
            if text:
                return f'The last line of {name}: {text.splitlines()[-1][:300]}'
        return 'It printed nothing; look at the executable of the code: `aiida-perovmlip doctor` checks it.'

    def _end_of(self, name: str) -> str:
        """Return the last part of a file, which may be large and hold any bytes."""
        end = b''
        with self.retrieved.base.repository.open(name, 'rb') as handle:
            while block := handle.read(1 << 16):
                end = (end + block)[-TAIL:]
        return end.decode(errors='replace').replace('\0', ' ').strip()

    def failure(self, response: Response) -> ExitCode:
        """Return the exit code of a failure that the job itself explained."""
        error = response.error or {}
        if 'traceback' in error:
            self.logger.error(error['traceback'])
        name = f'ERROR_{response.status.name}'
        return self.exit_codes[name].format(message=error.get('message', 'no reason was given.'))

    def judge_metrics(self) -> ExitCode | None:
        """Return an exit code where an evaluation met values that are not finite."""
        metrics = self.outputs.get('metrics', None)
        if metrics is not None and metrics['state'] != 'finite':
            return self.exit_codes.ERROR_NOT_FINITE.format(message='see `n_not_finite` in the output `metrics`.')
        return None
