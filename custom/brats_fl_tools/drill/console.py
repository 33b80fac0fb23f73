"""An admin's console on a host, open as long as the drill: a line of JSON in, a line of JSON out.

Asked by a new process each time, who is connected would cost as much as a round.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from brats_fl.errors import RunError
from brats_fl_tools.kit.kits import Kit, read_kit
from brats_fl_tools.runs.processes import end_tree, python_module
from brats_fl_tools.runs.session import admin_session, connected_clients

LOGIN_SECONDS = 5.0
ANSWER_SECONDS = 120.0


class Console:
    """The drill's end of a console.

    Args:
        command: Runs ``console_command`` on the admin's host.
        environment: Of that process.
        log: For what FLARE prints there.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output, env=environment,
                start_new_session=True,
            )  # fmt: skip

    def ask(self, what: str, text: str = "") -> Any:
        """The answer to ``connected``, ``command`` or ``abort``.

        Raises:
            RunError: The server did not answer or refused, or the console is gone.
        """
        question, answers = self.process.stdin, self.process.stdout
        assert question is not None
        assert answers is not None
        question.write(json.dumps({"ask": what, "text": text}).encode() + b"\n")
        question.flush()
        if not select.select([answers], [], [], ANSWER_SECONDS)[0]:
            raise RunError(f"the admin's console gave no answer to {what!r} within {ANSWER_SECONDS:.0f} s")
        answer = json.loads(answers.readline() or b'{"error": "the admin\'s console has ended"}')
        if "error" in answer:
            raise RunError(answer["error"])
        return answer["is"]

    def close(self) -> None:
        """End it."""
        end_tree(self.process.pid)
        self.process.wait()


def console_command(kit: Path) -> list[str]:
    """Command line of the process that holds an admin's session."""
    return python_module(__spec__.name, str(kit))


def answer(session: Any, what: str, text: str) -> Any:
    """What the server says to a question.

    Raises:
        RunError: The server did not answer.
    """
    if what == "connected":
        return sorted(connected_clients(session))
    if what == "abort":
        return str(session.abort_job(text))
    return session.api.do_command(text)


def serve(kit: Kit, questions: IO[str], answers: IO[str]) -> None:
    """Answer one question after the other; a session that fails is replaced with the next question."""
    with contextlib.ExitStack() as stack:
        session = None
        for line in questions:
            asked = json.loads(line)
            try:
                session = session or stack.enter_context(admin_session(kit, LOGIN_SECONDS))
                said = {"is": answer(session, asked["ask"], asked["text"])}
            except Exception as error:  # FLARE raises plain exceptions, too
                said = {"error": str(error)}
                stack.close()
                session = None
            answers.write(json.dumps(said, default=str) + "\n")
            answers.flush()


if __name__ == "__main__":
    own = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # FLARE prints
    serve(read_kit(Path(sys.argv[1])), sys.stdin, own)
