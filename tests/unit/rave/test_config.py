from __future__ import annotations

import subprocess
import sys

import pytest

from rave_dist.errors import ConfigurationError
from rave_dist.rave.config import configure as config_of
from rave_dist.rave.models import build_model, use_streaming
from rave_dist.rave.overrides import full_key, override_line, statements

SMALL = {"CAPACITY": 4, "LATENT_SIZE": 6}


def configure(*names: str, override: dict[str, object] | None = None, sample_rate: int = 44100) -> str:
    return config_of(names, SMALL if override is None else override, sample_rate=sample_rate, channels=1)


def test_names_are_listed_without_importing_rave_or_torch() -> None:
    code = (
        "import sys; from rave_dist.rave.config import configurations; from rave_dist.rave.imports import install_repairs;"
        "install_repairs(); names = configurations();"
        "assert {'v1', 'v2_small', 'causal', 'v2_tiny'} <= set(names), names;"
        "assert not {'rave', 'gin', 'torch', 'torchaudio'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.slow
def test_a_fresh_process_can_build_from_the_text_alone() -> None:
    text = configure("v2_small", "causal", override={"CAPACITY": 4, "RATIOS": [4, 2, 2, 2]}, sample_rate=22050)
    code = (
        "import sys; from rave_dist.rave.models import build_model; m = build_model(sys.stdin.read(), channels=1);"
        "pads = {c._pad for c in m.encoder.modules() if hasattr(c, '_pad')};"
        "assert pads and all(right == 0 for _, right in pads), pads;"
        "assert m.sr == 22050 and m.n_channels == 1 and m.weights['feature_matching'] == 20"
    )
    subprocess.run([sys.executable, "-c", code], input=text, text=True, check=True, timeout=300)


def test_the_text_is_a_fixed_point() -> None:
    text = configure("v1")
    assert "CAPACITY = 4" in text
    assert "n_channels = 1" in text
    assert configure("v1") == text


def test_models_of_two_configurations_do_not_touch_each_other() -> None:
    v1 = build_model(configure("v1"), channels=1)
    weights, matching, beta = dict(v1.weights), v1.feature_matching_fun.keywords, v1.beta_warmup
    other = build_model(configure("v2_small", "wasserstein"), channels=1)
    assert (v1.weights, v1.feature_matching_fun.keywords, v1.beta_warmup) == (weights, matching, beta)
    assert v1.weights["feature_matching"] == 10
    assert other.weights["adversarial"] == 2
    assert "relative" not in matching
    assert other.feature_matching_fun.keywords["relative"] is True
    assert other.beta_warmup.target == 100
    again = build_model(configure("v1"), channels=1)
    assert again.weights == v1.weights


def test_a_variant_is_a_stock_configuration_with_values_that_an_override_may_replace() -> None:
    values = statements(configure("v2_tiny", override={"LATENT_SIZE": 5}))
    assert (values["CAPACITY"], values["LATENT_SIZE"], values["RATIOS"]) == ("8", "5", "[4, 2, 2, 2]")


def test_the_configuration_of_a_stranger_folder_is_not_read(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "v1.gin").write_text("CAPACITY = 'not RAVE'")
    monkeypatch.chdir(tmp_path)
    assert statements(configure("v2_small", override={}))["CAPACITY"] == "48"


@pytest.mark.parametrize(
    ("config", "override", "what", "fix"),
    [
        (("v2smal",), {}, "no configuration 'v2smal'", "'v2_small'"),
        (("causal",), {}, "only modifies", "[v2, causal]"),
        ((), {}, "no configuration is named", "v2_small"),
        (("v2_small",), {"CAPACTIY": 4}, "'CAPACTIY'", "'CAPACITY'"),
        (("v2_small",), {"GeneratorV2.capacityy": 4}, "capacityy", "capacity"),
        (("v2_small",), {"blocks.Nonsense.size": 4}, "Nonsense", ""),
        (("v2_small",), {"CAPACITY": "much"}, "is a string, RAVE's own value is a whole number", "CAPACITY: 48"),
        (("v2_small",), {"CAPACITY": 4.5}, "is a number, RAVE's own value is a whole number", "CAPACITY: 48"),
        (("v2_small",), {"CAPACITY": "%LATENT_SIZES"}, "'LATENT_SIZES', which is not set", "'LATENT_SIZE'"),
        (("v2_small",), {"RATIOS": 4}, "RAVE's own value is a list of whole numbers", "RATIOS: [4, 2, 2, 2]"),
        (("v2_small",), {"RATIOS": [4, "2"]}, "a list of various things", "RATIOS: [4, 2, 2, 2]"),
        (("v2_small",), {"DILATIONS": [1, 3]}, "RAVE's own value is a list of lists", "[[1, 3, 9]"),
        (("v2_small",), {"GeneratorV2.capacity": 4.5}, "RAVE's own value is a whole number", "capacity"),
        (("v2_small",), {"RAVE.valid_signal_crop": 1}, "RAVE's own value is true or false", "True"),
        (("v2_small",), {"RAVE.audio_monitor_epochs": 1.5}, "RAVE's own value is a whole number", ": 1"),
        (("v2_small",), {"RAVE.input_mode": 3}, "RAVE's own value is a string", "pqmf"),
        (("v2_small",), {"RAVE.weights": 3}, "RAVE's own value is a mapping", "feature_matching"),
        (("v2_small",), {"RAVE.encoder": 3}, "RAVE's own value is a reference", "@blocks."),
        (("v2_small",), {"CombineDiscriminators.discriminators": ["@nothing.Here"]}, "not understood", ""),
        (("v2_small",), {"CombineDiscriminators.discriminators": ["A"]}, "a list of references", "@discriminator."),
        (("v2_small",), {"CAPACITY": True}, "true or false", ""),
        (("v2_small",), {"SAMPLING_RATE": 48000}, "SAMPLING_RATE", "sample_rate"),
        (("v2_small",), {"rave.RAVE.n_channels": 2}, "n_channels", "channels"),
        (("v2_small",), {"CAPACITY": "@blocks.Snake"}, "is a reference", "CAPACITY: 48"),
    ],
)
def test_what_cannot_be_is_refused_with_what_was_meant(
    config: tuple[str, ...], override: dict[str, object], what: str, fix: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        configure(*config, override=override)
    assert what in caught.value.what
    assert fix in caught.value.fix


@pytest.mark.parametrize(
    ("config", "key", "value", "written"),
    [
        (("v1",), "core.AudioDistanceV1.log_epsilon", 0.001, "0.001"),  # RAVE writes 1 where it means any number
        (("v1",), "core.AudioDistanceV1.log_epsilon", "1e-3", "0.001"),
        (("v2", "wasserstein"), "BetaWarmupCallback.target_value", 0.5, "0.5"),
        (("v2_small",), "RAVE.warmup_quantize", None, "None"),
        (("v2_small",), "RAVE.audio_monitor_epochs", 2, "2"),
        (("v2_small",), "CAPACITY", "%LATENT_SIZE", "%LATENT_SIZE"),
        (("v2_small",), "EncoderV2.activation", "@blocks.Snake", "@blocks.Snake"),
        (
            ("v2_small",),
            "CombineDiscriminators.discriminators",
            ["@discriminator.MultiScaleDiscriminator"],
            "[@MultiScaleDiscriminator]",
        ),
    ],
)
def test_what_fits_is_taken(config: tuple[str, ...], key: str, value: object, written: str) -> None:
    known = statements(config_of(config, {}, sample_rate=44100, channels=1))
    values = statements(config_of(config, {key: value}, sample_rate=44100, channels=1))
    assert values[full_key(key, known)].replace("discriminator.", "") == written


def test_values_that_fit_no_model_are_an_error_of_the_configuration() -> None:
    text = configure("v2_small", override={"CAPACITY": 0})
    with pytest.raises(ConfigurationError, match="cannot build"):
        build_model(text, channels=1)
    with pytest.raises(ConfigurationError, match="not a RAVE configuration"):
        build_model("import nothing_of_this_name", channels=1)
    build_model(configure("v2_small"), channels=1)


def test_bindings_go_by_the_names_that_rave_files_use() -> None:
    known = {"model.RAVE.weights": "{}", "periods/discriminator.ConvNet.kernel_size": "(5, 1)", "CAPACITY": "4", "RATE": "0.5"}
    assert full_key("rave.RAVE.weights", known) == "model.RAVE.weights"
    assert full_key("RAVE.num_skipped_features", known) == "model.RAVE.num_skipped_features"
    assert override_line("periods/ConvNet.kernel_size", [3, 1], known) == "periods/discriminator.ConvNet.kernel_size = [3, 1]"
    assert override_line("CAPACITY", "8", known) == "CAPACITY = 8"
    assert override_line("RATE", "1e-6", known) == "RATE = 1e-06"
    with pytest.raises(ConfigurationError):
        override_line("ConvNet.kernel_size", 3, known)


def test_streaming_convolutions_remember() -> None:
    text = configure("v2_small")
    use_streaming(True)
    try:
        remembering = build_model(text, channels=1)
    finally:
        use_streaming(False)
    forgetting = build_model(text, channels=1)
    kinds = [{type(module).__name__ for module in model.modules()} for model in (remembering, forgetting)]
    assert "CachedConv1d" in kinds[0]
    assert "CachedConv1d" not in kinds[1]
