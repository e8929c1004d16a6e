"""What an operator decides, where it is read from, and what is granted by it."""

from .files import SettingsFile, SettingsFileError, settings_files, user_settings_file
from .model_prices import ModelPrice
from .secret_grants import SecretGrant
from .settings import ENV_PREFIX, OPTIONAL_ENGINES, FlowSettings, default_database, unknown_variables

__all__ = [
    "ENV_PREFIX",
    "OPTIONAL_ENGINES",
    "FlowSettings",
    "ModelPrice",
    "SecretGrant",
    "SettingsFile",
    "SettingsFileError",
    "default_database",
    "settings_files",
    "unknown_variables",
    "user_settings_file",
]
