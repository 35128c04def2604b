"""netCDF, made in memory: HDF5 ends the process where a disk becomes full while it writes."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray  # an extra, as h5netcdf is

COMPRESSIBLE = "biufc"  # kinds of numbers


def as_netcdf(groups: Mapping[str, xarray.Dataset], about: Mapping[str, Any]) -> bytes:
    """The contents of a netCDF file, compressed.

    Arguments:
        groups: Data sets by the names of their groups; ``""`` is the root.
        about: Further attributes of the root.

    Example:
        >>> import xarray
        >>> content = as_netcdf({"": xarray.Dataset({"a": ("x", [1.0, 2.0])})}, {"seed": 3})
        >>> xarray.load_dataset(io.BytesIO(content), engine="h5netcdf")["a"].values
        array([1., 2.])
    """
    import h5netcdf
    import xarray
    from xarray.backends import H5NetCDFStore

    buffer = io.BytesIO()
    with h5netcdf.File(buffer, "w") as file:
        if about:
            xarray.Dataset(attrs=about).dump_to_store(H5NetCDFStore(file))
        for name, group in groups.items():
            zipped = {
                variable: {"zlib": True}
                for variable, values in group.variables.items()
                if values.dtype.kind in COMPRESSIBLE
            }
            place = file.create_group(name) if name else file
            group.dump_to_store(H5NetCDFStore(place), encoding=zipped)
    return buffer.getvalue()
