"""The error tree. Every message names the file or field, the rule, the value found and the mend.

BratsFLError
├── CacheError      a setting of the cache of preprocessed cases that cannot be used
├── CaseError       a scan or label that cannot be used
│   ├── ScanError       its file does not hold it
│   └── ScanValuesError     its values are an error to the data gate
├── DataListError   a data list that cannot be used
├── FolderError     a folder that cannot be written, or is not ours to replace
├── JobError        a job folder, option or key that cannot be used
│   ├── CodeMismatchError   a job made for another version of this library or bundle
│   └── NotApprovedError    a job that the hospital has not agreed to run
├── KitError        a startup kit or project file that cannot be used
├── LedgerError     a record of rounds that cannot be read, or was changed
├── ModelError      a checkpoint or update that does not fit the network
│   ├── LateUpdateError     an update that came after its round
│   ├── NoLocalModelError   a hospital that has trained no model in the study
│   └── UnfitError          weights of another network than the one they are to be loaded into
├── PrivacyError    a setting that guards privacy is missing or too weak
│   ├── EgressError         something that the hospital's contract does not let out
│   ├── MaskingError        a message or value with which secure aggregation cannot go on
│   ├── NotSharedError      something that the hospital keeps to itself
│   ├── PrivacyBudgetError  what would pass the hospital's privacy budget
│   └── TooFewCasesError    fewer cases than the hospital's own rule asks for
├── RunError        a run that did not finish
├── SiteNameError   a name that no hospital can have
├── StatisticsError   what a site released as statistics is none
├── StepError       a step that failed on a case for a reason that is not ours
└── TrainerError    a site's training process that died

``code`` is what a site may send out: it says what kind of thing went wrong and nothing of the case or the path.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Final

LONGEST_LINE: Final = 1500
"""Characters of a line of a message: values of a file may be as long as whoever wrote it liked."""


class BratsFLError(Exception):
    """Base of every error that a user can mend; the command line prints its text without a traceback.

    Of a line that is too long the middle is left out: the file is named in front, the mend stands at the end.
    """

    code = "ERROR"

    def __str__(self) -> str:
        """The text, of which no line is too long."""
        return "\n".join(map(_cut, self.say().split("\n")))

    def say(self) -> str:
        """The text in full."""
        return super().__str__()


def _cut(line: str) -> str:
    half = LONGEST_LINE // 2
    return line if len(line) <= LONGEST_LINE else f"{line[:half]} ... {line[-half:]}"


class CacheError(BratsFLError):
    """A setting of the cache of preprocessed cases is wrong."""

    code = "CACHE_ERROR"


class CaseError(BratsFLError):
    """A case is missing a file, or its files contradict each other."""

    code = "CASE_ERROR"


class ScanFault(Enum):
    """What may be wrong with the file of a scan or a label -> how to mend it."""

    MISSING = "restore the file, or take the case off the list"
    UNREADABLE = "download, copy or convert the file again"
    TRUNCATED = "download or copy the file again"
    NOT_3D = "name a 3-D file as it is, a volume of a 4-D file by its number: file.nii.gz#0"
    BAD_GRID = "convert the file again from its source"


class ScanError(CaseError):
    """A file does not hold the scan or the label that it is listed as.

    Args:
        fault: What is wrong, in general.
        found: What there is, with the file's name.
    """

    def __init__(self, fault: ScanFault, found: str) -> None:
        super().__init__(fault, found)
        self.fault, self.found = fault, found

    def say(self) -> str:
        """What there is, and how to mend it."""
        return f"{self.found}; {self.fault.value}"


class ScanValuesError(CaseError):
    """The values of a scan break a rule of the data gate.

    Args:
        case: Name of the case.
        scan: Modality.
        rule: Id of the rule.
        found: What there is in place of what the rule says.
        file: Where the scan is.
        mend: What to do.
    """

    def __init__(self, case: str, scan: str, rule: str, found: str, file: str, mend: str) -> None:
        super().__init__(case, scan, rule, found, file, mend)
        self.case, self.scan, self.rule, self.found, self.file, self.mend = case, scan, rule, found, file, mend

    def say(self) -> str:
        """One line: place, rule, what was found, and the mend."""
        return f"{self.case}: {self.scan}: {self.rule}: {self.found} ({self.file}); {self.mend}"


class DataListError(BratsFLError):
    """A data list is missing, empty, or names a case twice."""

    code = "DATALIST_ERROR"


class FolderError(BratsFLError):
    """A folder cannot be written to, or holds what is not ours to replace."""

    code = "FOLDER_ERROR"


class JobError(BratsFLError):
    """A job, its options or its apps are wrong."""

    code = "JOB_ERROR"


class CodeMismatchError(JobError):
    """What is installed at a site is not what the job was made for."""

    code = "CODE_MISMATCH"


class NotApprovedError(JobError):
    """The hospital has not agreed to run this job."""

    code = "NOT_APPROVED"


class KitError(BratsFLError):
    """A startup kit, project file or site file is wrong."""

    code = "KIT_ERROR"


class LedgerError(BratsFLError):
    """A ledger cannot be read, or says something that was not so."""

    code = "LEDGER_ERROR"


class ModelError(BratsFLError):
    """Weights do not fit the network: other keys, other shapes, or values that are not finite."""

    code = "MODEL_ERROR"


class LateUpdateError(ModelError):
    """An update that came after its round had ended without it."""

    code = "LATE"


class NoLocalModelError(ModelError):
    """A hospital has trained no model in the study, or has deleted it."""

    code = "NO_LOCAL_MODEL"


class UnfitError(ModelError):
    """Weights do not fit a network.

    Args:
        said: What differs, and the mend.
        differences: How many names and shapes do; 0 where only values are at fault.
    """

    def __init__(self, said: str, differences: int) -> None:
        super().__init__(said)
        self.differences = differences


class PrivacyError(BratsFLError):
    """A setting that guards privacy is missing or too weak; nothing is sent out."""

    code = "PRIVACY_ERROR"


class EgressError(PrivacyError):
    """The hospital's contract on what leaves does not allow it, or cannot be read."""

    code = "EGRESS_REFUSED"


