"""The registry on a folder and on S3: finding and fetching."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rave_dist.errors import ModelNotFoundError, StoreError
from rave_dist.identity import hash_file
from rave_dist.records import ExportRecord, ModelCard, ModelFolder, Rollback, RunFolder, RunResult
from rave_dist.registry.publications import announce, versions
from rave_dist.registry.publish import place
from rave_dist.registry.store import fetch, find, find_all, list_models, model_version
from rave_dist.storage.store import Store

Publish = Callable[..., ModelCard]


def test_models_are_found_by_name_version_and_its_beginning(any_store: Store, publish_tiny: Publish) -> None:
    drums, bass = publish_tiny(any_store, "drums", 0), publish_tiny(any_store, "bass", 1)
    assert list_models(any_store) == [bass, drums]
    assert find(any_store, "drums") == drums
    assert find(any_store, f"drums@{drums.version}") == drums
    assert find(any_store, f"drums@{drums.version[:5]}") == drums
    assert find(any_store, "bass@latest") == bass
    assert drums.version != bass.version
    assert (drums.latents, drums.latent_size, drums.hop) == (4, 8, 512)


def test_a_card_says_of_a_cut_run_that_it_was_cut_and_whose_weights_it_has(local_store: Store, tiny_model: Any) -> None:
    exported = ExportRecord.model_validate_json((tiny_model.out / "export.json").read_bytes())
    result = RunResult.model_validate_json((tiny_model.run / "result.json").read_bytes())
    rollback = Rollback(step=3, what="a loss is NaN or infinite", rate=0.5)
    changes = {"complete": False, "step": 8, "best_step": 7, "rollbacks": (rollback,), "accumulation_steps": 2}
    cut = result.model_copy(update=changes)
    version = model_version(RunFolder(tiny_model.run))
    place(local_store, tiny_model.spec, cut, exported, tiny_model.out, version=version, seconds=60.0)
    card = find(local_store, tiny_model.spec.instrument)
    assert (card.complete, card.step, card.best_step, card.steps) == (False, 8, 7, 10)
    assert card.rollbacks == (rollback,)
    assert card.accumulation_steps == 2
    assert card.summary(local_store.uri)["complete"] is False


def test_a_misspelt_name_gets_the_nearest_one(local_store: Store, publish_tiny: Publish) -> None:
    with pytest.raises(ModelNotFoundError) as nothing:
        find(local_store, "drums")
    assert nothing.value.fix == "train and publish one first"
    publish_tiny(local_store, "drums", 0)
    with pytest.raises(ModelNotFoundError, match="no model is called 'drum'") as near:
        find(local_store, "drum")
    assert near.value.fix == "did you mean 'drums'?"
    with pytest.raises(ModelNotFoundError) as far:
        find(local_store, "trumpet")
    assert far.value.fix == "one of: drums"


@pytest.mark.parametrize("reference", ["", "../datasets", "a/b", "drums@", "drums@xyz", "drums@../x", "@", "drums@@1"])
def test_what_is_no_reference_is_refused(reference: str, local_store: Store, publish_tiny: Publish) -> None:
    publish_tiny(local_store, "drums")
    with pytest.raises(ModelNotFoundError):
        find(local_store, reference)


def test_the_beginning_of_a_version_must_say_which(local_store: Store, publish_tiny: Publish) -> None:
    card = publish_tiny(local_store, "drums")
    for version in ("abc000000000", "abc111111111"):
        other = card.model_copy(update={"version": version})
        local_store.write_json(f"models/drums/{version}/card.json", other.to_json())
    with pytest.raises(ModelNotFoundError, match="2 versions of drums begin with 'abc'"):
        find(local_store, "drums@abc")
    assert find(local_store, "drums@abc1").version == "abc111111111"
    with pytest.raises(ModelNotFoundError, match="no versions of drums begin with 'f00'"):
        find(local_store, "drums@f00")


def test_a_model_whose_order_of_publications_was_lost_is_its_newest(local_store: Store, publish_tiny: Publish) -> None:
    card = publish_tiny(local_store, "drums")
    local_store.delete_folder("models/drums/publications")
    assert find(local_store, "drums") == card


def test_all_models_are_the_latest_version_of_each_as_found_by_name(local_store: Store, publish_tiny: Publish) -> None:
    for name, number in (("drums", 0), ("bass", 1), ("drums", 2), ("drums", 3), ("drums", 0)):
        publish_tiny(local_store, name, number)
    announce(local_store, "drums", "0" * 12)  # its publisher died before it wrote the card
    everything = find_all(local_store, None)
    assert everything == [find(local_store, "bass"), find(local_store, "drums")] == find_all(local_store, ["bass", "drums"])
    for entry in local_store.list(ModelFolder.publications("drums")):
        local_store.delete(entry.key)
    assert find_all(local_store, None)[1] == find(local_store, "drums")


def test_concurrent_publishers_get_one_number_each(any_store: Store) -> None:
    taken: dict[str, int] = {}

    def take(version: str) -> None:
        taken[version] = announce(any_store, "drums", version)

    threads = [threading.Thread(target=take, args=(f"{number:012x}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken.values()) == list(range(1, 9))
    assert list(versions(any_store, "drums")) == sorted(taken, key=lambda version: -taken[version])


def test_a_fetched_file_is_kept_checked_and_mended(any_store: Store, publish_tiny: Publish, tmp_path: Path) -> None:
    card = publish_tiny(any_store, "drums")
    offline = fetch(any_store, card, folder=tmp_path / "cache")
    streaming = fetch(any_store, card, "streaming", folder=tmp_path / "cache")
    assert hash_file(offline) == card.files["offline"].sha256
    assert hash_file(streaming) == card.files["streaming"].sha256
    first = offline.stat().st_mtime_ns
    assert fetch(any_store, card, folder=tmp_path / "cache") == offline
    assert offline.stat().st_mtime_ns == first
    offline.write_bytes(offline.read_bytes()[:-1])
    assert hash_file(fetch(any_store, card, folder=tmp_path / "cache")) == card.files["offline"].sha256
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_file_that_is_not_what_was_published_is_refused(local_store: Store, publish_tiny: Publish, tmp_path: Path) -> None:
    card = publish_tiny(local_store, "drums")
    local_store.write_bytes(card.files["offline"].key, b"something else")
    with pytest.raises(StoreError, match="sha256"):
        fetch(local_store, card, folder=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_many_fetch_at_once(any_store: Store, publish_tiny: Publish, tmp_path: Path) -> None:
    card = publish_tiny(any_store, "drums")
    paths: list[Any] = []

    def work() -> None:
        paths.append(fetch(any_store, card, folder=tmp_path / "cache"))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(paths) == 8
    assert len(set(paths)) == len(list((tmp_path / "cache").iterdir())) == 1
