from __future__ import annotations

import pytest

from progressive_deepssm.stages import Schedule, Stage

STAGES = [{"name": "coarse", "share": 1, "scales": 1}, {"name": "all", "share": 2}, {"name": "decoder", "share": 1, "decoder": "true"}]


def test_shares_divide_the_run():
    schedule = Schedule(STAGES, 20)
    assert [schedule(step).stage.name for step in (0, 4, 5, 14, 15, 19, 99)] == [
        "coarse",
        "coarse",
        "all",
        "all",
        "decoder",
        *["decoder"] * 2,
    ]
    assert [schedule(step).stage.scales for step in (0, 5)] == [1, None]
    assert schedule(15).stage.decoder is True
    assert schedule(10).progress == 0.5
    assert schedule(10).stage_progress == 0.5
    assert schedule(17).stage_progress == pytest.approx(0.4)


def test_the_last_stage_begins_where_its_share_does():
    assert Schedule(STAGES, 20).last_begin() == 15
    assert Schedule(STAGES[:1], 20).last_begin() == 0


def test_learning_rate_falls_over_the_run_and_the_decoders_over_their_stage():
    schedule = Schedule(STAGES, 2000, final=0.0)
    assert schedule.learning_rate(schedule(60)) == pytest.approx(1.0)
    assert schedule.learning_rate(schedule(1500)) < 0.2
    assert schedule.learning_rate(schedule(1515), decoder=True) == pytest.approx(1.0)


@pytest.mark.parametrize("options", [{"share": 0}, {"scales": 0}, {"learn": "everything"}])
def test_arguments_out_of_range(options):
    with pytest.raises(ValueError, match="stage 'a'"):
        Stage("a", **options)


def test_no_stage():
    with pytest.raises(ValueError, match="at least one stage"):
        Schedule([])
