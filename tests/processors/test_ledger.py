import pytest
from pydantic import ValidationError

from processors.ledger import Fates, ledger
from processors.panes import Pane
from processors.settings import ProcessorSettings
from schemas.records import TopicPartition
from schemas.tables import SCHEMAS
from schemas.units import NS_PER_S

TP = TopicPartition("otlp_spans", 3)


def test_received_is_the_sum_of_fates() -> None:
    pane = Pane(7, 35 * NS_PER_S + 1, 100, bytes=9, rejected=2, refused=4, repaired=7, lost=1)
    table = ledger(
        TP,
        pane,
        Fates(
            rejected=1,
            duplicate=5,
            kept=10,
            dropped=20,
            late=3,
            stored=10,
            repaired=2,
            redacted=6,
            aggregated=30,
            left_out=40,
            unknown=8,
        ),
    )
    assert table.schema.equals(SCHEMAS["ledger"])
    assert table.to_pylist() == [
        {
            "time": 35, "topic": "otlp_spans", "partition": 3, "pane": 7, "received": 108, "rejected": 3, "refused": 4, "duplicate": 5,
            "kept": 10, "dropped": 20, "late": 3, "stored": 10, "lost": 1, "bytes": 9, "cut": 0, "repaired": 9, "redacted": 6,
                "aggregated": 30, "left_out": 40, "unknown": 8,
        }
    ]  # fmt: skip


@pytest.mark.parametrize(
    "pane", [Pane(7, 0, 100, lost=1), Pane(7, 0, 100, refused=1), Pane(7, 0, 100, rejected=1)]
)
def test_a_pane_of_counts_only_has_a_row_and_one_of_ticks_has_none(pane: Pane) -> None:
    assert ledger(TP, pane, Fates()).num_rows == 1
    assert ledger(TP, Pane(7, 0, 100), Fates()).num_rows == 0


def test_settings_say_what_is_wrong() -> None:
    assert ProcessorSettings(pane="1s", lookback="1500ms", wait=3).lookback_panes == 4
    assert ProcessorSettings(pane="1s", lookback="9500ms").lookback_panes == 10
    with pytest.raises(ValidationError, match="pane must be at least 1ms"):
        ProcessorSettings(pane="0s")
    with pytest.raises(ValidationError, match="Extra inputs"):
        ProcessorSettings.model_validate({"panes": "1s"})
