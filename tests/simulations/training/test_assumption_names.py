"""Assumptions as one word, there and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actrelax.models.assumptions import PRESETS, Assumptions, Knobs
from actrelax.models.errors import ActrelaxError
from actrelax.simulations.training.assumption_names import assumptions_named, name_of

KNOBS = st.builds(
    Knobs,
    feedback=st.sampled_from(["transpose", "learned", "kolen-pollack", "random", "sign"]),
    activity_gain=st.sampled_from(["feedforward", "current", "none"]),
    weight_gain=st.sampled_from(["feedforward", "current", "none"]),
    presynaptic=st.sampled_from(["feedforward", "current"]),
    plasticity=st.sampled_from(["equilibrium", "continuous"]),
)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_its_name(preset):
    assert assumptions_named(preset) == PRESETS[preset]
    assert assumptions_named(name_of(PRESETS[preset])) == PRESETS[preset]
    assert "," not in name_of(PRESETS[preset])


@given(st.builds(Assumptions, KNOBS, KNOBS))
def test_all_knobs_come_back(assumptions):
    assert assumptions_named(name_of(assumptions)) == assumptions


def test_changes_apply_to_one_kind():
    found = assumptions_named("no-derivatives,conv.activity-gain=current,dense.feedback=sign")
    assert found == Assumptions(
        dense=Knobs(feedback="sign", activity_gain="none", weight_gain="none"),
        conv=Knobs(activity_gain="current", weight_gain="none"),
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nix", "unknown assumptions 'nix'; known: ar, learned-feedback,"),
        ("ar,", "a change to a preset must be KIND.KNOB=VALUE, such as conv.activity-gain=none, got ''."),
        ("ar,conv", "a change to a preset must be KIND.KNOB=VALUE, such as conv.activity-gain=none, got 'conv'."),
        ("ar,conv.gain=none", "unknown knob 'gain'; known: feedback, activity-gain, weight-gain, presynaptic,"),
        ("ar,skip.feedback=sign", "unknown kind of projection 'skip'; known: dense, conv."),
        ("ar,conv.feedback=nix", "unknown feedback 'nix'; known: transpose, learned,"),
    ],
)
def test_refusals(text, said):
    with pytest.raises(ActrelaxError) as refused:
        assumptions_named(text)
    assert str(refused.value).startswith(said)


def test_lifts_change_single_projections():
    lifts = ["layer1.0.conv1.weight_gain=none", "a=>b.feedback=sign", "layer1.0.conv1.activity-gain=none"]
    found = assumptions_named("simplified-dense", lifts)
    assert found == Assumptions(
        dense=PRESETS["simplified-dense"].dense,
        projections={
            "layer1.0.conv1": {"weight_gain": "none", "activity_gain": "none"},
            "a=>b": {"feedback": "sign"},
        },
    )
    assert found.of("a=>b", "dense") == Knobs(feedback="sign", activity_gain="none", weight_gain="none")


@pytest.mark.parametrize(
    ("lift", "said"),
    [
        ("conv1", "--lift must be NAME.KNOB=VALUE, such as block.conv1.activity-gain=none, got 'conv1'."),
        (".feedback=sign", "--lift must be NAME.KNOB=VALUE, such as block.conv1.activity-gain=none, got '.feedback"),
        ("a.gain=none", "unknown knob 'gain'; known: feedback, activity-gain, weight-gain, presynaptic,"),
        ("a.feedback=nix", "unknown feedback 'nix'; known: transpose, learned,"),
    ],
)
def test_refused_lifts(lift, said):
    with pytest.raises(ActrelaxError) as refused:
        assumptions_named("ar", [lift])
    assert str(refused.value).startswith(said)
