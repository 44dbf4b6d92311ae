"""Every error a caller can meet. Each says which field, what was expected, what was got.

LatentmillError
├── InputError               what the caller gave is wrong; nothing was started          (exit code 2)
│   ├── SpecError            a job spec or one of its fields
│   ├── SourceError          real images: a missing, broken, or mixed source
│   ├── BundleError          a bundle that is altered, unknown, or does not fit
│   │   └── BundleMissing    no bundle there
│   ├── DatasetError         a dataset URL without a committed build
│   ├── MeasureError         images that a measure of quality cannot be taken on
│   └── SettingsError        a setting of the service
├── OutsideError             the world outside failed; the same call may succeed later   (exit code 1)
│   ├── StoreError
│   │   ├── ObjectMissing    no object under this key
│   │   ├── AlreadyExists    a conditional create met an object                (HTTP 412)
│   │   ├── Changed          a conditional replace met another version         (HTTP 412)
│   │   ├── AccessDenied     credentials or permissions                        (HTTP 401, 403)
│   │   ├── BucketMissing    the bucket does not exist
│   │   └── StoreUnavailable no answer, a time-out, or a server error after all retries
│   ├── BrokerUnavailable    Redis does not answer
│   ├── QuotaExceeded        a tenant has as much as it may have for now
│   └── DeviceExhausted      out of memory on the device, also after its caches were freed
└── BuildError               this build cannot be made as asked; a retry would not help  (exit code 1)
    ├── BuildConflict        the destination holds other bytes under the same name
    ├── EnvironmentMismatch  this process may not write shards of this build
    ├── RejectionExhausted   a sample was refused `max_attempts` times
    ├── InvalidOutput        the decoder gave values that are no image (NaN, infinity)
    ├── TrainingDiverged     a loss that is no number
    ├── JobFailed            a job ended without a dataset
    └── IntegrityError       stored bytes do not have the digest they were committed with
"""

from __future__ import annotations


class LatentmillError(Exception):
    """Base of all errors: ``field`` expected ``expected``, got ``got``; ``hint`` says how to mend it."""

    exit_code = 1

    def __init__(self, field: str, expected: object = "", got: object = "", hint: str = "") -> None:
        self.field, self.expected, self.got, self.hint = field, str(expected), str(got), hint
        super().__init__(field, self.expected, self.got, hint)

    def __str__(self) -> str:
        if not self.expected and not self.got:
            return self.field  # rebuilt from its text, as a DataLoader does with the error of a worker
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


class BucketMissing(StoreError):
    pass


class StoreUnavailable(StoreError):
    pass


class BrokerUnavailable(OutsideError):
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
