"""The variables of a job, of both apps, its algorithm and its bundle: what each means, and what it may be set to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brats_fl.algorithms import algorithm_settings
from brats_fl.settings import SETTINGS_FILE, Setting, bundle_settings, check_settings, read_settings
from brats_fl_tools.jobs.source import CLIENT_CONFIG, SERVER_CONFIG, JobSource, shared_config
from brats_fl_tools.repository import APP_CLIENT, APP_SERVER

SET_BY_BUILDER = frozenset({"format_version", "start_from", "start_sha256", "study", "ledger_head"})
"""Root values of the apps that no job and no user sets."""


@dataclass(frozen=True)
class JobSettings:
    """What may be set of a job, by where it is."""

    server: Mapping[str, Setting]
    client: Mapping[str, Setting]
    algorithm: Mapping[str, Setting]
    bundle: Mapping[str, Setting]

    @property
    def everything(self) -> dict[str, Setting]:
        """All of them; the server's word counts where the client has it, too."""
        return {**self.bundle, **self.algorithm, **self.client, **self.server}


def variables_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Root values of an app's configuration that are not structure: FLARE's variables."""
    return {
        key: value for key, value in config.items() if key not in SET_BY_BUILDER and not isinstance(value, (dict, list))
    }


def settings_of(
    source: JobSource, server: Mapping[str, Any], client: Mapping[str, Any], profile: str, algorithm: str
) -> JobSettings:
    """What may be set of a job with these apps.

    Raises:
        JobError: Unknown algorithm; a table of settings cannot be used.
        ModelError: The bundle has no such profile.
    """
    return JobSettings(
        app_settings(APP_SERVER, SERVER_CONFIG, server),
        app_settings(APP_CLIENT, CLIENT_CONFIG, client),
        algorithm_settings(algorithm, source.code) if source.trains else {},
        bundle_settings(source.bundle, profile) if source.bundle else {},
    )


def app_settings(folder: Path, config: Path, app: Mapping[str, Any]) -> dict[str, Setting]:
    """Of the shared app, those that the job has left, and those that it adds; sites may go by the server's."""
    shared: dict[str, Setting] = {}
    for home, stated in {APP_SERVER: SERVER_CONFIG, folder: config}.items():
        shared |= read_settings(home / SETTINGS_FILE, variables_of(shared_config(stated)))
    return {name: shared.get(name, Setting(default)) for name, default in variables_of(app).items()}


def set_values(
    place: str, values: Mapping[str, Any], settings: JobSettings, server: dict[str, Any], client: dict[str, Any]
) -> dict[str, Any]:
    """Set variables in both apps, and return those of the bundle.

    Raises:
        JobError: An unknown variable, or a value that it may not have.
    """
    check_settings(place, settings.everything, values)
    for name, value in values.items():
        for app, own in ((server, settings.server), (client, settings.client)):
            if name in own:
                app[name] = value
    of_apps = {*settings.server, *settings.client, *settings.algorithm}
    return {name: value for name, value in values.items() if name not in of_apps}
