import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mri_jax.models import CNNSpec
from mri_jax.models.spec import ATTENTION, hidden_units

FAMILY = {
    "cnn5": (8, 16, 32, 64, 128),
    "cnn7": (8, 16, 32, 64, 64, 128, 128),
    "cnn10": (8, 8, 16, 16, 32, 32, 64, 64, 128, 128),
    "cnn12": (8, 8, 16, 16, 32, 32, 64, 64, 64, 128, 128, 128),
}


@pytest.mark.parametrize(("name", "filters"), FAMILY.items())
def test_presets_are_the_papers_family(name, filters):
    spec = CNNSpec.preset(name)
    assert spec.conv_filters == filters
    assert sum(spec.pool_after) == 5
    # A pool follows the last conv layer of each run of equal width.
    ends = [i + 1 == len(filters) or filters[i] != filters[i + 1] for i in range(len(filters))]
    assert list(spec.pool_after) == ends


@pytest.mark.parametrize(
    ("width", "filters"),
    [(4.0, (32, 64, 128, 256, 512)), (0.01, (1, 1, 1, 1, 1)), (0.3, (2, 5, 10, 19, 38))],
)
def test_width_multiplies_conv_filters_and_leaves_the_fc_layers(width, filters):
    spec = CNNSpec.preset("cnn5", width=width)
    assert spec.conv_filters == filters
    assert spec.fc == (128, 64)


def test_a_spec_is_hashable_and_names_its_layers():
    spec = CNNSpec(repetitions=[1, 2, 1], filters=[64, 64, 64], classes=3)
    assert spec == CNNSpec(repetitions=(1, 2, 1), filters=(64, 64, 64), classes=3)
    assert len({spec, CNNSpec.preset("cnn5")}) == 2
    assert spec.layer_names[:4] == ("conv1", "bn1", "conv2", "bn2")
    assert spec.layer_names[-3:] == ("fc1", "fc2", "fc3")


def test_gates_stand_after_the_last_two_blocks_unless_said():
    assert CNNSpec().attention_blocks == ()
    assert CNNSpec(attention="se") == CNNSpec(attention="se", attention_blocks=(4, 5))
    assert CNNSpec((1,), (8,), attention="map").attention_blocks == (1,)
    deep = CNNSpec.preset("cnn7", attention="spatial")
    assert deep.gate_after == ("", "", "", "", "att4", "", "att5")
    assert deep.layer_names[8:15] == ("conv5", "bn5", "att4", "conv6", "bn6", "conv7", "bn7")
    first = CNNSpec(attention="cbam", attention_blocks=[1])
    assert first.of_conv(1) == ("conv1", "bn1", "att1")
    assert first.of_conv(5) == ("conv5", "bn5")


def test_gates_of_channels_go_through_few_units_but_not_one():
    assert [hidden_units(channels) for channels in (128, 64, 16, 512)] == [8, 4, 4, 32]


def test_a_residual_block_runs_as_a_whole():
    spec = CNNSpec((2, 1, 2), (1, 8, 8), residual=True)
    assert spec.stretches == ((1, 2), (3, 3), (4, 5))
    assert spec.projection_after == ("", "", "proj2", "", "")
    assert spec.conv_pools == (False,) * 5
    assert spec.of_conv(3) == ("conv3", "bn3", "proj2")
    plain = CNNSpec((2, 1, 2), (1, 8, 8))
    assert plain.stretches == tuple((i, i) for i in range(1, 6))
    assert plain.conv_pools == plain.pool_after


def test_groups_are_of_eight_channels_or_of_what_divides_them():
    spec = CNNSpec(norm="group")
    assert [spec.norm_group(n) for n in (8, 16, 128, 12, 38, 17, 1)] == [8, 8, 8, 6, 2, 1, 1]
    assert CNNSpec().norm_group(8) is None
    assert spec.norm_names == ("norm1", "norm2", "norm3", "norm4", "norm5")


