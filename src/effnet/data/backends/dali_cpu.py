"""Any data source or packed sets through DALI on the CPU."""

from effnet.data.backends.form import Backend
from effnet.data.batch import DataSource
from effnet.data.request import DataRequest


def _open(request: DataRequest) -> DataSource:
    from effnet.data.dali import open_dali  # an optional package, slow to import

    return open_dali("cpu", request)


BACKEND = Backend("dali-cpu", "Any data source or packed sets, prepared by NVIDIA DALI on the CPU", _open)
