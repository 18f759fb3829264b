"""Pages opened in a real browser without a window: what it said, and what a script of the test found in them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-headless-shell", "google-chrome", "chrome")
DARK = "--blink-settings=preferredColorScheme=0"


def browser() -> str:
    """The browser's command; the test is skipped where there is none."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser here: none of {', '.join(BROWSERS)}")
    return found


def run_browser(page: Path, *options: str, size: tuple[int, int], dark: bool) -> tuple[str, list[str]]:
    """(stdout, what the page's console said) of the browser on a page; three seconds of its time pass."""
    command = [
        browser(), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=3000",
        "--enable-logging=stderr", f"--window-size={size[0]},{size[1]}", f"--user-data-dir={page.parent / 'profile'}",
        *([DARK] if dark else []), *options, page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, "HOME": str(page.parent)}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def console(page: Path, *, size: tuple[int, int] = (1280, 900), dark: bool = False) -> list[str]:
    """Lines a page wrote to the console, errors and refusals of its policy among them."""
    return run_browser(page, "--dump-dom", size=size, dark=dark)[1]


def screenshot(page: Path, picture: Path, *, size: tuple[int, int] = (1280, 900), dark: bool = False) -> Any:
    """The page as the browser shows it, (H, W, 3) RGB."""
    import numpy as np
    from PIL import Image

    run_browser(page, f"--screenshot={picture}", size=size, dark=dark)
    with Image.open(picture) as image:
        return np.asarray(image.convert("RGB"))


def ask(page: Path, script: str, *, size: tuple[int, int] = (1280, 900), dark: bool = False) -> Any:
    """What an async function body returns (JSON) when it runs in a page, after the page's own scripts.

    The page's policy forbids foreign scripts, so a copy with a laxer policy is asked.
    """
    html = page.read_text(encoding="utf-8")
    lax, changed = re.subn(r"script-src [^\"]*", "script-src 'unsafe-inline'", html)
    if not changed:
        lax = html.replace("default-src 'none'", "default-src 'none'; script-src 'unsafe-inline'")
    probe = (
        "<script>(async () => { let found; try { found = await (async () => {" + script + "})(); } "
        "catch (error) { found = { failed: String(error) }; } "
        "document.body.dataset.found = JSON.stringify(found); })();</script>"
    )
    copy = page.with_name(f"probe-{page.name}")
    # without a window no frame is ever due
    frames = "<head><script>window.requestAnimationFrame = (act) => setTimeout(act, 1);</script>"
    copy.write_text(lax.replace("<head>", frames, 1).replace("</body>", f"{probe}</body>"), encoding="utf-8")
    dom, said = run_browser(copy, "--dump-dom", size=size, dark=dark)
    assert said == []
    found = re.search(r'data-found="([^"]*)"', dom)
    assert found, "the script in the page did not finish"
    return json.loads(unescape(found[1]))
