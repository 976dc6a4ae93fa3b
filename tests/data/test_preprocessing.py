import json

import pytest

from effnet.data import Preprocessing
from effnet.runtime.errors import UserError


def test_survives_json() -> None:
    preprocessing = Preprocessing(224, 256, "bilinear", mean=(0.5, 0.4, 0.3))
    assert Preprocessing.from_dict(json.loads(json.dumps(preprocessing.to_dict()))) == preprocessing


@pytest.mark.parametrize(
    "values",
    [
        {"image_size": 224},
        {"image_size": 224, "resize": 223},
        {"image_size": 0, "resize": 32},
        {"image_size": "224", "resize": 256},
        {"image_size": 224, "resize": 256, "interpolation": "lanczos"},
        {"image_size": 224, "resize": 256, "crop_pct": 0.875},
    ],
)
def test_refuses_what_describes_no_input(values: dict[str, object]) -> None:
    with pytest.raises(UserError):
        Preprocessing.from_dict(values)
