"""A failure names the case, the file, the step and the reason, whoever raised it."""

from __future__ import annotations

import errno
import sys

import pytest

from brats_fl.errors import LONGEST_LINE, CaseError, RunError, ScanError, ScanFault, StepError, TrainingAborted
from brats_fl.failures import during, explain, is_disk_full, tell_reason_last
from brats_fl.trainer_process import describe_failure

ITEM = {"case": "P_001", "image": ["/data/P_001_t1ce.nii.gz", "/data/P_001_t1.nii.gz"]}
FILES = "(/data/P_001_t1ce.nii.gz, /data/P_001_t1.nii.gz)"


def failing(error: BaseException) -> StepError:
    with pytest.raises(StepError) as caught, during("segmenting", [ITEM]):
        raise error
    return caught.value


def test_error_that_is_not_ours_is_told_with_case_step_reason_and_files():
    assert str(failing(TypeError("odd  kind\nof input"))) == f"P_001: segmenting: TypeError: odd kind of input {FILES}"
    assert str(failing(KeyError())) == f"P_001: segmenting: KeyError {FILES}"


def test_what_is_told_is_what_monai_wrapped():
    wrapped = RuntimeError("applying transform")
    wrapped.__cause__ = ValueError("no voxel is left")

    assert str(failing(wrapped)) == f"P_001: segmenting: ValueError: no voxel is left {FILES}"


def test_each_case_of_a_batch_is_named_once():
    with (
        pytest.raises(StepError, match=r"^P_001, P_002: training: ZeroDivisionError: by 0"),
        during("training", [ITEM, {"case": "P_002"}, ITEM]),
    ):
        raise ZeroDivisionError("by 0")


@pytest.mark.parametrize("error", [CaseError("P_001: t2w: is cut short"), TrainingAborted()])
def test_error_of_ours_and_an_order_to_stop_pass_as_they_are(error: Exception):
    with pytest.raises(type(error)) as caught, during("preparing", [ITEM]):
        raise error

    assert caught.value is error


def test_error_of_ours_that_monai_wrapped_passes_too():
    wrapped = RuntimeError("applying transform")
    wrapped.__cause__ = CaseError("P_001: t2w: is cut short")

    with pytest.raises(RuntimeError) as caught, during("preparing", [ITEM]):
        raise wrapped

    assert caught.value is wrapped
    assert explain(wrapped) == "P_001: t2w: is cut short"


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")]
)
def test_memory_that_ran_out_is_called_so_and_has_its_own_code_at_a_site(error: Exception):
    failure = failing(error)

    assert str(failure).startswith("P_001: segmenting: memory ran out; ")
    assert describe_failure(failure).code == "OUT_OF_MEMORY"


def test_full_disk_is_called_so():
    failure = failing(OSError(errno.ENOSPC, "No space left on device", "/masks/P_001_seg.nii.gz"))

    assert str(failure).startswith("P_001: segmenting: the disk is full (/masks/P_001_seg.nii.gz); free some space")
    assert is_disk_full(failure)


def test_sites_log_begins_with_the_case_and_the_server_hears_a_code_alone():
    told = describe_failure(failing(ValueError("odd")))

    assert told.code == "EXECUTION_EXCEPTION"
    assert told.text.splitlines()[0] == f"P_001: segmenting: ValueError: odd {FILES}"
    assert "Traceback" in told.text


def test_last_line_of_a_process_that_an_error_ended_is_the_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # put back afterwards
    wrapped = RuntimeError("Failed to evaluate evaluator.run()")
    wrapped.__cause__ = CaseError("1 of 2 cases were not segmented\nP_001: reading: is cut short")

    tell_reason_last()
    sys.excepthook(type(wrapped), wrapped, None)

    lines = capsys.readouterr().err.splitlines()
    assert lines[-2:] == ["error: 1 of 2 cases were not segmented", "P_001: reading: is cut short"]
    assert "RuntimeError: Failed to evaluate evaluator.run()" in lines


@pytest.mark.parametrize(
    "error",
    [
        RunError(f"run/study.json: name must be short (got {'x' * 5000}); write it again"),
        ScanError(ScanFault.TRUNCATED, f"run/study.json: {'x' * 5000}"),
        StepError("run/study.json", "reading", f"{'x' * 5000}; write it again"),
    ],
)
def test_line_of_a_message_that_is_too_long_keeps_the_file_and_the_mend(error: Exception):
    said = str(error)

    assert said.startswith("run/study.json: ")
    assert said.endswith(("again", "again)"))
    assert len(said) == LONGEST_LINE + len(" ... ")


def test_other_lines_of_a_long_message_stay_whole():
    assert str(RunError(f"first\n{'x' * 5000}\nlast")).split("\n")[::2] == ["first", "last"]
