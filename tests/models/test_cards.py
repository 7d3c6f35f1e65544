"""Model cards: what must be on them, what strange names do to them, and cards of older versions."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from contracts.declarations import Declarations
from contracts.errors import ArtifactRefused
from contracts.policy import Policy
from models.card_page import METRIC_WORDS, card_page
from models.training import train

NOW = datetime(2026, 6, 1, tzinfo=UTC)
HOSTILE = "<img src=x onerror=alert(1)> $\\frac{ \u8a9e"


class Page(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, risk_policy: Policy, declarations: Declarations, risk: pd.DataFrame
) -> Path:
    """A model whose segments and sources have the worst of names."""
    rows = risk.assign(origin=risk["origin"].replace("JFK", HOSTILE))
    source = {"source": HOSTILE, "kind": "shipment", "state": "available", "rows": 3, "reasons": "late & <b>wrong</b>"}
    out = tmp_path_factory.mktemp("card") / "model"
    train(risk_policy, rows, declarations, now=NOW, out=out, sources=[source])
    return out


def test_a_card_says_who_what_for_and_what_is_asked(folder: Path, risk_policy: Policy) -> None:
    """Owner and how to reach them, hypothesis, metric, segments, data, limits, every threshold of the gate."""
    card, words = json.loads((folder / "card.json").read_text()), Page(card_page(folder)).words
    owner, business = risk_policy.owner, risk_policy.business
    for text in (owner.team, *owner.notify, business.hypothesis, business.metric):
        assert text in words
    assert [line["name"] for line in card["gates"]] == [
        "rows",
        "leakage audit",
        "beat incumbent",
        "beat champion",
        "segment origin",
        "calibration",
    ]
    assert f"ECE at most {risk_policy.gate.calibration.ece_max:g}" in words
    assert "brier more than 2.0% better than the rule rolling_late_rate (bound at 95%)" in words
    assert "brier not more than 2.0% worse than the champion" in words
    assert "late & <b>wrong</b>" in words
    assert card["provenance"]["policy"] in words
    assert all(METRIC_WORDS[name] in words for name in ("brier", "log_loss", "auc", "ece"))


def test_a_page_is_whole_and_safe(folder: Path) -> None:
    """Names from data are text, never tags; figures lie in the page; nothing is loaded from elsewhere."""
    text = (folder / "card.html").read_text(encoding="utf-8")
    page = Page(text)
    assert HOSTILE in page.words
    assert page.tags.count("img") == len(list(folder.glob("figure_*.png"))) == 3
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert page.words.count("<b>wrong</b>") == 1
    assert not re.search(r'(src|href)="(?!data:image/png;base64,)', text)
    assert card_page(folder) == text


def test_a_card_of_0_1_0_is_still_shown(folder: Path, tmp_path: Path) -> None:
    """Without gates, data and sources, with the figure's old name; and without a card there is a clear refusal."""
    old = {
        "format": 1,
        "model": "late_delivery",
        "kind": "risk",
        "purpose": "Hypothesis: fewer expedited shipments.",
        "business_metric": "expedite spend",
        "owner": "inbound",
        "summary": "brier 0.1 against 0.2 of the rule rolling_late_rate: 50.0% less loss, on 9 rows.",
        "calibration": {"ece": 0.01},
        "importance": {"hour": 1.0},
        "limits": ["0 rows could not be scored because model or rule had no history."],
        "provenance": {"policy": "p" * 64},
    }
    (tmp_path / "card.json").write_text(json.dumps(old))
    (tmp_path / "evaluation.json").write_bytes((folder / "evaluation.json").read_bytes())
    (tmp_path / "figure_calibration.png").write_bytes((folder / "figure_reliability.png").read_bytes())
    page = Page(card_page(tmp_path))
    assert "50.0% less loss" in page.words
    assert "What the gate asks" not in page.words
    assert page.tags.count("img") == 1
    (tmp_path / "card.json").unlink()
    with pytest.raises(ArtifactRefused, match="card cannot be read"):
        card_page(tmp_path)
