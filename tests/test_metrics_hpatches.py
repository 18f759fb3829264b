"""The HPatches benchmark, beside loops that follow its definitions, and through the command line."""

from __future__ import annotations

import csv
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from hardnet_match.cli import app
from hardnet_match.errors import DataError
from hardnet_match.metrics import hpatches
from hardnet_match.metrics.hpatches import NOISE, VIEWS, hpatches_figures, read_tasks

COUNTS = {"i_one": 30, "i_two": 24, "v_one": 36, "v_two": 28}
LEVEL = {"r": 0.0, "e": 0.35, "h": 0.6, "t": 0.9}


def described() -> dict[str, dict[str, NDArray[np.float32]]]:
    """Random places; the worse the frames, the more noise."""
    rng = np.random.default_rng(0)
    out: dict[str, dict[str, NDArray[np.float32]]] = {}
    for name, count in COUNTS.items():
        place = rng.normal(size=(count, 6))
        out[name] = {view: (place + LEVEL[view[0]] * rng.normal(size=place.shape)).astype(np.float32) for view in VIEWS}
    return out


def write_tasks(folder: Path, split: str = "a", sequences: tuple[str, ...] = tuple(COUNTS)) -> dict[str, list[Any]]:
    """Task files as the benchmark draws them; returns their rows."""
    rng = np.random.default_rng(1)
    folder.mkdir(exist_ok=True)

    def draw() -> tuple[str, int]:
        name = sequences[rng.integers(len(sequences))]
        return name, int(rng.integers(COUNTS[name]))

    tables: dict[str, list[Any]] = {"verif_pos": [], "verif_neg_intra": [], "verif_neg_inter": []}
    for _ in range(100):
        (name, row), (stranger, there) = draw(), draw()
        one, two = (int(i) for i in rng.choice(6, 2, replace=False))
        other = int(rng.integers(COUNTS[name]))
        tables["verif_pos"].append((name, one, row, name, two, row))
        tables["verif_neg_intra"].append(
            (name, one, row, name, two, (row + 1) % COUNTS[name] if other == row else other)
        )
        tables["verif_neg_inter"].append((name, one, row, stranger, two, there))
    tables["retr_queries"] = list(dict.fromkeys(draw() for _ in range(12)))
    tables["retr_distractors"] = list(dict.fromkeys(draw() for _ in range(80)))
    for name, rows in tables.items():
        head = "s,idx" if name.startswith("retr") else "s1,t1,idx1,s2,t2,idx2"
        lines = [head, *(",".join(map(str, row)) for row in rows)]
        (folder / f"{name}_split-{split}.csv").write_text("\n".join(lines) + "\n")
    return tables


def area(labels: list[bool], positives: int) -> float:
    points, true = [(0.0, 1.0)], 0
    for place, label in enumerate(labels, 1):
        true += label
        points.append((true / positives, true / place))
    return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(points))


