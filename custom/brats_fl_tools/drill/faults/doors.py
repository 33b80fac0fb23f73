"""Messages that a site must not answer: of another hospital's job, and of the server and who operates it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from brats_fl_tools.drill.faults.verdicts import SITE, Fault, expect, expect_finished
from brats_fl_tools.drill.federation import Drill
from brats_fl_tools.drill.houses import ADMIN
from brats_fl_tools.drill.injected_messages import TOLD_FILE
from brats_fl_tools.drill.outcome import Outcome
from brats_fl_tools.runs.folder import SERVER_FILES

ASKED: Final = "hospital-3"
FILES: Final[Mapping[str, tuple[str, str]]] = {
    "cat": ("sys.shell", "cat local/resources.json"),
    "head of the key": ("sys.shell", "head startup/client.key"),
    "grep": ("sys.shell", "grep image local/datalist.json"),
    "ls": ("sys.shell", "ls -al ."),
}
"""What nobody may ask of a site, as FLARE's server sends it for an admin's command."""

ENDS: Final[Mapping[str, tuple[str, str]]] = {
    "environment": ("sys.report_env", ""),
    "restart": ("train.restart", ""),
    "shutdown": ("train.shutdown", ""),
}
"""What another hospital may not ask, either."""

REFUSED: Final = "unauthenticated"
"""FLARE's return code of the door's refusal."""

SHOWN: Final = ("resource_manager", "PRIVATE KEY", "datalist.json")
"""Of the files that are asked for."""

CONSOLE: Final = (
    "cat {site} local/resources.json",
    "tail {site} local/resources.json",
    "head {site} local/datalist.json",
    'grep {site} "resource_" local/resources.json',
    "ls {site} local",
)
"""Commands of FLARE's admin console, which its server sends on to the site whatever the server's own policy is."""

OTHER_SITE: Final = "it is of another site"
NOBODYS: Final = "commands and files of a site are nobody else's"


def asking_job(drill: Drill) -> Outcome:
    """A job in which the processes of ``SITE`` and of the server ask another hospital; run at most once."""
    if "doors" not in drill.shared:
        plans = {
            SITE: {"ask": {"site": ASKED, "requests": {**FILES, **ENDS}}},
            "server": {"ask": {"site": ASKED, "requests": FILES}},
        }
        before = [process.pid for process in drill.processes(f"{ASKED} parent")]
        with drill.broken(plans):
            outcome = drill.run("asking", 1)
        after = [process.pid for process in drill.processes(f"{ASKED} parent")]
        expect(before == after, f"the client of {ASKED} was process {before} and is {after}")
        drill.shared["doors"] = outcome
    outcome = drill.shared["doors"]
    expect_finished(outcome)
    expect(outcome.status(ASKED, 0) == "ok", f"{ASKED} is {outcome.status(ASKED, 0)}")
    return outcome


def told(drill: Drill, outcome: Outcome, host: str) -> dict[str, Any]:
    """Request -> return code and text of what the asked hospital answered."""
    of_site = drill.kit_folder(host) / drill.job_id(outcome.run)
    file = (outcome.run / SERVER_FILES if host == "server" else of_site) / TOLD_FILE
    answers: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return answers


def expect_refused(drill: Drill, answers: Mapping[str, Any], words: str) -> None:
    """Nothing was answered, and the hospital's log says what was asked and why it was refused."""
    for name, (code, text) in answers.items():
        expect(code == REFUSED, f"{name} of {ASKED} was answered: {code} {text[:80]!r}")
        expect(not any(word in text for word in SHOWN), f"{name} of {ASKED} was answered with a file")
    said = refusals(drill, words)
    expect(said >= len(answers), f"the log of {ASKED} speaks of {said} refusals, of {len(answers)} requests")


def refusals(drill: Drill, words: str) -> int:
    """Lines of the hospital's log on requests that were refused for a reason."""
    log = (drill.kit_folder(ASKED) / "log.txt").read_text(encoding="utf-8", errors="replace")
    return log.count(f"was refused: {words}")


def peer_commands(drill: Drill) -> str:
    """The job of a hospital asks another for files, and to end."""
    answers = told(drill, asking_job(drill), SITE)
    expect(set(answers) == {*FILES, *ENDS}, f"{SITE} asked for {', '.join(answers)}")
    expect_refused(drill, answers, OTHER_SITE)
    return f"{len(answers)} of {len(answers)} requests of {SITE} refused, logged; {ASKED} finished its round"


def server_commands(drill: Drill) -> str:
    """The job of the server asks a hospital for files, and an admin of the server does at the console."""
    answers = told(drill, asking_job(drill), "server")
    expect(set(answers) == set(FILES), f"the server asked for {', '.join(answers)}")
    expect_refused(drill, answers, NOBODYS)
    for command in CONSOLE:
        before = refusals(drill, NOBODYS)
        said = drill.console(ADMIN).ask("command", command.format(site=ASKED))
        shown = " ".join(str(part.get("data")) for part in said.get("data", []))
        expect(not any(word in shown for word in SHOWN), f"`{command}` was answered: {shown[:200]}")
        expect(refusals(drill, NOBODYS) == before + 1, f"{ASKED} does not say that it refused `{command}`: {shown}")
    return f"{len(answers)} requests of the server's job and {len(CONSOLE)} at the console refused, each logged"


FAULTS: Final[Mapping[str, Fault]] = {
    "peer-commands": Fault("refused by the hospital's door and logged; it goes on", peer_commands),
    "server-commands": Fault("refused by the hospital's door and logged", server_commands),
}
