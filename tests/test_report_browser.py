"""The page of a reconstruction in a real browser: it runs, obeys mouse and keys, and fits light, dark and phones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from browser_helpers import ask, console, screenshot
from page_helpers import large_page, noise, search_example, small_page

from hardnet_match.report.finetune import FinetunePage, Row, Strip, finetune_page
from hardnet_match.report.matching import MatchingPage, matching_page
from hardnet_match.report.page import write_page
from hardnet_match.report.parts import Drawn
from hardnet_match.report.photos import Photo
from hardnet_match.report.reconstruction import MOST_BYTES, reconstruction_page
from hardnet_match.report.space import MOST_CAMERAS, MOST_POINTS

HOSTILE = '<img src=x onerror="document.body.dataset.hurt=1"></script><script>document.body.dataset.hurt=1</script>'


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "report.html"
    write_page(path, reconstruction_page(small_page(names=[f"{HOSTILE}{i}.jpg" for i in range(6)], title=HOSTILE)))
    return path


def test_scripts_run_without_a_word_on_the_console(small: Path) -> None:
    assert console(small) == []


def test_names_with_html_in_them_do_nothing(small: Path) -> None:
    told = ask(small, "return [document.body.dataset.hurt || '', document.querySelector('h1').textContent];")
    assert told == ["", HOSTILE]


def test_all_points_in_view_are_drawn(small: Path) -> None:
    assert (
        ask(
            small,
            "await new Promise(requestAnimationFrame); return +document.querySelector('[data-space]').dataset.drawn;",
        )
        > 400
    )


USE = """
const box = document.querySelector('[data-space]'), canvas = box.querySelector('canvas');
const told = () => box.querySelector('[data-told]').textContent;
const settle = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
const pixels = () => canvas.toDataURL();
const key = async (name, shift) => {
  canvas.dispatchEvent(new KeyboardEvent('keydown', { key: name, shiftKey: !!shift, bubbles: true, cancelable: true }));
  await settle();
};
const changed = async (act) => {
  await settle();
  const before = pixels();
  await act();
  await settle();
  return before !== pixels();
};
const point = (type, x, y, more) => canvas.dispatchEvent(new PointerEvent(type, {
  pointerId: 1, clientX: x, clientY: y, bubbles: true, buttons: 1, ...more }));
