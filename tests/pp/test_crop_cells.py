"""Paired crops of any SpatialData, against brute force."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import spatialdata as sd
from spatialdata.models import Image2DModel, Labels2DModel, PointsModel, ShapesModel, TableModel
from spatialdata.transformations import Affine, Identity, Sequence, Translation, get_transformation

import sst
from sst.io.crops import _cut

GENES = [f"g{i}" for i in range(12)]


def make_points(rng, n, width, height, to_points=None, **more):
    px = np.c_[rng.uniform(0, width, n), rng.uniform(0, height, n)]
    xy = px if to_points is None else px @ to_points[:2, :2].T + to_points[:2, 2]
    frame = pd.DataFrame({
        "x": xy[:, 0],
        "y": xy[:, 1],
        "gene": pd.Categorical(rng.choice([*GENES, "NegPrb1"], n)),
        "qv": rng.uniform(0, 40, n),
        "cell_id": rng.choice(["c1", "UNASSIGNED", "c2"], n),
    })  # fmt: skip
    return frame.assign(**more)


def make_slide(seed=0, *, height=500, width=620, cells=90, n=6000, chunks=(1, 200, 200)):
    """One image; points in um, scaled and moved; all in a system of which the image begins at (100, 50)."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 4000, (3, height, width)).astype(np.uint16)
    um = np.array([[0.25, 0, 3.0], [0, 0.25, -2.0], [0, 0, 1]])  # px -> um
    moved = np.array([[1.0, 0, 100], [0, 1.0, 50], [0, 0, 1]])  # px -> global
    points = make_points(rng, n, width, height, um)
    axes = ("x", "y")
    obs = pd.DataFrame(
        {
            "x_px": rng.uniform(0, width, cells),
            "y_px": rng.uniform(0, height, cells),
            "kind": rng.choice(["a", "b"], cells),
        },
        index=[f"cell{i}" for i in range(cells)],
    )
    table = ad.AnnData(rng.poisson(1.0, (cells, 12)).astype(np.float32), obs=obs, var=pd.DataFrame(index=GENES))
    return sd.SpatialData(
        images={
            "morphology": Image2DModel.parse(
                image,
                dims=("c", "y", "x"),
                c_coords=["A", "B", "DAPI"],
                chunks=chunks,
                transformations={"global": Translation([100, 50], axes)},
            )
        },
        points={
            "tx": PointsModel.parse(
                points,
                feature_key="gene",
                transformations={"global": Affine(moved @ np.linalg.inv(um), input_axes=axes, output_axes=axes)},
            )
        },
        tables={"table": table},
    )


def points_in_px(sdata):
    points = sdata.points["tx"].compute()
    to_global = get_transformation(sdata.points["tx"]).to_affine_matrix(("x", "y"), ("x", "y"))
    xy = points[["x", "y"]].to_numpy() @ to_global[:2, :2].T + to_global[:2, 2] - (100, 50)
    return points, xy


def check_counts(adata, points, xy, size, keep=True):
    good = (points["qv"].to_numpy() >= 20) & keep
    gene = points["gene"].astype(str).map({g: i for i, g in enumerate(GENES)}).fillna(-1).to_numpy(int)
    for i in range(adata.n_obs):
        x0, y0 = np.floor(adata.obsm["spatial_px"][i]).astype(int) - size // 2
        inside = (xy[:, 0] >= x0) & (xy[:, 0] < x0 + size) & (xy[:, 1] >= y0) & (xy[:, 1] < y0 + size)
        expected = np.bincount(gene[inside & good & (gene >= 0)], minlength=12)
        np.testing.assert_array_equal(adata.X[i].toarray().ravel(), expected)


