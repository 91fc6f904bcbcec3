"""Settings: frozen values, handed down by argument.

They come, with increasing force, from the defaults below, a TOML file, TCIA_MIRROR_* variables and the command line.
`load_settings` hides how: a key is named by its place (`archive.connections`), a variable is that name in capitals
(TCIA_MIRROR_ARCHIVE_CONNECTIONS); named jobs stand in the file alone. Whatever is wrong is a SettingsError that says
where it was found, what was given and what would be right. The token is no setting: no print of these values shows it.
"""

from __future__ import annotations

from mirror.settings.loading import (
    CONFIG_VARIABLE,
    TOKEN_VARIABLE,
    load_settings,
    read_duration,
    read_token,
    setting_keys,
    variable_of,
)
from mirror.settings.values import (
    ArchiveSettings,
    ReportSettings,
    ScopeSettings,
    ServeSettings,
    Settings,
    SyncSettings,
    Transport,
    bytes_of,
    seconds_of,
)

__all__ = [
    "CONFIG_VARIABLE",
    "TOKEN_VARIABLE",
    "ArchiveSettings",
    "ReportSettings",
    "ScopeSettings",
    "ServeSettings",
    "Settings",
    "SyncSettings",
    "Transport",
    "bytes_of",
    "load_settings",
    "read_duration",
    "read_token",
    "seconds_of",
    "setting_keys",
    "variable_of",
]