def test_every_task_is_the_plain_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pools = (10, 30, 100)
    monkeypatch.setattr(hpatches, "POOLS", pools)
    sequences, tables = described(), write_tasks(tmp_path / "tasks")
    found = hpatches_figures(sequences, read_tasks(tmp_path / "tasks", "a"))

    def patch(name: str, image: int, row: int, noise: str) -> NDArray[np.float32]:
        return sequences[name]["ref" if image == 0 else f"{noise}{image}"][row]

    def gap(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
        return float(np.linalg.norm(one.astype(float) - other.astype(float)))

    for noise, title in NOISE.items():
        distances = {
            name: [gap(patch(*row[:3], noise), patch(*row[3:], noise)) for row in tables[name]]
            for name in ("verif_pos", "verif_neg_intra", "verif_neg_inter")
        }
        for kind in ("intra", "inter"):
            negative, positive = distances[f"verif_neg_{kind}"], distances["verif_pos"]
            wins = np.mean([[p < n for n in negative] for p in positive])
            assert found.verification[f"{title}/{kind}/balanced"] == pytest.approx(wins, abs=1e-3)
            ranked = sorted([(d, False) for d in negative] + [(d, True) for d in positive[:20]])
            expected = area([label for _, label in ranked], 20)
            assert found.verification[f"{title}/{kind}/imbalanced"] == pytest.approx(expected, abs=1e-3)
        by_kind: dict[str, list[float]] = {"illumination": [], "viewpoint": []}
        for name, views in sequences.items():
            values = []
            for number in range(1, 6):
                ranking = []
                for i, reference in enumerate(views["ref"]):
                    others = [gap(reference, other) for other in views[f"{noise}{number}"]]
                    ranking.append((min(others), others.index(min(others)) == i))
                values.append(area([right for _, right in sorted(ranking)], len(ranking)))
            by_kind["illumination" if name[0] == "i" else "viewpoint"].append(float(np.mean(values)))
        for kind, values in by_kind.items():
            assert found.matching[f"{title}/{kind}"] == pytest.approx(np.mean(values))
        scores = []
        for name, row in tables["retr_queries"]:
            query = sequences[name]["ref"][row]
            own = [(gap(query, sequences[name][f"{noise}{k}"][row]), True) for k in range(1, 6)]
            rest = [(gap(query, sequences[n]["ref"][r]), False) for n, r in tables["retr_distractors"] if n != name]
            scores.append([area([right for _, right in sorted(own + rest[: pool - 5])], 5) for pool in pools])
        assert found.retrieval[title] == pytest.approx(np.mean(scores))
    titles = list(NOISE.values())
    assert found.retrieval["mean"] == pytest.approx(np.mean([found.retrieval[title] for title in titles]))
    kinds = [np.mean([found.matching[f"{title}/{kind}"] for title in titles]) for kind in ("illumination", "viewpoint")]
    assert found.matching["mean"] == pytest.approx(np.mean(kinds))
    parts = [found.verification[f"{title}/{kind}/imbalanced"] for title in titles for kind in ("intra", "inter")]
    assert found.verification["mean"] == pytest.approx(np.mean(parts))
    # the noise is what tells easy from tough, and the figures are far from all and nothing
    for figures in (found.retrieval, {t: found.matching[f"{t}/viewpoint"] for t in titles}):
        assert 0.995 > figures["easy"] > figures["hard"] > figures["tough"] > 0.03


@pytest.mark.parametrize("form", ["csv", "semicolons", "npy", "txt"])
def test_the_verb_reads_what_describe_and_others_write(form: str, tmp_path: Path) -> None:
    sequences = described()
    for name, views in sequences.items():
        (tmp_path / "mine" / name).mkdir(parents=True)
        for view, rows in views.items():
            place = tmp_path / "mine" / name / view
            if form == "npy":
                np.save(place.with_suffix(".npy"), rows)
            else:
                mark = {"csv": ",", "semicolons": ";", "txt": " "}[form]
                suffix = ".txt" if form == "txt" else ".csv"
                np.savetxt(place.with_suffix(suffix), rows, fmt="%10.5f", delimiter=mark)
    write_tasks(tmp_path / "tasks", "view", ("i_one", "i_two", "v_two"))
    arguments = ["eval", "hpatches", str(tmp_path / "mine"), "--tasks", str(tmp_path / "tasks"), "--split", "view"]
    result = CliRunner().invoke(app, [*arguments, "--json", "--device", "cpu"])
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert (summary["sequences"], summary["dim"], summary["split"]) == (3, 6, "view")
    expected = hpatches_figures(
        {name: sequences[name] for name in ("i_one", "i_two", "v_two")}, read_tasks(tmp_path / "tasks", "view")
    )
    for task in ("verification", "matching", "retrieval"):
        assert summary["figures"][task]["mean"] == pytest.approx(getattr(expected, task)["mean"], abs=2e-3)
    if form == "npy":
        check_csv_and_page(arguments, tmp_path, summary)
    plain = CliRunner().invoke(app, ["eval", "hpatches", str(tmp_path / "mine")])
    assert plain.exit_code == 0
    assert "4 sequences (all there are)" in plain.stdout
    told = float(plain.stdout.partition("matching     mAP ")[2].split()[0])
    assert told == pytest.approx(100 * hpatches_figures(sequences).matching["mean"], abs=0.2)
    assert "retrieval" not in plain.stdout


def check_csv_and_page(arguments: list[str], tmp_path: Path, summary: dict[str, Any]) -> None:
    """The benchmark's own files hold the same figures."""
    places = ["--csv", str(tmp_path / "scores"), "--html", str(tmp_path / "page.html")]
    assert CliRunner().invoke(app, [*arguments, *places]).exit_code == 0
    tables = {}
    for task in ("matching", "verification", "retrieval"):
        with (tmp_path / "scores" / "mine" / f"{task}.csv").open() as file:
            tables[task] = list(csv.DictReader(file))
        assert {(row["descriptor"], row["split"]) for row in tables[task]} == {("mine", "view")}
    assert len(tables["matching"]) == 3 * 3 * 5  # sequences, noises, images
    figures = summary["figures"]
    viewpoint = [float(row["ap"]) for row in tables["matching"] if row["sequence"] == "v_two"]
    assert np.mean(viewpoint) == pytest.approx(figures["matching"]["viewpoint"], abs=1e-5)
    assert {row["ima"] for row in tables["matching"]} == {"0"}
    for row in tables["verification"]:
        area = row["roc_auc"] if row["method"] == "balanced" else row["pr_ap"]
        key = f"{row['geom_noise']}/{row['negs']}/{row['method']}"
        assert float(area) == pytest.approx(figures["verification"][key], abs=1e-5)
    assert len(tables["verification"]) == 3 * 2 * 2
    assert np.mean([float(row["map"]) for row in tables["retrieval"]]) == pytest.approx(
        figures["retrieval"]["mean"], abs=1e-5
    )
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert f"{100 * figures['verification']['mean']:.2f}" in page


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    tasks = tmp_path / "tasks"
    write_tasks(tasks)
    found = read_tasks(tasks, "a")
    with pytest.raises(DataError, match="has the splits a"):
        read_tasks(tasks, "b")
    sequences = described()
    with pytest.raises(DataError, match="i_one"):
        hpatches_figures({name: views for name, views in sequences.items() if name != "i_one"}, found)
    with pytest.raises(DataError, match="h3"):
        hpatches_figures({**sequences, "v_two": {k: v for k, v in sequences["v_two"].items() if k != "h3"}}, found)
    short = {view: rows[:5] for view, rows in sequences["v_one"].items()}
    with pytest.raises(DataError, match=r"patch \d+ of v_one"):
        hpatches_figures({**sequences, "v_one": short}, found)
    (tasks / "verif_pos_split-a.csv").write_text("s1,t1\nhello,world\n")
    with pytest.raises(DataError, match=r"verif_pos_split-a\.csv"):
        read_tasks(tasks, "a")
    for folder, text, code in (("nowhere", "no such folder", 2), ("tasks", "no HPatches sequence", 1)):
        result = CliRunner().invoke(app, ["eval", "hpatches", str(tmp_path / folder)])
        assert result.exit_code == code
        assert text in result.stderr
        assert "Traceback" not in result.output