def test_generic_object_equals_brute_force():
    sdata = make_slide()
    adata = sst.pp.crop_cells(sdata, size=61, output_size=61, channels=["DAPI", "A"], n_workers=2)
    image = np.asarray(sdata.images["morphology"].data)[[2, 0]]
    points, xy = points_in_px(sdata)
    table = sdata.tables["table"]
    low = np.floor(table.obs[["x_px", "y_px"]].to_numpy()).astype(int) - 30
    whole = ((low >= 0) & (low + 61 <= (620, 500))).all(axis=1)
    assert list(adata.obs_names) == list(table.obs_names[whole])  # the table's order
    for i, (x, y) in enumerate(low[whole]):
        np.testing.assert_array_equal(adata.obsm["crops"][i], image[:, y : y + 61, x : x + 61])
    check_counts(adata, points, xy, 61)
    np.testing.assert_array_equal(adata.layers["segmented"].toarray(), table.X[whole])
    np.testing.assert_allclose(adata.obsm["spatial"], adata.obsm["spatial_px"] + (100, 50))
    assert adata.obsm["crops"].dtype == np.uint16
    assert adata.X.dtype == np.int32
    assert adata.obs["kind"].tolist() == table.obs["kind"][whole].tolist()
    about = adata.uns["crops"]
    assert about["channels"] == ["DAPI", "A"]
    assert about["size"] == about["output_size"] == 61
    report = about["report"]
    assert report["kept"] == whole.sum()
    assert report["dropped_outside_image"] == (~whole).sum()
    assert report["transcripts"] == 6000
    reasons = ("used", "low_quality", "other_targets", "unassigned")
    assert sum(report[f"transcripts_{r}"] for r in reasons) == 6000


def test_squares_are_added_with_the_images_transformation():
    sdata = make_slide()
    adata = sst.pp.crop_cells(sdata, size=60, output_size=32)
    squares = sdata.shapes["cell_crops"]
    np.testing.assert_allclose(squares.geometry.area, 3600)
    np.testing.assert_array_equal(squares.bounds[["minx", "miny"]], np.floor(adata.obsm["spatial_px"]) - 30)
    assert list(squares.index) == list(adata.obs_names)
    moved = sd.transform(squares, to_coordinate_system="global")
    np.testing.assert_array_equal(moved.bounds["minx"], squares.bounds["minx"] + 100)


def test_small_tiles_give_the_same(monkeypatch):
    """Cells cut tile by tile (many tiles, transcripts on disk) equal those cut at once."""
    from sst.io.crops import _spool

    once = sst.pp.crop_cells(make_slide(), size=60, output_size=48)
    grids = _spool.make_grids
    monkeypatch.setattr(_spool.make_grids, "__defaults__", (100,))
    monkeypatch.setattr(_spool, "_IN_MEMORY", 1000)
    sdata = make_slide(chunks=(1, 100, 100))
    frames = [type("F", (), {"height": 500, "width": 620, "image": sdata.images["morphology"].data})()]
    assert grids(frames, 60, 100)[0].columns == 7
    tiled = sst.pp.crop_cells(sdata, size=60, output_size=48, n_workers=3)
    assert (once.X != tiled.X).nnz == 0
    np.testing.assert_array_equal(once.obsm["crops"], tiled.obsm["crops"])


def test_pad_keeps_the_edges():
    sdata = make_slide()
    adata = sst.pp.crop_cells(sdata, size=60, output_size=60, pad=True)
    assert adata.n_obs == 90
    image = np.pad(np.asarray(sdata.images["morphology"].data), ((0, 0), (60, 60), (60, 60)))
    low = np.floor(adata.obsm["spatial_px"]).astype(int) + 30
    for i, (x, y) in enumerate(low):
        np.testing.assert_array_equal(adata.obsm["crops"][i], image[:, y : y + 60, x : x + 60])
    points, xy = points_in_px(sdata)
    check_counts(adata, points, xy, 60)


def test_border_leaves_out_the_low_edges():
    adata = sst.pp.crop_cells(make_slide(), size=40, output_size=40, border=100)
    assert (np.floor(adata.obsm["spatial_px"]) - 20 >= 100).all()
    assert adata.obsm["spatial_px"][:, 0].max() > 520
    assert adata.uns["crops"]["report"]["dropped_border"] > 0


def test_cells_outside_the_transcripts_are_left_out():
    sdata = make_slide()
    points, xy = points_in_px(sdata)
    half = points[xy[:, 0] < 320].reset_index(drop=True)
    del sdata.points["tx"]
    whole = make_slide().points["tx"]
    sdata.points["tx"] = PointsModel.parse(
        half, feature_key="gene", transformations=get_transformation(whole, get_all=True)
    )
    adata = sst.pp.crop_cells(sdata, size=60, output_size=60)
    assert (np.floor(adata.obsm["spatial_px"][:, 0]) + 30 <= 320).all()
    assert adata.uns["crops"]["report"]["dropped_outside_transcripts"] > 10


def test_assigned_only_and_quality():
    sdata = make_slide()
    adata = sst.pp.crop_cells(sdata, size=60, output_size=30, assigned_only=True)
    points, xy = points_in_px(sdata)
    check_counts(adata, points, xy, 60, keep=(points["cell_id"] != "UNASSIGNED").to_numpy())
    every = sst.pp.crop_cells(make_slide(), size=60, output_size=30, min_qv=0)
    assert every.X.sum() > adata.X.sum() * 2


