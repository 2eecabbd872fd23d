"""What an operator sees: plain where nobody watches, coloured on a terminal, and never silent for long."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import subprocess
import time

from runbook_site import CHECKOUT, Site

ESCAPE = "\x1b["


def on_a_terminal(command: list[str], environment: dict[str, str], seconds: float = 60) -> str:
    """The output of a command that sees a terminal."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        command, cwd=CHECKOUT, env=environment, stdin=terminal, stdout=terminal, stderr=terminal, close_fds=True
    )
    os.close(terminal)
    output = b""
    deadline = time.monotonic() + seconds
    try:
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):  # what Linux says when the other end was closed
                part = os.read(controller, 65536)
                output += part
                if part:
                    continue
            break
        assert process.wait(timeout=10) == 0
    finally:
        process.kill()
        process.wait()
        os.close(controller)
    return output.decode()


def plain_environment(site: Site) -> dict[str, str]:
    unwanted = ("ANSIBLE_NOCOLOR", "ANSIBLE_FORCE_COLOR", "NO_COLOR")
    return {**{k: v for k, v in site.environment().items() if k not in unwanted}, "TERM": "xterm-256color"}


def test_a_long_start_is_mentioned_and_all_is_plain(small_site: Site) -> None:
    site = small_site
    site.release("1.0.0", never_ready=True)
    model = site.inventory / "group_vars" / "all.yml"
    model.write_text(model.read_text(encoding="utf-8").replace("start_seconds: 15", "start_seconds: 5"))
    environment = {**plain_environment(site), "RUNBOOK_TIMELINE_WAIT_SECONDS": "1"}
    command = site.command("deploy", app_version="1.0.0")
    done = subprocess.run(
        command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode != 0
    assert re.search(r"^\[\d\d:\d\d\] start +\d s, waiting for target1$", done.stdout, re.M), done.stdout
    assert "FAILED after" in done.stdout
    assert ESCAPE not in done.stdout + done.stderr
    assert "\r" not in done.stdout


def test_colours_on_a_terminal_only(small_site: Site) -> None:
    site = small_site
    site.release("1.1.0")
    environment = plain_environment(site)
    coloured = on_a_terminal(site.command("deploy", app_version="1.1.0"), environment)
    assert ESCAPE in coloured
    first, *_rest = [line for line in coloured.splitlines() if "DEPLOYED after" in line]
    assert first.startswith(ESCAPE), repr(first)
    again = site.command("deploy", app_version="1.1.0")
    piped = subprocess.run(again, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert "nothing to do: it is live" in piped.stdout
    assert ESCAPE not in piped.stdout


def test_the_callback_of_ansible_says_it_too(small_site: Site) -> None:
    """Nothing that matters is said by the timeline alone."""
    environment = {**small_site.environment(), "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default"}
    bad = small_site.command("deploy", app_version="../1")
    done = subprocess.run(bad, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "PLAY RECAP" in done.stdout
    assert "app_version: '../1' must be letters, digits and any of . _ + -" in done.stdout + done.stderr
    assert "Nothing has been touched." in done.stdout + done.stderr


def test_who_presses_ctrl_c_is_told_what_is_safe_and_who_goes_on(small_site: Site) -> None:
    """Everything that the terminal would send the signal to gets it, in the middle of a watch."""
    for version in ("7.0.0", "7.1.0"):
        small_site.release(version)
    first = small_site.deploy("7.0.0")
    assert first.code == 0, first.output
    process = subprocess.Popen(
        small_site.command("deploy", app_version="7.1.0", watch_seconds=90),
        env=small_site.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout and any("shift" in line and "100 % on" in line for line in process.stdout)
    os.killpg(process.pid, signal.SIGINT)
    output = process.communicate(timeout=60)[0]
    assert process.returncode != 0
    run = small_site.run_numbers()[-1]
    assert f"INTERRUPTED in the phase watch: run {run} is unfinished" in output, output
    assert "what has the traffic now keeps it; recover.yml, or the next run, puts everything back to 7.0.0" in output
    assert small_site.answers() == {"7.1.0"}
    back = small_site.run("recover")
    assert back.code == 0, back.output
    assert small_site.answers() == {"7.0.0"} and "all agree" in small_site.status().output
