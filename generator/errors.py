"""All errors of latentmill. Each names the field, what was expected and what was got.

LatentmillError
├── InputError               the input is wrong; no work was started                    (exit code 2)
│   ├── SpecError            a job spec or one of its fields
│   ├── SourceError          a missing, broken or mixed source of real images
│   ├── BundleError          a bundle that is altered, unknown or does not fit
│   │   └── BundleMissing    the bundle does not exist
│   ├── DatasetError         a dataset URL without a committed build
│   ├── MeasureError         images for which a quality measure cannot be computed
│   ├── KeyFileError         a key file that is missing, or that holds another kind of key
│   ├── AccessRefused        a server does not accept the key, or the key lacks the role
│   └── SettingsError        a setting of the service
├── OutsideError             an outside service failed; the same call may succeed later (exit code 1)
│   ├── StoreError
│   │   ├── ObjectMissing    no object under this key
│   │   ├── AlreadyExists    a conditional create found an object              (HTTP 412)
│   │   ├── Changed          a conditional replace found another version       (HTTP 412)
│   │   ├── AccessDenied     credentials or permissions                        (HTTP 401, 403)
│   │   │   ├── CredentialsExpired  a token has expired, or keys were rotated: new ones may come
│   │   │   └── ClockSkewed  the clock of this machine is too far from the service's
│   │   ├── BucketMissing    the bucket does not exist
│   │   └── StoreUnavailable no answer, a time-out or a server error, after all retries
│   ├── BrokerUnavailable    Redis does not answer
│   ├── WorkerUnavailable    no worker has answered a query in time
│   ├── ServerUnavailable    a server of latentmill does not answer, or answers something else
│   ├── QuotaExceeded        a tenant has reached its quota
│   └── DeviceExhausted      out of memory on the device, even after its caches were freed
└── BuildError               this build cannot be made as asked; a retry would not help  (exit code 1)
    ├── BuildConflict        the destination holds other bytes under the same name
    ├── EnvironmentMismatch  this process may not write shards of this build
    ├── RejectionExhausted   a sample was refused `max_attempts` times
    ├── InvalidOutput        the decoder returned values that are not an image (NaN, infinity)
    ├── TrainingDiverged     the loss is not a finite number
    ├── JobFailed            a job ended without a dataset
    └── IntegrityError       stored bytes do not have the digest they were committed with
"""

from __future__ import annotations


class LatentmillError(Exception):
    """Base class of all errors: ``field`` expected ``expected``, got ``got``; ``hint`` says how to fix it."""

    exit_code = 1

    def __init__(self, field: str, expected: object = "", got: object = "", hint: str = "") -> None:
        self.field, self.expected, self.got, self.hint = field, str(expected), str(got), hint
        super().__init__(field, self.expected, self.got, hint)

    def __str__(self) -> str:
        if not self.expected and not self.got:
            return self.field  # a DataLoader rebuilds the error of a worker from its text alone
        text = f"{self.field}: expected {self.expected}, got {self.got}"
        return f"{text}. {self.hint}" if self.hint else text

    def facts(self) -> dict[str, str]:
        """The error as plain JSON, for ``--json``, job records and logs."""
        return {
            "error": type(self).__name__,
            "field": self.field,
            "expected": self.expected,
            "got": self.got,
            "hint": self.hint,
        }


class InputError(LatentmillError):
    exit_code = 2


class SpecError(InputError):
    pass


class SourceError(InputError):
    pass


class BundleError(InputError):
    pass


class BundleMissing(BundleError):
    pass


class DatasetError(InputError):
    pass


class MeasureError(InputError):
    pass


class SettingsError(InputError):
    pass


class KeyFileError(InputError):
    pass


class AccessRefused(InputError):
    pass


class OutsideError(LatentmillError):
    pass


class StoreError(OutsideError):
    pass


class ObjectMissing(StoreError):
    pass


class AlreadyExists(StoreError):
    pass


class Changed(StoreError):
    pass


class AccessDenied(StoreError):
    pass


class CredentialsExpired(AccessDenied):
    pass


class ClockSkewed(AccessDenied):
    pass


class BucketMissing(StoreError):
    pass


class StoreUnavailable(StoreError):
    pass


class BrokerUnavailable(OutsideError):
    pass


class WorkerUnavailable(OutsideError):
    pass


class ServerUnavailable(OutsideError):
    pass


class QuotaExceeded(OutsideError):
    pass


class DeviceExhausted(OutsideError):
    pass


class BuildError(LatentmillError):
    pass


class BuildConflict(BuildError):
    pass


class EnvironmentMismatch(BuildError):
    pass


class RejectionExhausted(BuildError):
    pass


class InvalidOutput(BuildError):
    pass


class TrainingDiverged(BuildError):
    pass


class JobFailed(BuildError):
    pass


class IntegrityError(BuildError):
    pass