def test_cell_expression_needs_no_points():
    sdata = make_slide()
    del sdata.points["tx"]
    adata = sst.pp.crop_cells(sdata, size=60, output_size=30, expression="cell")
    assert (adata.layers["segmented"] != adata.X).nnz == 0
    with pytest.raises(KeyError, match="no points"):
        sst.pp.crop_cells(sdata, size=60)


def test_fields_of_view():
    """An image, points and a transformation per FOV (y flipped in the global system)."""
    rng = np.random.default_rng(1)
    images, points, obs = {}, {}, []
    for k, fov in enumerate(["F001", "F002", "F003"]):
        to_global = Sequence([
            Affine(np.array([[1.0, 0, 0], [0, -1, 300], [0, 0, 1]]), input_axes=("x", "y"), output_axes=("x", "y")),
            Translation([400 * k, 0], ("x", "y")),
        ])  # fmt: skip
        image = rng.integers(0, 900, (2, 300, 320)).astype(np.uint16)
        images[f"{fov}_image"] = Image2DModel.parse(
            image, dims=("c", "y", "x"), c_coords=["M", "D"], transformations={"global": to_global}
        )
        if k < 2:
            points[f"{fov}_points"] = PointsModel.parse(
                make_points(rng, 3000, 320, 300), feature_key="gene", transformations={"global": to_global}
            )
        for _ in range(20):
            obs.append({"fov": fov, "cell_id": len(obs), "x_px": rng.uniform(0, 320), "y_px": rng.uniform(0, 300)})
    frame = pd.DataFrame(obs).sample(frac=1, random_state=0).reset_index(drop=True)
    frame.index = [f"c{i}" for i in frame.index]
    table = ad.AnnData(rng.poisson(1, (60, 12)).astype(np.float32), obs=frame, var=pd.DataFrame(index=GENES))
    sdata = sd.SpatialData(images=images, points=points, tables={"table": table}, attrs={"sst": {"pixel_size": 0.12}})
    adata = sst.pp.crop_cells(sdata, size=50, output_size=40)
    assert set(adata.obs["fov"]) == {"F001", "F002"}
    assert adata.uns["crops"]["report"]["dropped_outside_transcripts"] > 5  # the FOV without transcripts
    assert adata.uns["crops"]["pixel_size"] == pytest.approx(0.15)
    assert list(adata.obs_names) == [n for n in table.obs_names if n in set(adata.obs_names)]
    for fov in ("F001", "F002"):
        part = adata[adata.obs["fov"] == fov]
        here = points[f"{fov}_points"].compute()
        check_counts(part, here, here[["x", "y"]].to_numpy(), 50)
    offset = (adata.obs["fov"] == "F002").to_numpy() * 400
    np.testing.assert_allclose(adata.obsm["spatial"][:, 0], adata.obsm["spatial_px"][:, 0] + offset)
    np.testing.assert_allclose(adata.obsm["spatial"][:, 1], 300 - adata.obsm["spatial_px"][:, 1])
    middle = sdata.shapes["cell_crops"].geometry.centroid
    assert np.abs(np.c_[middle.x, middle.y] - adata.obsm["spatial"]).max() <= 1


def test_centres_from_shapes_labels_and_nuclei():
    sdata = make_slide(cells=3)
    table = sdata.tables["table"]
    labels = np.zeros((500, 620), np.uint32)
    for i, (x, y) in enumerate([(100, 200), (300, 150), (450, 301)], start=1):
        labels[y - 10 : y + 10, x - 20 : x + 20] = i
    move = {"global": Translation([100, 50], ("x", "y"))}
    sdata.labels["cells"] = Labels2DModel.parse(labels, dims=("y", "x"), transformations=move, chunks=(90, 110))
    expected = np.array([[100, 200], [300, 150], [450, 301]], float)
    table.obs = table.obs.drop(columns=["x_px", "y_px"])
    with pytest.raises(KeyError, match="centres were not found"):
        sst.pp.crop_cells(sdata, size=20)
    table.obs["region"] = pd.Categorical(["cells"] * 3)
    table.obs["id"] = [1, 2, 3]
    sdata.tables["table"] = TableModel.parse(table, region="cells", region_key="region", instance_key="id")
    adata = sst.pp.crop_cells(sdata, size=20, output_size=20)
    np.testing.assert_allclose(adata.obsm["spatial_px"], expected)

    import shapely

    square = shapely.box(*(expected + (97, 47)).T, *(expected + (103, 53)).T)
    import geopandas as gpd

    shapes = gpd.GeoDataFrame(geometry=square[:2], index=[1, 2])  # in the global system; the third has no nucleus
    sdata.shapes["nucleus_boundaries"] = ShapesModel.parse(shapes, transformations={"global": Identity()})
    moved = sst.pp.crop_cells(sdata, size=20, output_size=20)
    np.testing.assert_allclose(moved.obsm["spatial_px"], expected)
    assert "nucleus" in moved.uns["crops"]["params"]["centres"]
    assert "labels" in sst.pp.crop_cells(sdata, size=20, center="cell").uns["crops"]["params"]["centres"]


