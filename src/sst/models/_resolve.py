"""Which models belong to an object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from sst import _keys
from sst._settings import logger
from sst._validate import describe_options

from ._base import CONFIG, Model
from ._load import load

if TYPE_CHECKING:
    from anndata import AnnData

_CACHE: dict[tuple[str, str], Model] = {}
_MOST = 4


def remember(adata: AnnData, name: str, folder: str | Path, *, image_model: bool = True) -> None:
    """Note in ``uns["sst"]`` where a model of this object is; an image model becomes the last one.

    Parameters
    ----------
    adata
        The object.
    name
        What to call the model (``"gan"``, ``"gan-2"``, ...); an earlier one of the name is forgotten.
    folder
        Where it was saved.
    image_model
        Whether it makes images (``model="last"`` means the last of those).
    """
    if "/" in name or not name:
        msg = f"name={name!r}: a model's name is not empty and holds no '/'."
        raise ValueError(msg)
    entry = dict(adata.uns.get(_keys.SST, {}))
    entry["models"] = dict(entry.get("models", {})) | {name: str(Path(folder).resolve())}
    if image_model:
        entry["last"] = name
    adata.uns[_keys.SST] = entry
    logger.debug("wrote .uns[%r]['models'][%r]", _keys.SST, name)


def resolve(adata: AnnData, model: str | Path | Model = "last") -> Model:
    """The model meant by ``"last"``, by a name in ``uns["sst"]["models"]``, by a folder, or by itself.

    Parameters
    ----------
    adata
        The object.
    model
        ``"last"``: the last-trained image model.

    Raises
    ------
    KeyError
        No model of this name is known, or none was trained yet.
    FileNotFoundError
        The folder that is remembered is gone.
    """
    if isinstance(model, Model):
        return model
    entry = adata.uns.get(_keys.SST, {})
    known = {str(k): str(v) for k, v in dict(entry.get("models", {})).items()}
    name = str(model)
    if name == "last":
        if "last" not in entry:
            msg = "model='last': no image model was trained on this object yet (sst.tl.train_gan, sst.tl.train_editor, sst.tl.train_inversion)."
            raise KeyError(msg)
        name = str(entry["last"])
    folder = Path(known.get(name, name))
    if not (folder / CONFIG).exists():
        if name in known:
            msg = f"model {name!r} was saved to {folder}, which is no model's folder any more. Pass model= its new folder."
            raise FileNotFoundError(msg)
        msg = f"model={name!r} is neither a model of this object nor a model's folder. {describe_options(known, name)}"
        raise KeyError(msg)
    key = (str(folder.resolve()), json.loads((folder / CONFIG).read_text())["hash"])
    if key not in _CACHE:
        while len(_CACHE) >= _MOST:
            _CACHE.pop(next(iter(_CACHE)))
        _CACHE[key] = load(folder)
    return _CACHE[key]
