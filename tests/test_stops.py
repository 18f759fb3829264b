"""Stopped from outside, by signals or lost workers; two runs on one output; photos replaced; nothing left open."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from cli_helpers import EXTRACT, MATCH, SMALL, fill, finished, photo, start, until
from fault_runs import records
from PIL import Image

from hardnet_match.errors import ImageError, StoreError
from hardnet_match.extractor import FeatureExtractor
from hardnet_match.images import workers
from hardnet_match.images.workers import DecodeWorkers
from hardnet_match.jobs.alone import alone
from hardnet_match.jobs.extract import extract_folder
from hardnet_match.jobs.index import index_features
from hardnet_match.jobs.match import match_features
from hardnet_match.retrieval.index import Index
from hardnet_match.store import FeatureReader, FeatureWriter, MatchReader

_VERB = """
import os, signal, sys, time
from hardnet_match.cli.common import verb
%s
@verb
def run():
    print("ready", flush=True)
    %s
    time.sleep(60)
    return 0
import typer
app = typer.Typer()
app.command()(run)
app()
"""


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    return FeatureExtractor.from_preset("dog-rootsift", orientation="upright", max_keypoints=20, device="cpu")


def children(process: int) -> list[int]:
    """Processes that this one started and that still run."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            fields = (place / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == process and fields[0] != "Z":
            found.append(int(place.name))
    return found


@pytest.mark.parametrize(
    ("sent", "before", "within", "code"),
    [
        ("SIGINT", "", "", 130),
        ("SIGTERM", "", "", 143),
        ("SIGHUP", "", "", 129),
        ("SIGTERM", "signal.signal(signal.SIGINT, signal.SIG_IGN)", "", 143),
        ("SIGTERM", "", "from hardnet_match.sfm import colmap; print('loaded', flush=True)", 143),
        ("SIGTERM", "", "signal.signal(signal.SIGINT, lambda *a: sys.exit(77))", 77),
    ],
    ids=["ctrl-c", "sigterm", "sighup", "ctrl-c-ignored", "colmap-loaded", "ctrl-c-handled-inside"],
)
def test_every_verb_ends_at_once_with_the_signals_code(sent: str, before: str, within: str, code: int) -> None:
    program = [sys.executable, "-c", _VERB % (before, within)]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(2 if "loaded" in within else 1):
        process.stdout.readline()
    if "SIGINT, lambda" in within:
        time.sleep(0.5)
    process.send_signal(getattr(signal, sent))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    if code > 128:
        assert errors.count("\n") == 1
        assert "goes on from there" in errors
        assert sent in errors or sent == "SIGINT"


_FINALISER = """
    class Left:
        def __del__(self):
            os.kill(os.getpid(), signal.%s)
            for _ in range(1000): pass
    Left()"""


@pytest.mark.parametrize("sent", ["SIGINT", "SIGTERM"])
def test_a_signal_that_comes_inside_a_finaliser_is_not_lost(sent: str) -> None:
    """Python itself drops what is raised there."""
    program = _VERB % ("signal.signal(signal.SIGINT, signal.default_int_handler)", _FINALISER % sent)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50)
    assert done.returncode == {"SIGINT": 130, "SIGTERM": 143}[sent], done.stderr
    assert done.stderr.count("\n") == 1


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    program = _VERB % ("signal.signal(signal.SIGHUP, signal.SIG_IGN)", "os.kill(os.getpid(), signal.SIGHUP); return 5")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (5, "")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGHUP])
def test_a_stopped_extraction_leaves_no_process_and_goes_on(tmp_path: Path, number: signal.Signals) -> None:
    fill(tmp_path / "photos", 400)
    output = tmp_path / "f.h5"
    process = start(*EXTRACT, place=tmp_path)
    try:
        until(lambda: (output.exists() and children(process.pid)) or process.poll() is not None)
        until(lambda: output.stat().st_size > 300_000 or process.poll() is not None)
        left = children(process.pid)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number), errors
    assert left
    until(lambda: not any(Path(f"/proc/{child}").exists() for child in left), 30)
    assert "Traceback" not in errors
    before = len(records(output))
    assert 0 < before < 400
    if number != signal.SIGKILL:
        assert sorted(os.listdir(tmp_path)) == ["f.h5", "photos"]
    for name in sorted(os.listdir(tmp_path / "photos"))[before + 5 :]:
        (tmp_path / "photos" / name).unlink()
    finished(*EXTRACT, place=tmp_path)
    assert len(records(output)) == before + 5
    assert sorted(os.listdir(tmp_path)) == ["f.h5", "photos"]


