"""The class numbers of ImageNet's development kit: its own order, not that of the wnids. They stand in its meta.mat."""

from __future__ import annotations

from pathlib import Path

from ...common.errors import DataError, RunError

META = "meta.mat"


def wnids_by_number(path: Path) -> dict[int, str]:
    """Return {ILSVRC2012_ID: wnid} of the development kit's meta.mat.

    Raises:
        DataError: it is missing, or not that file.
        RunError: SciPy is not installed.
    """
    instead = "or name a file of wnids with DATA.VAL_SYNSETS"
    if not path.is_file():
        raise DataError(
            f"{path}: missing; the numbers of the development kit have their meaning there; copy it to that place, "
            + instead
        )
    try:
        from scipy.io import loadmat
    except ImportError:
        raise RunError(f"{path}: reading it needs SciPy; pip install scipy, {instead}") from None
    try:
        synsets = loadmat(path, squeeze_me=True, variable_names=["synsets"])["synsets"]
        return {int(number): str(wnid) for number, wnid in zip(synsets["ILSVRC2012_ID"], synsets["WNID"])}
    except Exception:  # whatever SciPy makes of a file of another kind
        raise DataError(f"{path}: not the meta.mat of ImageNet's development kit") from None
