"""Which models belong to an object."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sst import _keys
from sst._files import current
from sst._settings import logger, settings
from sst._validate import describe_options

from ._base import Model, is_ours, own
from ._folder import CONFIG, ModelFolder
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
    entry["models"] = {k: str(v) for k, v in named_folders(adata).items()} | {name: str(own(folder))}
    if image_model:
        entry["last"] = name
    adata.uns[_keys.SST] = entry
    logger.debug("wrote .uns[%r]['models'][%r]", _keys.SST, name)


def resolve(adata: AnnData, model: str | Path | Model = "last", *, recorded: bool = False) -> Model:
    """The model meant by ``"last"``, by a name in ``uns["sst"]["models"]``, by a folder, or by itself.

    A name means what the object says of it. An object read from a file says what its writer wanted, so that a folder it names is
    only opened if it was trained, saved or loaded in this session, or lies inside :attr:`sst.settings.model_dir`.

    Parameters
    ----------
    adata
        The object.
    model
        ``"last"``: the last-trained image model.
    recorded
        ``model`` comes from the object as well, not from the user.

    Raises
    ------
    KeyError
        No model of this name is known, or none was trained yet.
    ValueError
        The object names a folder that nobody else named.
    FileNotFoundError
        The folder that is remembered is gone.
    """
    if isinstance(model, Model):
        return model
    known = named_folders(adata)
    name = str(model)
    if name == "last":
        last = adata.uns.get(_keys.SST, {}).get("last")
        if last is None:
            msg = "model='last': no image model was trained on this object yet (sst.tl.train_gan, sst.tl.train_inversion)."
            raise KeyError(msg)
        name = str(last)
        recorded = True
    folder = known.get(name, Path(name))
    if (recorded or name in known) and not is_ours(folder):
        msg = (
            f"the object names the folder {str(folder)!r} for its model {name!r}, but it was neither trained nor loaded in this session nor "
            f"lies in sst.settings.model_dir ({str(settings.model_dir)!r}). What a file says is not opened unasked: if you trust it, pass "
            f"model={str(folder)!r}."
        )
        raise ValueError(msg)
    if not current(folder, CONFIG).exists():
        if name in known:
            msg = f"model {name!r} was saved to {folder}, which is no model's folder any more. Pass model= its new folder."
            raise FileNotFoundError(msg)
        msg = f"model={model!r} is neither a model of this object nor a model's folder. {describe_options(known, name)}"
        raise KeyError(msg)
    key = (str(folder.resolve()), ModelFolder.open(folder).sealed())
    if key not in _CACHE:
        while len(_CACHE) >= _MOST:
            _CACHE.pop(next(iter(_CACHE)))
        _CACHE[key] = load(folder)
    return _CACHE[key]


def named_folders(adata: AnnData) -> dict[str, Path]:
    """The folders that ``uns["sst"]["models"]`` names, by model.

    Raises
    ------
    ValueError
        It is no dictionary.
    """
    entry = adata.uns.get(_keys.SST, {})
    models = entry.get("models", {}) if hasattr(entry, "get") else entry
    if not hasattr(models, "items"):
        msg = f"uns[{_keys.SST!r}] does not hold what this package writes: expected {{'models': {{name: folder}}}}, got {entry!r}."
        raise ValueError(msg)
    return {str(name): Path(str(folder)) for name, folder in models.items()}


def own_models(adata: AnnData) -> dict[str, str]:
    """The kind of each model of an object, by name, in the order they were trained; folders that only a file names are left out."""
    kinds = {}
    for name, folder in named_folders(adata).items():
        if not is_ours(folder):
            logger.warning(
                "the object names the folder %r for its model %r, which nobody opened in this session: left out.",
                str(folder),
                name,
            )
        elif current(folder, CONFIG).is_file():
            kinds[name] = ModelFolder.open(folder).kind
    return kinds