# Workers --------------------------------------------------------------------------------------------------------------

_FAKE = (
    "import sys, json, os, time; sys.path[:] = json.loads(sys.argv[1]); from hardnet_match.images import worker; "
    "real = worker.load\n"
    "def load(folder, name, masks, max_size, ask=None):\n"
    "    mark = os.path.join(folder, name + '.mark')\n"
    "    if 'crash' in name or ('once' in name and not os.path.exists(mark)):\n"
    "        open(mark, 'w').close(); os.kill(os.getpid(), 9)\n"
    "    if 'hang' in name: time.sleep(60)\n"
    "    if 'noise' in name: print('a library prints', flush=True)\n"
    "    return real(folder, name, masks, max_size, ask)\n"
    "worker.load = load; worker.main()"
)


def test_a_lost_worker_costs_nothing_and_a_photo_that_kills_it_twice_is_named(
    tmp_path: Path, extractor: FeatureExtractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_COMMAND", _FAKE)
    monkeypatch.setattr(workers, "SECONDS", 15.0)
    folder = fill(tmp_path / "photos", 3)
    for name in ("crash.png", "once.png", "noise.png"):
        Image.fromarray(photo(7)).save(folder / name)
    summary = extract_folder(folder, tmp_path / "f.h5", extractor, workers=2, quiet=True)
    assert summary.extracted == 5
    assert "SIGKILL, 2 times" in summary.skipped["crash.png"]
    assert (folder / "once.png.mark").exists()


def test_a_decoder_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_COMMAND", _FAKE)
    Image.fromarray(photo(7)).save(tmp_path / "hang.png")
    with DecodeWorkers(tmp_path, seconds=1.0) as decoders, pytest.raises(ImageError, match="not answer in time"):
        decoders.load("hang.png")


def test_where_no_process_can_be_started_photos_are_decoded_all_the_same(
    tmp_path: Path, extractor: FeatureExtractor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = fill(tmp_path / "photos", 3)
    extract_folder(folder, tmp_path / "f.h5", extractor, quiet=True)
    monkeypatch.setattr(workers, "_COMMAND", "raise SystemExit(3)")
    extract_folder(folder, tmp_path / "g.h5", extractor, quiet=True)
    assert records(tmp_path / "f.h5") == records(tmp_path / "g.h5")
    assert "decoding in this one" in caplog.text


def test_no_more_pixels_than_the_bound_are_decoded_at_once() -> None:
    import threading

    room, inside, most = workers._Room(100), [0], [0]
    lock = threading.Lock()

    def work(pixels: int) -> None:
        with room.for_pixels(pixels):
            with lock:
                inside[0] += min(pixels, 100)
                most[0] = max(most[0], inside[0])
            time.sleep(0.01)
            with lock:
                inside[0] -= min(pixels, 100)

    threads = [threading.Thread(target=work, args=(pixels,)) for pixels in [30, 60, 500, 40, 100, 70, 20, 10] * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 60 < most[0] <= 100


def test_nothing_stays_open_or_behind(tmp_path: Path, extractor: FeatureExtractor) -> None:
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc")
    folder = fill(tmp_path / "photos", 6)
    (folder / "bad.jpg").write_bytes(b"no picture")
    temporary = tmp_path / "tmp"
    temporary.mkdir()

    def run(number: int) -> None:
        extract_folder(folder, tmp_path / f"f{number}.h5", extractor, quiet=True)
        match_features(tmp_path / f"f{number}.h5", tmp_path / f"m{number}.h5", device="cpu", quiet=True)

    run(0)
    before, threads = sorted(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))
    for number in range(1, 4):
        run(number)
    assert len(os.listdir("/proc/self/fd")) <= len(before)
    until(lambda: len(os.listdir("/proc/self/task")) <= threads, 20)
    until(lambda: not children(os.getpid()), 20)
    made = [f"{kind}{number}.h5" for kind in "fm" for number in range(4)]
    assert sorted(os.listdir(tmp_path)) == sorted([*made, "photos", "tmp"])


# One writer -----------------------------------------------------------------------------------------------------------


def test_two_runs_on_one_output_refuse_each_other_whatever_they_are(tmp_path: Path) -> None:
    fill(tmp_path / "photos", 2)
    with FeatureWriter(tmp_path / "f.h5", {"a": 1}):
        errors = finished(*EXTRACT, place=tmp_path, code=1)
        assert "f.h5 is being written by another process" in errors
        errors = finished("pairs", "photos", "-o", "f.h5", "--mode", "exhaustive", place=tmp_path, code=1)
        assert "another process" in errors
    with FeatureWriter(tmp_path / "g.h5", {"a": 1}):
        pass
    (tmp_path / "out").mkdir()
    with alone(tmp_path / "out"), pytest.raises(StoreError, match="another run"), alone(tmp_path / "out"):
        pass
    with alone(tmp_path / "out"):
        errors = finished("reconstruct", "photos", "-o", "out", *SMALL, place=tmp_path, code=1)
    assert "another run is at work there" in errors
    assert os.listdir(tmp_path / "out") == []


def test_a_lock_that_a_killed_run_left_is_no_obstacle(tmp_path: Path) -> None:
    fill(tmp_path / "photos", 2)
    code = "import sys, os; from hardnet_match.store.hdf5 import acquire; from pathlib import Path; "
    code += "lock = acquire(Path('f.h5')); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False)
    assert (tmp_path / "f.h5.lock").exists()
    finished(*EXTRACT, place=tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["f.h5", "photos"]


# Photos that change ---------------------------------------------------------------------------------------------------


def test_a_photo_replaced_under_its_name_is_done_again_and_so_are_its_pairs(
    tmp_path: Path, extractor: FeatureExtractor
) -> None:
    folder, features, matches = fill(tmp_path / "photos", 4), tmp_path / "f.h5", tmp_path / "m.h5"
    names = sorted(os.listdir(folder))

    def run() -> tuple[int, int]:
        extracted = extract_folder(folder, features, extractor, quiet=True).extracted
        return extracted, match_features(features, matches, method="mnn", device="cpu", quiet=True).matched

    assert run() == (4, 6)
    assert run() == (0, 0)
    os.utime(folder / names[0])  # touched, not changed
    assert run() == (0, 0)
    old = (folder / names[1]).stat()
    Image.fromarray(photo(99)).save(folder / names[1])
    assert run() == (1, 3)
    assert run() == (0, 0)
    with FeatureReader(features) as reader, MatchReader(matches) as pairs:
        assert len(pairs.pairs()) == 6
        for name0, name1 in pairs.pairs():
            found = pairs.read(name0, name1).pairs
            assert found[:, 0].max(initial=-1) < len(reader.read(name0))
            assert found[:, 1].max(initial=-1) < len(reader.read(name1))
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    extract_folder(folder, fresh / "f.h5", extractor, quiet=True)
    match_features(fresh / "f.h5", fresh / "m.h5", method="mnn", device="cpu", quiet=True)
    assert records(features) == records(fresh / "f.h5")
    assert records(matches) == records(fresh / "m.h5")
    assert old.st_size


def test_a_mask_that_comes_goes_or_changes_is_noticed(tmp_path: Path, extractor: FeatureExtractor) -> None:
    folder, masks = fill(tmp_path / "photos", 2), tmp_path / "masks"
    masks.mkdir()
    mask = np.zeros((48, 64), np.uint8)
    mask[:, 32:] = 255

    def run() -> int:
        return extract_folder(folder, tmp_path / "f.h5", extractor, masks=masks, quiet=True).extracted

    assert (run(), run()) == (2, 0)
    Image.fromarray(mask).save(masks / "000 x.png.png")
    assert (run(), run()) == (1, 0)
    with FeatureReader(tmp_path / "f.h5") as reader:
        assert reader.keypoints("000 x.png")[:, 0].min() > 30
    Image.fromarray(255 - mask).save(masks / "000 x.png.png")
    assert (run(), run()) == (1, 0)
    (masks / "000 x.png.png").unlink()
    assert (run(), run()) == (1, 0)


@pytest.mark.parametrize("method", ["asmk", "bow"])
def test_an_index_takes_a_replaced_photo_anew(tmp_path: Path, extractor: FeatureExtractor, method: str) -> None:
    folder, features, index = fill(tmp_path / "photos", 5), tmp_path / "f.h5", tmp_path / "index"
    names = sorted(os.listdir(folder))

    def run() -> tuple[int, int, int, int]:
        extract_folder(folder, features, extractor, quiet=True)
        made = index_features(features, index, words=8, method=method, quiet=True)
        return made.images, made.added, made.replaced, made.reused

    assert run() == (5, 5, 0, 0)
    os.utime(folder / names[0])  # touched, not changed
    assert run() == (5, 0, 0, 5)
    Image.fromarray(photo(99)).save(folder / names[1])
    Image.fromarray(photo(98)).save(folder / names[3])
    Image.fromarray(photo(97)).save(folder / "new.png")
    assert run() == (6, 3, 2, 3)
    assert run() == (6, 0, 0, 6)
    with FeatureReader(features) as reader, Index.open(index) as found:
        for name in reader.names():
            assert np.array_equal(found.geometry(found.number(name))[0], reader.read(name).lafs)
        asked = {name: found.rank(reader.read(name)) for name in reader.names()}
        fresh = index_features(features, tmp_path / "fresh", codebook=index, method=method, quiet=True)
        assert fresh.images == 6
        with Index.open(tmp_path / "fresh") as other:
            for name, ranking in asked.items():
                again = other.rank(reader.read(name))
                assert [other.names[i] for i in again.images] == [found.names[i] for i in ranking.images]
                np.testing.assert_allclose(again.scores, ranking.scores, rtol=1e-6)


def test_matches_of_other_orders_are_replaced_where_they_are(tmp_path: Path, extractor: FeatureExtractor) -> None:
    folder, features, matches = fill(tmp_path / "photos", 2), tmp_path / "f.h5", tmp_path / "m.h5"
    first, second = sorted(os.listdir(folder))
    extract_folder(folder, features, extractor, quiet=True)
    match_features(features, matches, [(second, first)], method="mnn", device="cpu", quiet=True)
    Image.fromarray(photo(99)).save(folder / first)
    extract_folder(folder, features, extractor, quiet=True)
    assert match_features(features, matches, [(first, second)], method="mnn", device="cpu", quiet=True).matched == 1
    with MatchReader(matches) as reader:
        assert reader.pairs() == [(second, first)]


def test_disk_full_in_the_real_command_is_one_line_and_the_next_run_goes_on(tmp_path: Path) -> None:
    import resource

    fill(tmp_path / "photos", 40, width=96)

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    errors = finished(*EXTRACT, place=tmp_path, code=1, preexec_fn=limited)
    assert "f.h5: cannot write to it: " in errors
    assert errors.count("\n") == 1
    there = len(records(tmp_path / "f.h5"))
    assert 0 < there < 40
    assert sorted(os.listdir(tmp_path)) == ["f.h5", "photos"]
    finished(*EXTRACT, place=tmp_path)
    assert len(records(tmp_path / "f.h5")) == 40
    finished(*MATCH, place=tmp_path)
