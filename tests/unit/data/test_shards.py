"""Shards are plain tars that every tool can read."""

from __future__ import annotations

import io
import pickle
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from nvidia.dali import fn, pipeline_def
from PIL import Image

from melanoma_dist.data.manifest import load_dataset
from melanoma_dist.data.shards import ShardReader, ShardWriter, verify
from melanoma_dist.errors import DataError

from ..hostile import fuzz_reader
from .conftest import Raw, small


def test_the_tar_command_unpacks_a_shard(raw: Raw, out: Path, tmp_path: Path) -> None:
    reader = ShardReader(small(raw, out))
    subprocess.run(["tar", "-xf", str(out / "shard-00000.tar"), "-C", str(tmp_path)], check=True)
    assert (tmp_path / "ISIC_0000002.jpg").read_bytes() == reader.jpeg(1).tobytes()
    assert (tmp_path / "ISIC_0000002.mask.png").read_bytes() == reader.mask(1)


def test_dalis_own_reader_reads_a_shard(raw: Raw, out: Path) -> None:
    reader = ShardReader(small(raw, out))

    @pipeline_def(batch_size=4, num_threads=1, device_id=None)
    def shard():  # type: ignore[no-untyped-def]
        return fn.readers.webdataset(
            paths=[str(out / "shard-00000.tar")], ext=["jpg"], missing_component_behavior="error"
        )

    pipeline = shard()
    pipeline.build()
    (images,) = pipeline.run()
    for row in range(4):
        assert np.array_equal(np.asarray(images.at(row)), reader.jpeg(row))


def test_the_manifests_offsets_equal_those_of_any_tar_reader(raw: Raw, out: Path) -> None:
    dataset = small(raw, out)
    reader = ShardReader(dataset)
    with tarfile.open(out / "shard-00000.tar") as tar:
        members = {member.name: member for member in tar}
        assert list(members) == sorted(members)
        assert {(member.mtime, member.uid, member.uname) for member in members.values()} == {(0, 0, "")}
        for row, image in dataset.manifest.iterrows():
            member = members.pop(f"{image['image_id']}.jpg")
            assert (member.offset_data, member.size) == (image["offset"], image["length"])
            file = tar.extractfile(member)
            assert file is not None
            assert file.read() == reader.jpeg(int(str(row))).tobytes()
        assert list(members) == ["ISIC_0000002.mask.png"]
    mask = reader.mask(1)
    assert mask is not None
    assert Image.open(io.BytesIO(mask)).size == (32, 24)
    assert reader.mask(0) is None


def test_a_reader_copies_nothing_and_can_be_pickled(raw: Raw, out: Path) -> None:
    reader = ShardReader(small(raw, out))
    view = reader.jpeg(2)
    assert view.dtype == np.uint8
    assert not view.flags.owndata
    assert not view.flags.writeable
    copy = pickle.loads(pickle.dumps(reader))  # noqa: S301  # what the test pickled
    assert np.array_equal(copy.jpeg(2), view)
    assert len(copy) == 4


@pytest.mark.parametrize(
    ("kind", "spot"), [("", 0.0), ("", 0.5), ("", 1.0), ("mask_", 0.5)], ids=["start", "middle", "end", "mask"]
)
def test_corrupt_bytes_are_named(raw: Raw, out: Path, kind: str, spot: float) -> None:
    image = small(raw, out).manifest.iloc[1]
    with (out / image["shard"]).open("r+b") as file:
        file.seek(image[f"{kind}offset"] + int(spot * (image[f"{kind}length"] - 1)))
        file.write(b"\x01")
    reader = ShardReader(load_dataset(out))
    reader.jpeg(0)
    with pytest.raises(DataError, match=r"shard-00000.tar.*ISIC_0000002 are not those"):
        reader.mask(1) if kind else reader.jpeg(1)


def test_exchanged_places_are_refused(raw: Raw, out: Path) -> None:
    """The pixels of one image under the name of another are never read."""
    small(raw, out)
    table = pd.read_parquet(out / "manifest.parquet")
    table[["offset", "length"]] = table[["offset", "length"]].to_numpy()[::-1]
    table.to_parquet(out / "manifest.parquet", index=False)
    reader = ShardReader(load_dataset(out))
    for row in range(4):
        with pytest.raises(DataError, match="are not those that were prepared"):
            reader.jpeg(row)
    table["crc32"] = table["crc32"].to_numpy()[::-1]
    table.to_parquet(out / "manifest.parquet", index=False)
    with pytest.raises(DataError, match="corrupt or edited"):
        load_dataset(out)


def test_shards_split_between_images_never_within(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, limit=3000) as writer:
        places = [writer.add(f"ISIC_{number:07d}", b"x" * 700, b"mask") for number in range(5)]
    assert len({place.shard for place in places}) > 1
    for number, place in enumerate(places):
        with tarfile.open(tmp_path / place.shard) as tar:
            assert f"ISIC_{number:07d}.mask.png" in tar.getnames()
        content = (tmp_path / place.shard).read_bytes()
        assert content[place.mask_offset : place.mask_offset + place.mask_length] == b"mask"


def test_a_corrupt_shard_is_read_unchanged_or_refused(raw: Raw, out: Path) -> None:
    dataset = small(raw, out)
    shard = out / "shard-00000.tar"

    def read(data: bytes) -> None:
        shard.write_bytes(data)
        verify(dataset)

    fuzz_reader(read, shard.read_bytes(), DataError)
