"""scripts/audit.py: what is accepted, what is not, and what has run out."""

import importlib.util
import json
import sys
from datetime import date
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SPEC = importlib.util.spec_from_file_location("audit_script", ROOT / "scripts/audit.py")
audit = importlib.util.module_from_spec(SPEC)
sys.modules["audit_script"] = audit
SPEC.loader.exec_module(audit)

TODAY = date(2026, 1, 1)
VULN = {"id": "GHSA-1", "aliases": ["CVE-1"], "fix_versions": ["2.0"]}


def report(*vulns):
    packages = [{"name": "wheelbarrow", "version": "1.0", "vulns": list(vulns)}, {"name": "own", "skip_reason": "?"}]
    return audit.read_report(json.dumps({"dependencies": packages}))


def accepted(until=date(2027, 1, 1), name="CVE-1"):
    return [audit.Acceptance(name, "wheelbarrow", "It is pushed by hand.", until)]


def test_an_advisory_that_is_not_accepted_is_a_fault():
    faults, _ = audit.judge(report(VULN), [], TODAY)
    assert faults == ["wheelbarrow 1.0: CVE-1, GHSA-1 is not accepted; fixed in 2.0"]


def test_an_accepted_advisory_is_known_by_any_of_its_names():
    faults, notes = audit.judge(report(VULN), accepted(), TODAY)
    assert faults == []
    assert "It is pushed by hand." in notes[0]


def test_an_acceptance_runs_out():
    faults, _ = audit.judge(report(VULN), accepted(until=date(2025, 12, 31)), TODAY)
    assert "look at it again" in faults[0]


def test_an_acceptance_for_another_package_does_not_count():
    other = [audit.Acceptance("CVE-1", "other", "x", date(2027, 1, 1))]
    assert audit.judge(report(VULN), other, TODAY)[0]


def test_an_acceptance_that_is_no_longer_needed_is_named():
    _, notes = audit.judge(report(), accepted(), TODAY)
    assert notes == ["no longer needed: CVE-1 (wheelbarrow): remove it from advisories.toml"]


def test_packages_that_the_service_does_not_know_are_told_apart():
    found = report()
    assert (found.known, found.unknown) == ({"wheelbarrow"}, {"own"})


def test_each_accepted_advisory_is_about_a_locked_package_and_has_a_reason():
    locked = (ROOT / "requirements/run.txt").read_text()
    for one in audit.read_accepted(audit.ACCEPTED):
        assert f"\n{one.package}==" in f"\n{locked}"


def test_an_acceptance_without_a_reason_is_refused(tmp_path):
    file = tmp_path / "a.toml"
    file.write_text('[[accepted]]\nid = "CVE-1"\npackage = "a"\nreason = " "\nuntil = 2027-01-01\n')
    with pytest.raises(ValueError, match="without a reason"):
        audit.read_accepted(file)
