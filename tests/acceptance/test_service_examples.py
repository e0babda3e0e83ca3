"""The examples of docs/service.md, taken out of the page and tried as far as that is possible here."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from stackctl.core.durations import parse_duration

if TYPE_CHECKING:
    from tests.backend import Project

PAGE = (Path(__file__).parents[2] / "docs" / "service.md").read_text(encoding="utf-8")
CONFIG = "/etc/stackctl/stackctl.yaml"


def examples(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def manifest(kind: str) -> Any:
    (found,) = [document for text in examples("yaml") if (document := yaml.safe_load(text))["kind"] == kind]
    return found


@pytest.fixture
def ready(project: Project, tmp_path: Path) -> Path:
    """A configuration without databases, and a folder with `stackctl` for PATH."""
    project.write()
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "stackctl"
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m stackctl "$@"\n')
    script.chmod(0o755)
    return folder


def tried(command: str, folder: Path, project: Project) -> subprocess.CompletedProcess[str]:
    """The command line as sh runs it, with this test's configuration, and a short duration so that it ends."""
    assert CONFIG in command
    command = re.sub(r"--max-duration \d+s", "", command.replace(CONFIG, str(project.directory / "stackctl.yaml")))
    command = command.replace("/usr/local/bin/stackctl", "stackctl") + " --max-duration 200ms"
    environment = {"PATH": f"{folder}:/usr/bin:/bin", "HOME": os.environ.get("HOME", "/")}
    return subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, timeout=60)


def test_the_unit_is_valid_and_its_command_runs(ready: Path, project: Project, tmp_path: Path) -> None:
    (text,) = examples("ini")
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(text)
    outcome = tried(unit["Service"]["ExecStart"], ready, project)
    assert outcome.returncode == 0, outcome.stderr


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_wrong_with_the_unit(ready: Path, tmp_path: Path) -> None:
    (text,) = examples("ini")
    path = tmp_path / "stackctl.service"
    # Only what systemd looks for on this machine's disk is put where it is.
    path.write_text(text.replace("/usr/local/bin/stackctl", str(ready / "stackctl")))
    checked = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True, timeout=60)
    complaints = [line for line in checked.stderr.splitlines() if "stackctl.service" in line]
    assert (checked.returncode, complaints) == (0, [])


def test_the_cron_line_runs_and_overlaps(ready: Path, project: Project) -> None:
    (line,) = examples("cron")
    *schedule, command = line.strip().split(maxsplit=5)
    assert schedule == ["*"] * 5
    assert "%" not in command  # cron would end the line there
    found = re.search(r"--max-duration (\S+)", command)
    assert found is not None
    assert parse_duration(found[1]).total_seconds() > 60
    outcome = tried(command, ready, project)
    assert (outcome.returncode, outcome.stdout, outcome.stderr) == (0, "", ""), "cron mails whatever is said"


@pytest.mark.parametrize("kind", ["Deployment", "CronJob"])
def test_the_commands_of_the_manifests_run(kind: str, ready: Path, project: Project) -> None:
    spec = manifest(kind)["spec"]
    pod = (spec if kind == "Deployment" else spec["jobTemplate"]["spec"])["template"]["spec"]
    (container,) = pod["containers"]
    outcome = tried(shlex.join(container["command"]), ready, project)
    assert outcome.returncode == 0, outcome.stderr
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    assert any(CONFIG.startswith(mount["mountPath"]) for mount in container["volumeMounts"])


def test_the_manifests_are_what_kubernetes_asks_for() -> None:
    deployment, job = manifest("Deployment"), manifest("CronJob")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["restartPolicy"] in ("Never", "OnFailure")
    assert job["spec"]["concurrencyPolicy"] == "Allow"