def test_multiscale_images_are_cut_at_full_resolution():
    sdata = make_slide()
    flat = sst.pp.crop_cells(sdata, size=60, output_size=30)
    image = sdata.images["morphology"]
    sdata.images["morphology"] = Image2DModel.parse(
        image.data,
        dims=("c", "y", "x"),
        c_coords=["A", "B", "DAPI"],
        scale_factors=[2],
        transformations=get_transformation(image, get_all=True),
    )
    np.testing.assert_array_equal(sst.pp.crop_cells(sdata, size=60, output_size=30).obsm["crops"], flat.obsm["crops"])


def test_errors_name_what_is_there():
    sdata = make_slide()
    with pytest.raises(KeyError, match=r"'DAPY'.*DAPI"):
        sst.pp.crop_cells(sdata, size=60, channels=["DAPY"])
    with pytest.raises(KeyError, match="morphology"):
        sst.pp.crop_cells(sdata, size=60, image="dapi")
    with pytest.raises(KeyError, match="'tx'"):
        sst.pp.crop_cells(sdata, size=60, points="nothing")
    with pytest.raises(ValueError, match="nucleus"):
        sst.pp.crop_cells(sdata, size=60, center="middle")
    with pytest.raises(ValueError, match="no cell is left"):
        sst.pp.crop_cells(sdata, size=700)
    with pytest.raises(KeyError, match="no transformation to 'other'"):
        sst.pp.crop_cells(sdata, size=60, coordinate_system="other")
    sdata.tables["table"].var_names = [f"x{i}" for i in range(12)]
    with pytest.raises(ValueError, match="no transcript names a gene"):
        sst.pp.crop_cells(sdata, size=60)


def test_store_equals_memory_and_reads_as_zarr(tmp_path):
    memory = sst.pp.crop_cells(make_slide(), size=60, output_size=32)
    path = tmp_path / "slide.zarr"
    stored = sst.pp.crop_cells(make_slide(), size=60, output_size=32, store=path)
    for other in (stored, sst.io.open_store(path), ad.read_zarr(path)):
        crops = other.obsm["crops"]
        np.testing.assert_array_equal(np.asarray(crops), memory.obsm["crops"])
        assert (other.X != memory.X).nnz == 0
        assert (other.layers["segmented"] != memory.layers["segmented"]).nnz == 0
        assert list(other.obs_names) == list(memory.obs_names)
        np.testing.assert_array_equal(other.obsm["spatial_px"], memory.obsm["spatial_px"])
    assert hasattr(stored.obsm["crops"], "dask")
    assert set(stored.obs["sample"]) == {"slide"}
    assert not (tmp_path / "slide.zarr.partial").exists()
    with pytest.raises(FileExistsError, match="overwrite"):
        sst.pp.crop_cells(make_slide(), size=60, output_size=32, store=path)
    again = sst.pp.crop_cells(make_slide(), size=50, output_size=32, store=path, overwrite=True)
    assert again.uns["crops"]["size"] == 50


