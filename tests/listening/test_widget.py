"""The test inside a notebook, taken by setting the controls and clicking the buttons."""

import pytest

from audioldm.errors import AudioLDMError
from audioldm.listening.folder import answers_of
from audioldm.listening.report import analyse
from audioldm.listening.widget import Booth


def finish(booth):
    """Click through; the last choice, or full marks, every time."""
    while booth.controls:
        assert booth.button.disabled
        for control in booth.controls:
            control.value = control.options[-1][1] if hasattr(control, "options") else 100
        assert not booth.button.disabled
        booth.button.click()


@pytest.mark.parametrize("method", ["ab", "acr", "abx", "mushra"])
def test_a_whole_test_in_a_notebook(study, method):
    run = study(method, training=1)
    booth = Booth(run, name="me")
    finish(booth)
    assert "Thank you" in booth.box.children[0].value
    answers = [event for event in answers_of(run.test)[0] if event["event"] == "answer"]
    assert len(answers) == len(run.rater(booth.code).trials)
    assert {event["source"] for event in answers} == {"notebook"}
    assert analyse(run.test, resamples=300, keep_all=True).raters[0].name == "me"


def test_sounds_go_over_as_pcm16_files(study):
    run = study()
    booth = Booth(run)
    players = [row.children[1] for row in booth.box.children if hasattr(row, "children")]
    assert len(players) == 2
    for slot, player in enumerate(players):
        content = bytes(player.value)
        assert content == run.audio(booth.code, 0, str(slot)).read_bytes()
        assert content[:4] == b"RIFF"
        assert int.from_bytes(content[34:36], "little") == 16


def test_a_booth_goes_on_where_its_rater_stopped(study):
    run = study()
    first = Booth(run)
    first.controls[0].value = "A"
    first.button.click()
    again = Booth(run, code=first.code)
    assert run.rater(again.code).answered == 1
    with pytest.raises(AudioLDMError, match="Nothing is chosen"):
        again.submit()


def test_the_caption_is_text_not_markup(study):
    run = study()
    run.captions = dict.fromkeys(run.captions, "<script>x</script>")
    assert "<script>" not in Booth(run).box.children[0].value
