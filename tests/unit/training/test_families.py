"""Every family is trained in 4 bits, on the shared-prefix path, and resumes bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import transformers
from packaging.version import Version

from racro_pl.policy.families import FAMILIES
from tests.helpers.families import BUILDERS, UNDESCRIBED, save_small_family
from tests.unit.training.conftest import assert_same_adapter, fit_pictures, make_module, moved

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", [*BUILDERS, *UNDESCRIBED])
def test_a_family_is_trained_in_4_bits_and_resumes_bit_for_bit(kind: str, tmp_path: Path, capsys):
    family = FAMILIES.get(kind.split("-")[0])
    if family is not None and family.transformers and Version(transformers.__version__) < Version(family.transformers):
        pytest.skip(f"{kind} needs transformers {family.transformers}")
    # Two layers with the windows of their builders would not reach from a caption back to the image.
    window = {"sliding_window": 512} if kind in ("llava_next", "mistral3") else {}
    folder = save_small_family(tmp_path / "model", kind, **window)
    policy = {"quantization": "nf4", "dtype": "bfloat16", "gradient_checkpointing": True}
    whole = make_module(folder, policy=policy)
    fit_pictures(whole, tmp_path)
    printed = capsys.readouterr().out
    assert ("the shared-prefix path is exact" in printed) == (kind in BUILDERS), printed
    assert moved(whole)
    resumed = make_module(folder, policy=policy)
    fit_pictures(resumed, tmp_path, str(tmp_path / "step=1.ckpt"))
    assert_same_adapter(resumed, whole)
