"""A parquet file that is small and unpacks to all of the memory."""

from collections import Counter

import hostile

from gptface.data.sources import read_samples


def test_a_row_of_millions_of_values_is_left_out(tmp_path):
    """
    A run of equal numbers takes no room in the file; a file of kilobytes must not cost gigabytes, nor the rest of the
    collection.
    """
    hostile.nested_parquet(tmp_path / "nested.parquet")
    hostile.repeated_parquet(tmp_path / "z.parquet", b"picture", 3)
    refused = Counter()
    assert len(list(read_samples(tmp_path, refused))) == 3
    assert refused == {"oversized member": 1}