def test_interrupted_store_says_so_and_resumes(tmp_path, monkeypatch):
    from sst.io.crops import _spool

    monkeypatch.setattr(_spool.make_grids, "__defaults__", (100,))
    memory = sst.pp.crop_cells(make_slide(), size=60, output_size=32)
    path = tmp_path / "slide.zarr"
    real, calls = _cut.FileSink.complete, []

    def failing(self, number, counts):
        if len(calls) == 4:
            msg = "power cut"
            raise RuntimeError(msg)
        calls.append(number)
        real(self, number, counts)

    with monkeypatch.context() as patch:
        patch.setattr(_cut.FileSink, "complete", failing)
        with pytest.raises(RuntimeError, match="power cut"):
            sst.pp.crop_cells(make_slide(), size=60, output_size=32, store=path, n_workers=1)
    assert not path.exists()
    with pytest.raises(RuntimeError, match=r"unfinished: 4 of \d+ pieces"):
        sst.io.open_store(path)
    with pytest.raises(RuntimeError, match="unfinished"):
        sst.io.open_store(tmp_path / "slide.zarr.partial")
    with pytest.raises(FileExistsError, match="other cells or settings"):
        sst.pp.crop_cells(make_slide(), size=58, output_size=32, store=path)
    redone = []
    monkeypatch.setattr(
        _cut.FileSink,
        "complete",
        lambda self, number, counts: (redone.append(number), real(self, number, counts)),
    )
    adata = sst.pp.crop_cells(make_slide(), size=60, output_size=32, store=path)
    assert redone
    assert not set(redone) & set(calls)
    np.testing.assert_array_equal(np.asarray(adata.obsm["crops"]), memory.obsm["crops"])
    assert (adata.X != memory.X).nnz == 0