@given(
    residual=st.booleans(),
    attention=st.sampled_from(ATTENTION),
    blocks=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 256)), min_size=1, max_size=6),
    width=st.floats(0.01, 16),
    fc=st.lists(st.integers(1, 512), max_size=3),
    rate=st.floats(0, 0.99),
)
def test_json_round_trip(residual, attention, blocks, width, fc, rate):
    spec = CNNSpec(
        repetitions=tuple(b[0] for b in blocks),
        filters=tuple(b[1] for b in blocks),
        width=width,
        fc=tuple(fc),
        dropout=(rate,) * (len(fc) + 1),
        attention=attention,
        residual=residual,
    )
    assert CNNSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    assert min(spec.conv_filters) >= 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": float("nan")}, "width: nan must be a finite number"),
        ({"width": 0.0}, "width: 0.0 must be a positive number"),
        ({"filters": (8, 16)}, "filters: .* one entry for each block"),
        ({"filters": (8, 16, 0, 64, 128)}, "filters: 0 must be an integer of at least 1"),
        ({"filters": (8, 16, 2.5, 64, 128)}, "filters: 2.5 must be an integer"),
        ({"filters": "abcde"}, "filters: 'abcde' must be a sequence"),
        ({"repetitions": (), "filters": ()}, "repetitions: .* at least one block"),
        ({"dropout": (0.5, 1.0, 0.0)}, r"dropout: .* rates in \[0, 1\)"),
        ({"dropout": (0.5,)}, "dropout: .* one rate for each FC layer"),
        ({"epsilon": 0.0}, "epsilon: 0.0 must be a positive number"),
        ({"momentum": 1.0}, r"momentum: 1.0 must be a number in \[0, 1\)"),
        ({"classes": 1}, "classes: 1 must be an integer of at least 2"),
        ({"dtype": "float16"}, "dtype: 'float16' must be one of"),
        ({"norm": "layer"}, "norm: 'layer' must be one of"),
        ({"residual": 1}, "residual: 1 must be True or False"),
        ({"attention": "self"}, "attention: 'self' must be one of"),
        ({"attention_blocks": (4,)}, r"attention_blocks: \(4,\) must be \(\) where attention is"),
        (
            {"attention": "se", "attention_blocks": (5, 4)},
            "must be rising numbers of blocks, 1 to 5",
        ),
        (
            {"attention": "se", "attention_blocks": (5, 5)},
            "must be rising numbers of blocks, 1 to 5",
        ),
        ({"attention": "se", "attention_blocks": (6,)}, "must be rising numbers of blocks, 1 to 5"),
        ({"form": "native"}, "'form' is not a field"),
        ({"widht": 2.0}, "'widht' is not a field"),
    ],
)
def test_a_wrong_value_is_named_with_its_rule(changes, message):
    with pytest.raises(ValueError, match=message):
        CNNSpec.preset("cnn5", **changes)


def test_a_spec_of_an_earlier_version_is_read_where_it_means_the_same():
    spec = CNNSpec.preset("cnn7", width=2.0)
    assert CNNSpec.from_dict({**spec.to_dict(), "in_channels": 1}) == spec
    with pytest.raises(ValueError, match="spec: in_channels must be 1"):
        CNNSpec.from_dict({**spec.to_dict(), "in_channels": 2})
    for form in ("fast", "native", "reference"):
        assert CNNSpec.from_dict({**spec.to_dict(), "form": form}) == spec
    with pytest.raises(ValueError, match="spec: form must be 'fast' or 'native' or 'reference'"):
        CNNSpec.from_dict({**spec.to_dict(), "form": "quick"})


def test_an_unknown_preset_is_named():
    with pytest.raises(ValueError, match="preset: 'cnn6' must be one of"):
        CNNSpec.preset("cnn6")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 32, 32, 32), r"shape \(1, 32, 32, 32\) must be \(N, X, Y, Z, 1\)"),
        ((1, 32, 32, 32, 2), r"shape \(1, 32, 32, 32, 2\) must be \(N, X, Y, Z, 1\)"),
        ((1, 32, 31, 40, 1), "at least 32 voxels along every axis for 5 poolings"),
    ],
)
def test_a_wrong_input_is_named_with_its_rule(shape, message):
    with pytest.raises(ValueError, match=message):
        CNNSpec.preset("cnn5").check_input(shape)