canvas.setPointerCapture = () => {};
"""


def test_keys_turn_move_zoom_and_go_through_the_photos(small: Path) -> None:
    found = ask(
        small,
        USE
        + """
        const result = {};
        for (const name of ['ArrowLeft', 'ArrowUp', '+', '-', ']']) result[name] = await changed(() => key(name));
        result.shift = await changed(() => key('ArrowRight', true));
        await key('Home');
        const home = pixels();
        await key('ArrowLeft'); await key('Home');
        result.home = home === pixels();
        await key('n'); result.first = told();
        await key('n'); await key('p'); result.again = told();
        result.stand = await changed(() => key('Enter'));
        await key('p'); result.last = told();
        return result;""",
    )
    assert (
        found.pop("first") == found.pop("again") == f"{HOSTILE}0.jpg"[:40] + "…" + f"{HOSTILE}0.jpg"[-39:] + " (1 of 6)"
    )
    assert found.pop("last").endswith("(6 of 6)")
    assert all(found.values()), found


def test_pointers_turn_and_zoom_and_tell_a_camera(small: Path) -> None:
    found = ask(
        small,
        USE
        + """
        const result = {}, edge = canvas.getBoundingClientRect();
        const [x, y] = [edge.left + edge.width / 2, edge.top + edge.height / 2];
        result.turn = await changed(() => {
          point('pointerdown', x, y); point('pointermove', x + 60, y + 20); point('pointerup', x + 60, y + 20); });
        const wheel = () => canvas.dispatchEvent(new WheelEvent('wheel', { deltaY: 50, cancelable: true }));
        result.wheel_elsewhere = !(await changed(wheel));
        canvas.focus();
        result.wheel = await changed(wheel);
        result.pinch = await changed(() => {
          point('pointerdown', x, y); point('pointerdown', x + 50, y, { pointerId: 2 });
          point('pointermove', x + 90, y, { pointerId: 2 });
          point('pointerup', x + 90, y, { pointerId: 2 }); point('pointerup', x, y); });
        box.querySelector('[data-do=reset]').click();
        result.cameras = await changed(() => box.querySelector('[data-do=cameras]').click());
        box.querySelector('[data-do=cameras]').click();
        let named = '';
        for (let v = 0.02; v < 1 && !named; v += 0.02) for (let u = 0.02; u < 1 && !named; u += 0.02) {
          const [px, py] = [edge.left + u * edge.width, edge.top + v * edge.height];
          point('pointerdown', px, py); point('pointerup', px, py);
          if (/of 6\\)$/.test(told())) named = told();
        }
        result.named = !!named;
        return result;""",
    )
    assert all(found.values()), found


def test_the_matrix_tells_its_cells(small: Path) -> None:
    found = ask(
        small,
        """
        const cells = document.querySelector('.cells'), told = document.querySelector('.matrix [data-told]');
        const edge = cells.getBoundingClientRect();
        const at = { clientX: edge.left + edge.width * 1.5 / 6, clientY: edge.top + edge.height * 0.5 / 6 };
        cells.dispatchEvent(new PointerEvent('pointermove', at));
        const first = told.textContent;
        cells.dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowDown', cancelable: true }));
        return [first, told.textContent];""",
    )
    assert found[0].endswith(": 110 inliers")
    assert "inliers" not in found[1]  # the diagonal: an image and itself


SIDEWAYS = """
document.querySelectorAll('details').forEach((one) => { one.open = true; });
const clipped = (one) => one.closest('.wide, .matrix li');  // these scroll or cut off by themselves
const right = (one) => one.getBoundingClientRect().right;
const out = [...document.querySelectorAll('body *')].filter((one) => !clipped(one) && right(one) > innerWidth + 1);
const found = [document.documentElement.scrollWidth, innerWidth, out.map((one) => one.outerHTML.slice(0, 80))];
"""


@pytest.mark.parametrize("width", [320, 390, 768])
def test_nothing_sticks_out_sideways(small: Path, width: int) -> None:
    assert ask(small, SIDEWAYS + "return found;", size=(width, 844)) == [width, width, []]


def test_the_summary_fits_one_screen(small: Path) -> None:
    found = ask(
        small,
        "const parts = [...document.querySelectorAll('h1, .tiles, .warnings, canvas')];"
        "return parts.map((one) => one.getBoundingClientRect().bottom);",
    )
    assert max(found) < 900


def test_light_and_dark(small: Path, tmp_path: Path) -> None:
    light, dark = (screenshot(small, tmp_path / f"{dark}.png", dark=dark) for dark in (False, True))
    assert light[2, 2].min() > 230
    assert dark[2, 2].max() < 60
    for picture in (light, dark):
        # the 3-D view, right of the middle, is not empty: points and cameras differ from its ground
        view = picture[180:700, 620:1200].astype(int)
        ground = np.median(view.reshape(-1, 3), axis=0)
        assert (np.abs(view - ground).max(axis=2) > 40).mean() > 0.003


def test_every_picture_and_control_has_a_name(small: Path) -> None:
    nameless = ask(
        small,
        """
        const named = (one) => one.getAttribute('aria-label') || one.alt || one.textContent.trim();
        const all = [...document.querySelectorAll('img, svg, button, canvas, [role], [tabindex]')];
        const decoration = (one) => one.closest('[role=application]');
        return all.filter((one) => !named(one) && !decoration(one)).map((one) => one.outerHTML.slice(0, 90));""",
    )
    assert nameless == []


CONTRAST = """
const parse = (text) => text.match(/[\\d.]+/g).map(Number);
const light = ([r, g, b]) => [r, g, b].map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const ground = (one) => {
  for (; one; one = one.parentElement) {
    const colour = parse(getComputedStyle(one).backgroundColor);
    if (colour.length < 4 || colour[3] > 0) return colour;
  }
  return [255, 255, 255];
};
const poor = [];
const texts = 'h1, h2, p, dt, dd, small, a, b, td, th, summary, button:not(:disabled), figcaption, span';
document.querySelectorAll(texts).forEach((one) => {
  if (!one.textContent.trim() || !one.offsetParent) return;
  const [a, b] = [light(parse(getComputedStyle(one).color)), light(ground(one))].sort((x, y) => y - x);
  const contrast = (a + 0.05) / (b + 0.05);
  if (contrast < 4.5) poor.push([one.className || one.tagName, contrast.toFixed(2)]);
});
return poor;
"""


@pytest.mark.parametrize("dark", [False, True])
def test_text_can_be_read(small: Path, dark: bool) -> None:
    assert ask(small, CONTRAST, dark=dark) == []


@pytest.mark.slow
def test_thousands_of_images_stay_bounded(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_page(path, reconstruction_page(large_page(images=3_000, points=200_000)))
    assert path.stat().st_size < MOST_BYTES
    text = path.read_text(encoding="utf-8")
    assert f"{MOST_POINTS:,} of 200,000 points" in text
    assert f"{MOST_CAMERAS:,} of 3,000 cameras" in text
    drawn, rows, photos, sideways = ask(
        path,
        SIDEWAYS
        + """
        const count = (selector) => document.querySelectorAll(selector).length;
        return [+document.querySelector('[data-space]').dataset.drawn, count('tbody tr'), count('.wall li'), found];""",
        size=(390, 844),
    )
    assert drawn > 30_000
    assert (rows, photos) == (1_000, 36)
    assert sideways == [390, 390, []]


def test_the_other_pages_fit_a_phone_and_run(tmp_path: Path) -> None:
    pages = {
        "search.html": search_example(),
        "matching.html": matching_page(
            MatchingPage(
                HOSTILE,
                "Good.",
                [("pairs", "1", "")],
                [],
                [Drawn(noise(200, 600), "Best.", HOSTILE, HOSTILE)],
                [],
                [HOSTILE, "b.jpg"],
                np.array([[0, 1]]),
                np.array([77]),
                [Photo(HOSTILE, {"keypoints": "5"}, "")],
                1.0,
            )
        ),
    }
    rows = [Row("matching mAP", 0.5, 0.6, error=0.01), Row("matches", 10, 12, share=False, lower=None)]
    strip = Strip([noise(48, 48, seed)[..., 0] for seed in range(3)], HOSTILE)
    shown = FinetunePage(
        HOSTILE, "Better.", True, rows, [(HOSTILE, "b.jpg", 5, (0.5, 0.6), (3, 4))], [(0, 1.0), (9, 0.5)],
        [(0, 0.5), (9, 0.6)], 9.0, 0.5, {"seed": "0"}, ["How."], [(HOSTILE, noise(200, 600))], [strip] * 3, [],
    )  # fmt: skip
    pages["finetune.html"] = finetune_page(shown)
    for name, html in pages.items():
        write_page(tmp_path / name, html)
        assert console(tmp_path / name, dark=True) == []
        assert ask(tmp_path / name, SIDEWAYS + "return found;", size=(390, 844)) == [390, 390, []]
        assert ask(tmp_path / name, CONTRAST) == []