def test_result_survives_writing(tmp_path):
    adata = sst.pp.crop_cells(make_slide(), size=60, output_size=16)
    adata.write_h5ad(tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(back.obsm["crops"], adata.obsm["crops"])
    assert list(back.uns["crops"]["channels"]) == ["A", "B", "DAPI"]
    assert back.uns["crops"]["params"]["size"] == 60


@pytest.mark.parametrize("how", ["client", "processes"])
def test_schedulers(tmp_path, monkeypatch, how):
    """A dask.distributed client with a process of its own, or dask's process scheduler, give the same store."""
    import dask

    from sst.io.crops import _spool

    memory = sst.pp.crop_cells(make_slide(), size=60, output_size=32)
    monkeypatch.setattr(_spool.make_grids, "__defaults__", (300,))
    sdata, path = make_slide(), tmp_path / "slide.zarr"
    if how == "client":
        distributed = pytest.importorskip("distributed")
        cluster = {"n_workers": 1, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
        with distributed.LocalCluster(**cluster) as local, distributed.Client(local):
            adata = sst.pp.crop_cells(sdata, size=60, output_size=32, store=path)
    else:
        with dask.config.set(scheduler="processes"):
            adata = sst.pp.crop_cells(sdata, size=60, output_size=32, store=path, n_workers=1)
    np.testing.assert_array_equal(np.asarray(adata.obsm["crops"]), memory.obsm["crops"])
    assert (adata.X != memory.X).nnz == 0


def test_bins_without_transcripts(tmp_path):
    """Visium HD: squares annotated by the table, counts but no points; the object is written and read with its windows."""
    import geopandas as gpd
    import shapely

    sdata = make_slide(cells=80)
    del sdata.points["tx"]
    table = sdata.tables["table"]
    x, y = np.meshgrid(np.arange(10) * 60 + 20, np.arange(8) * 60 + 20)
    low = np.c_[x.ravel(), y.ravel()].astype(float) / 2  # bins in units of 2 px
    shapes = gpd.GeoDataFrame(
        geometry=shapely.box(*low.T, *(low + 8).T), index=[f"s_{i}" for i in np.random.default_rng(0).permutation(80)]
    )
    axes = ("x", "y")
    to_global = Affine(np.array([[2.0, 0, 100], [0, 2.0, 50], [0, 0, 1]]), input_axes=axes, output_axes=axes)
    sdata.shapes["square_016um"] = ShapesModel.parse(shapes, transformations={"global": to_global})
    table.obs = pd.DataFrame(
        {"region": pd.Categorical(["square_016um"] * 80), "location_id": [f"s_{i}" for i in range(80)]},
        index=table.obs_names,
    )
    sdata.tables["table"] = TableModel.parse(
        table, region="square_016um", region_key="region", instance_key="location_id"
    )
    adata = sst.pp.crop_cells(sdata, size=30, output_size=30, expression="cell")
    expected = pd.DataFrame(low * 2 + 8, index=shapes.index).loc[adata.obs["location_id"]].to_numpy()
    np.testing.assert_allclose(adata.obsm["spatial_px"], expected)
    assert adata.obs["cell_id"].tolist() == adata.obs["location_id"].tolist()
    image = np.asarray(sdata.images["morphology"].data)
    for i, (px, py) in enumerate(expected.astype(int) - 15):
        np.testing.assert_array_equal(adata.obsm["crops"][i], image[:, py : py + 30, px : px + 30])
    sdata.write(tmp_path / "s.zarr")
    back = sd.read_zarr(tmp_path / "s.zarr")
    assert back.shapes["cell_crops"].geometry.geom_equals(sdata.shapes["cell_crops"].geometry).all()
    again = sst.pp.crop_cells(back, size=30, output_size=30, expression="cell")
    np.testing.assert_array_equal(again.obsm["crops"], adata.obsm["crops"])


def test_everything_with_a_row_a_cell_is_kept(tmp_path):
    sdata = make_slide()
    table = sdata.tables["table"]
    rng = np.random.default_rng(0)
    table.obsm["X_umap"] = rng.random((90, 2))
    table.obsm["protein"] = pd.DataFrame(rng.random((90, 3)), index=table.obs_names, columns=["a", "b", "c"])
    table.layers["log"] = np.log1p(table.X)
    table.raw = table.copy()
    table.obsp["near"] = sp.csr_matrix(rng.random((90, 90)) * (rng.random((90, 90)) < 0.1))
    table.varm["loadings"] = rng.random((12, 2))
    for adata in (
        sst.pp.crop_cells(sdata, size=60, output_size=16),
        sst.pp.crop_cells(sdata, size=60, output_size=16, store=tmp_path / "s.zarr"),
        sst.io.open_store(tmp_path / "s.zarr"),
    ):
        there = table[adata.obs_names]
        np.testing.assert_array_equal(adata.obsm["X_umap"], there.obsm["X_umap"])
        np.testing.assert_array_equal(adata.obsm["protein"].to_numpy(), there.obsm["protein"].to_numpy())
        assert list(adata.obsm["protein"].columns) == ["a", "b", "c"]
        np.testing.assert_array_equal(adata.layers["log"], there.layers["log"])
        np.testing.assert_array_equal(adata.raw[:, "g3"].X.ravel(), there.raw[:, "g3"].X.ravel())
        np.testing.assert_array_equal(adata.obsp["near"].toarray(), there.obsp["near"].toarray())
        np.testing.assert_array_equal(adata.varm["loadings"], table.varm["loadings"])


def test_genes_that_no_transcript_names_are_said(caplog):
    sdata = make_slide()
    table = sdata.tables["table"]
    table.var["symbol"] = GENES
    table.var_names = [*GENES[:9], "ENSG1", "ENSG2", "ENSG3"]
    adata = sst.pp.crop_cells(sdata, size=60, output_size=16)
    assert "3 of 12 genes have counts in the table and no transcript of their name: ENSG1, ENSG2, ENSG3" in caplog.text
    assert "var['symbol'] has 3 of them" in caplog.text
    assert adata.uns["crops"]["report"]["genes_without_transcripts"] == 3
    table.var_names = [f"ENSG{i}" for i in range(12)]
    with pytest.raises(ValueError, match="no transcript names a gene.*var.'symbol'. has 12"):
        sst.pp.crop_cells(sdata, size=60)


def test_names_that_r_changed_are_said(caplog):
    sdata = make_slide()
    points = sdata.points["tx"].compute()
    points["gene"] = points["gene"].cat.rename_categories({"g0": "HLA-A"})
    whole = get_transformation(sdata.points["tx"], get_all=True)
    del sdata.points["tx"]
    sdata.points["tx"] = PointsModel.parse(points, feature_key="gene", transformations=whole)
    sdata.tables["table"].var_names = ["HLA.A", *GENES[1:]]
    sst.pp.crop_cells(sdata, size=60, output_size=16)
    assert "R has changed names: 'HLA.A' is 'HLA-A' among the transcripts" in caplog.text


def test_pixel_size_by_scale_by_attrs_and_given():
    size = {"size": 60, "output_size": 30}
    sdata = make_slide()  # transcripts in units of 4 px
    assert sst.pp.crop_cells(sdata, **size).uns["crops"]["pixel_size"] == pytest.approx(0.5)
    sdata.attrs["pixel_size"] = 0.3
    assert sst.pp.crop_cells(sdata, **size).uns["crops"]["pixel_size"] == pytest.approx(0.6)
    assert sst.pp.crop_cells(sdata, pixel_size=0.1, **size).uns["crops"]["pixel_size"] == pytest.approx(0.2)
    with pytest.raises(ValueError, match="pixel_size"):
        sst.pp.crop_cells(sdata, pixel_size=0, **size)
