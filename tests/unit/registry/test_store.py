"""The registry on a folder and on S3."""

from collections.abc import Callable

from rave_dist.records import ModelCard
from rave_dist.registry.store import find, list_models
from rave_dist.storage import Store

Publish = Callable[..., ModelCard]


def test_published_models_are_found_by_name_version_and_its_beginning(any_store: Store, publish_tiny: Publish) -> None:
    drums, bass = publish_tiny(any_store, "drums", 0), publish_tiny(any_store, "bass", 1)
    assert list_models(any_store) == [bass, drums]
    assert find(any_store, "drums") == drums
    assert find(any_store, f"drums@{drums.version}") == drums
    assert find(any_store, f"drums@{drums.version[:5]}") == drums
    assert find(any_store, "bass@latest") == bass
    assert drums.version != bass.version
    assert (drums.latents, drums.latent_size, drums.hop) == (4, 8, 512)
