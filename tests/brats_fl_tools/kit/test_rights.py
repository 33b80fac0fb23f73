"""Who may do what by the policies, judged by FLARE's own authorizer."""

from __future__ import annotations

import json

import pytest
from nvflare.fuel.sec.authz import AuthzContext, Person
from nvflare.security.security import FLAuthorizer

from brats_fl_tools.kit.site_files import policy_names
from brats_fl_tools.repository import ROOT

LEAD = Person("lead@consortium.example", "consortium", "lead")
OTHER = Person("other@consortium.example", "consortium", "lead")
IT = Person("it@hospital-1.example", "hospital-1", "org_admin")
OPERATOR = Person("operator@consortium.example", "consortium", "project_admin")

OF_A_LEAD = ("submit_job", "list_jobs", "get_job_meta", "check_status")
"""What `brats-fl submit`, `collect`, `status` and `watch` ask of a server."""

OF_A_JOB = ("app_command", "abort_job", "download_job", "delete_job")
"""The same, of one job: following its rounds is an app command."""


def may(policy: str, user: Person, right: str, submitter: Person | None = None) -> bool:
    rules = json.loads((ROOT / "poc_workspace" / "policies" / f"{policy}.json").read_text(encoding="utf-8"))
    authorizer = FLAuthorizer("consortium", rules["authorization"])
    allowed, _ = authorizer.authorize(AuthzContext(right, user, submitter))
    return bool(allowed)


@pytest.mark.parametrize("policy", policy_names())
@pytest.mark.parametrize("right", [*OF_A_LEAD, *OF_A_JOB])
def test_lead_may_do_all_that_the_commands_ask_of_a_server_with_own_jobs(policy: str, right: str):
    assert may(policy, LEAD, right, LEAD)


@pytest.mark.parametrize("policy", policy_names())
@pytest.mark.parametrize("right", OF_A_JOB)
def test_nobody_may_follow_end_or_fetch_the_job_of_another_lead(policy: str, right: str):
    assert not may(policy, OTHER, right, LEAD)


@pytest.mark.parametrize("policy", policy_names())
@pytest.mark.parametrize("user", [IT, OPERATOR], ids=["hospital's IT", "operator"])
@pytest.mark.parametrize("right", ["app_command", "download_job", "submit_job"])
def test_rounds_and_models_are_the_leads_alone(policy: str, user: Person, right: str):
    assert not may(policy, user, right, LEAD)
