"""Options are restored from JSON."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from actrelax.analysis.runs import flat
from actrelax.models.errors import ActrelaxError
from actrelax.simulations.training.configuration import as_config, as_options, changed, from_config, hash_of
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import PROTOCOLS, Experiment, Images, Model, Optimisation
from actrelax.simulations.training.relaxation import Relaxation

CONFIG = as_config(Experiment(), Execution())


def with_option(**change):
    """Return the default configuration with one option changed."""
    parts = {name: dict(CONFIG[name]) for name in ("experiment", "execution")}
    for name, value in change.items():
        parts["execution" if name in CONFIG["execution"] else "experiment"][name] = value
    return CONFIG | parts


def test_options_survive_json():
    lifts = ("layer1.0.conv1.weight-gain=none", "a.feedback=sign")
    other = Experiment(
        seed=3,
        precision="bf16",
        images=Images("mnist", augment="flip,crop", train_images=100),
        optimisation=Optimisation(lr=1, update_clip=2.5, freeze=("a", "b.weight")),
        relaxation=Relaxation(lift=lifts, start="zero", dt=0.25, noise=0.1, delay=1, feedback_transform="quantised-4"),
    )
    computed = Execution("cuda", 2, channels_last=True, data_dir=Path("some/where"), processes=1)
    for experiment in (Experiment(), other, *PROTOCOLS.values()):
        config = json.loads(json.dumps(as_config(experiment, computed)))
        assert from_config(config) == (experiment, computed)


def test_no_option_is_of_both():
    assert not as_options(Experiment()).keys() & as_options(Execution()).keys()
    assert len(flat(CONFIG)) == len(CONFIG["experiment"]) + len(CONFIG["execution"])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"colour": 1}, "the configuration has missing or unknown options: colour."),
        ({"lr": "fast"}, "the configuration has the invalid value 'fast' for lr."),
        ({"rule": "magic"}, "the configuration has the invalid value 'magic' for rule."),
        ({"epochs": 1.5}, "the configuration has the invalid value 1.5 for epochs."),
        ({"augment": None}, "the configuration has the invalid value None for augment."),
        ({"seed": [1]}, "the configuration has the invalid value [1] for seed."),
        ({"data_dir": 1}, "the configuration has the invalid value 1 for data_dir."),
        ({"epochs": True}, "the configuration has the invalid value True for epochs."),
        ({"seed": False}, "the configuration has the invalid value False for seed."),
    ],
)
def test_a_configuration_of_something_else(change, sentence):
    with pytest.raises(ActrelaxError) as refused:
        from_config(with_option(**change))
    assert str(refused.value) == sentence


def test_a_configuration_that_lacks_options():
    config = with_option()
    del config["experiment"]["lr"]
    with pytest.raises(ActrelaxError, match=r"^the configuration has missing or unknown options: lr\.$"):
        from_config(config)
    with pytest.raises(
        ActrelaxError, match=r"^the configuration has missing or unknown options: channels_last, compile"
    ):
        from_config(CONFIG | {"execution": 3})


def test_configurations_from_before_an_option_was_added():
    """Neither their hash nor the fingerprint of their options changes where they are read and written again."""
    assert not {"norm", "lift"} & CONFIG["experiment"].keys()
    assert (from_config(CONFIG)[0].model.norm, from_config(CONFIG)[0].relaxation.lift) == (None, ())
    lifted = Experiment(relaxation=Relaxation(lift=("a.feedback=sign",)))
    assert hash_of(Experiment(seed=7)) == "5f83350f79a3"
    assert len({hash_of(lifted), hash_of(Experiment())}) == 2
    given = Experiment(model=Model("resnet-8", width=4, skips="no", norm="group"))
    config = json.loads(json.dumps(as_config(given, Execution())))
    assert config["experiment"]["width"] == 4
    assert from_config(config)[0] == given
    assert hash_of(Experiment(model=Model("digits-mlp", activation="relu"), seed=3)) == "82b8a97d50fc"
    assert len({hash_of(replace(given, model=replace(given.model, norm=n))) for n in (None, "batch", "scaled")}) == 3
    with pytest.raises(ActrelaxError, match=r"^the configuration has the invalid value 'layer' for norm"):
        from_config(with_option(norm="layer"))


def test_options_are_changed_by_name():
    assert changed(Experiment(), {"lr": 0.3, "seed": 2}) == Experiment(seed=2, optimisation=Optimisation(lr=0.3))
    with pytest.raises(ActrelaxError, match=r"^an experiment has no option device\.$"):
        changed(Experiment(), {"device": "cpu"})