class MaskingError(PrivacyError):
    """Secure aggregation cannot go on with a message or a value: the round is lost, and no update is shown."""

    code = "MASKING_ERROR"


class NotSharedError(PrivacyError):
    """Something was asked for that the hospital keeps to itself."""

    code = "NOT_SHARED"


class PrivacyBudgetError(PrivacyError):
    """Something would pass the hospital's privacy budget, or the budget cannot be used; nothing is computed."""

    code = "PRIVACY_BUDGET"


class TooFewCasesError(PrivacyError):
    """A hospital has too few cases for its own rule; it stays out."""

    code = "TOO_FEW_CASES"


class RunError(BratsFLError):
    """A process of a run failed; the message names its log."""

    code = "RUN_ERROR"


class SiteNameError(BratsFLError):
    """A hospital's name that FLARE does not bear."""

    code = "SITE_NAME_ERROR"


class StatisticsError(BratsFLError):
    """What a site released as statistics has not their form, or no plausible numbers."""

    code = "STATISTICS_ERROR"


class StepError(BratsFLError):
    """A step failed on a case, for a reason that is not ours.

    Args:
        cases: Name of the case, or of those of a batch.
        step: What was being done.
        reason: What is known of why, and the files.
    """

    code = "EXECUTION_EXCEPTION"

    def __init__(self, cases: str, step: str, reason: str) -> None:
        super().__init__(cases, step, reason)
        self.cases, self.step, self.reason = cases, step, reason

    def say(self) -> str:
        """Case, step, reason and files."""
        return f"{self.cases}: {self.step}: {self.reason}"


class TrainerError(BratsFLError):
    """The process that trains at a site died; the site is there again in the next round."""

    code = "TRAINER_DIED"


class TrainingAborted(Exception):  # noqa: N818  (an order that was carried out, not an error)
    """The task was called off."""


def cause_of(error: BaseException) -> BratsFLError | None:
    """The error of ours at the bottom of a chain: MONAI wraps what a transform or a configuration raises."""
    return next((link for link in chain_of(error) if isinstance(link, BratsFLError)), None)


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """The error, what caused it, what caused that, and so on."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__
