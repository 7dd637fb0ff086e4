"""The commit of a run, in artificial checkouts."""

import subprocess

import pytest

from actrelax.analysis import checkout
from actrelax.analysis.summary import versions


def git(folder, *words):
    who = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    return subprocess.run(["git", "-C", folder, *who, *words], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def code(tmp_path, monkeypatch):
    """Return a program file in a checkout that does not track it yet."""
    for name in checkout.CODE:
        (tmp_path / name).mkdir()
    file = tmp_path / "analysis" / "checkout.py"
    file.write_text("one = 1\n")
    (tmp_path / "notes").write_text("")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "notes")
    git(tmp_path, "commit", "--quiet", "--message", "Notes")
    monkeypatch.setattr(checkout, "FILE", file)
    monkeypatch.setenv("GIT_DIR", "/nowhere")  # as in a hook
    monkeypatch.setattr(checkout, "commit", checkout.commit.__wrapped__)
    return file


def test_the_commit_and_whether_the_code_is_another(code, monkeypatch):
    monkeypatch.delenv("GIT_DIR")
    git(code.parent, "add", code)
    git(code.parent, "commit", "--quiet", "--message", "Code")
    head = git(code.parent, "rev-parse", "HEAD")[:12]
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert checkout.commit() == head
    (code.parents[1] / "notes").write_text("results that are added to")
    assert checkout.commit() == head
    code.write_text("one = 2\n")
    assert checkout.commit() == f"{head}-modified"


def test_a_wheel_inside_another_checkout_has_none(code):
    assert checkout.commit() == ""


def test_before_the_first_commit_there_is_none(code, monkeypatch):
    monkeypatch.delenv("GIT_DIR")
    git(code.parent, "add", code)
    git(code.parent, "update-ref", "-d", "HEAD")
    assert checkout.commit() == ""


def test_without_git_or_with_one_that_hangs_there_is_none(monkeypatch, tmp_path):
    (tmp_path / "git").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setattr(checkout, "SECONDS", 0.05)
    for path in (tmp_path, tmp_path / "empty"):
        monkeypatch.setenv("PATH", f"{path}:/usr/bin:/bin" if path == tmp_path else str(path))
        assert checkout.commit.__wrapped__() == ""


@pytest.mark.parametrize(("commit", "named"), [("", {}), ("0123456789ab", {"commit": "0123456789ab"})])
def test_versions_name_the_commit_of_a_checkout_alone(monkeypatch, commit, named):
    monkeypatch.setattr("actrelax.analysis.summary.commit", lambda: commit)
    assert versions().items() >= named.items()
    assert ("commit" in versions()) == bool(named)
    assert list(versions())[:2] == ["python", "actrelax"]
