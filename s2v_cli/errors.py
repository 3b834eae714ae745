"""The exception tree of s2v.

* S2VError: everything that s2v refuses or fails at; `exit_code` 1
  * UsageError: the request itself is wrong; `exit_code` 2
    * OptionError: an option's value is outside its range
    * PresetError: unknown or malformed preset
    * DeviceError: a device or dtype that this machine does not have
    * SpaceError: embeddings of two different spaces meet
  * SoundError: a sound that cannot be read or used
  * PictureError: a picture that cannot be read
  * OutputError: a result that cannot be written
  * WeightsError: weights that are missing, damaged or of another shape
    * MissingWeightsError: published weights that were not downloaded yet
  * DependencyError: an optional package or program is missing
  * TrainingError: a training run that cannot start or go on

Every message is one line: what is wrong, the value, what is allowed or what to do next.
The library raises; only the command line prints and exits.
"""


class S2VError(Exception):
    """Base of all errors raised by s2v."""

    exit_code = 1


class UsageError(S2VError, ValueError):
    """The request itself is wrong."""

    exit_code = 2


class OptionError(UsageError):
    """An option's value is outside its range."""


class PresetError(UsageError):
    """Unknown or malformed preset."""


class DeviceError(UsageError):
    """A device or dtype that this machine does not have."""


class SpaceError(UsageError):
    """Embeddings of two different spaces meet."""


class SoundError(S2VError):
    """A sound that cannot be read or used."""


class PictureError(S2VError):
    """A picture that cannot be read."""


class OutputError(S2VError):
    """A result that cannot be written."""


class WeightsError(S2VError):
    """Weights that are missing, damaged or of another shape."""


class MissingWeightsError(WeightsError):
    """Published weights that were not downloaded yet.

    Attributes:
        assets: their names in the catalogue.
        bytes: that a download takes, as far as known.
        licences: of each asset, in the same order.
        command: that gets them.
    """

    def __init__(
        self,
        message: str,
        *,
        assets: tuple[str, ...],
        bytes: int,
        licences: tuple[str, ...],
        command: str,
    ) -> None:
        super().__init__(message)
        self.assets, self.bytes = assets, bytes
        self.licences, self.command = licences, command


class DependencyError(S2VError):
    """An optional package or program is missing."""


class TrainingError(S2VError):
    """A training run that cannot start or go on."""
