from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp
from threadpoolctl import threadpool_limits

from sst import editing
from sst.editing import OT, SCM, Knockout, Mean, Moments, Quantile, Scale, SetTo, _product, _scm


def counts(n: int, p: int, seed: int, *, target: bool = False) -> np.ndarray:
    rng = np.random.default_rng(seed)
    profile = np.random.default_rng(99 + target).gamma(0.7, 2.0, (3, p))
    mix = rng.dirichlet(np.ones(3), n)
    return rng.poisson(mix @ profile * rng.gamma(3, 0.5, (n, 1))).astype(np.float64)


def second(X: np.ndarray) -> np.ndarray:
    return X.T @ X / len(X)


def relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


SOURCE, TARGET = counts(400, 40, 0), counts(300, 40, 1, target=True)


@pytest.mark.parametrize("operator", [SCM(top_k=None), OT()])
def test_second_moments_are_met(operator: editing.Operator) -> None:
    edited = operator.fit(SOURCE, TARGET).apply(SOURCE, clip=False, dtype=np.float64)
    assert relative(second(SOURCE), second(TARGET)) > 0.1
    assert relative(second(edited), second(TARGET)) < 1e-10
    assert np.abs(second(edited) / second(TARGET) - 1).max() < 1e-6


def test_centred_transport_meets_mean_and_covariance() -> None:
    edited = OT(centered=True).fit(SOURCE, TARGET).apply(SOURCE, clip=False, dtype=np.float64)
    np.testing.assert_allclose(edited.mean(0), TARGET.mean(0), rtol=1e-9)
    np.testing.assert_allclose(np.cov(edited.T, bias=True), np.cov(TARGET.T, bias=True), rtol=1e-6, atol=1e-9)


def test_nearly_singular_moments_are_met() -> None:
    rng = np.random.default_rng(3)
    scales = np.geomspace(1, 1e-5, 40)
    source, target = rng.normal(size=(500, 40)) * scales, rng.normal(size=(500, 40)) * scales[::-1]
    edited = OT().fit(source, target).apply(source, clip=False, dtype=np.float64)
    assert relative(second(edited), second(target)) < 1e-6


def test_transport_is_the_bures_map() -> None:
    ci, cj = second(SOURCE), second(TARGET)
    root = np.real(scipy.linalg.sqrtm(ci))
    inverse = np.linalg.inv(root)
    expected = inverse @ np.real(scipy.linalg.sqrtm(root @ cj @ root)) @ inverse
    np.testing.assert_allclose(editing.transport_map(ci, cj), expected, atol=1e-8)


def test_transport_displaces_least() -> None:
    least = np.square(OT().fit(SOURCE, TARGET).apply(SOURCE, clip=False, dtype=np.float64) - SOURCE).sum()
    scm = np.square(SCM(top_k=None).fit(SOURCE, TARGET).apply(SOURCE, clip=False, dtype=np.float64) - SOURCE).sum()
    assert least < scm
    ci, cj = second(SOURCE), second(TARGET)
    white, colour = np.linalg.inv(np.linalg.cholesky(ci).T), np.linalg.cholesky(cj).T
    for seed in range(20):
        turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(40, 40)))[0]
        other = SOURCE @ (white @ turn @ colour)
        assert relative(second(other), cj) < 1e-9
        assert least < np.square(other - SOURCE).sum()


def test_scm_is_the_papers_formula() -> None:
    li, oi = np.linalg.eigh(second(SOURCE))
    lj, oj = np.linalg.eigh(second(TARGET))
    oi, oj, li, lj = oi[:, ::-1], oj[:, ::-1], li[::-1], lj[::-1]
    oj = oj * np.sign(np.sum(oi * oj, axis=0))  # the orientation of least displacement
    for top_k in (0, 1, 3, None):
        scale = np.ones(40)
        k = 40 if top_k is None else top_k
        scale[:k] = np.sqrt(lj[:k] / li[:k])
        expected = SOURCE @ oi @ np.diag(scale) @ oj.T
        edited = SCM(top_k=top_k).fit(SOURCE, TARGET).apply(SOURCE, clip=False, dtype=np.float64)
        np.testing.assert_allclose(edited, expected, atol=1e-8)


def test_scm_takes_the_signs_of_least_displacement() -> None:
    best = np.square(SCM(top_k=1).fit(SOURCE, TARGET).apply(SOURCE, clip=False, dtype=np.float64) - SOURCE).sum()
    _, oi = np.linalg.eigh(second(SOURCE))
    li, lj = (np.linalg.eigvalsh(second(x))[::-1] for x in (SOURCE, TARGET))
    _, oj = np.linalg.eigh(second(TARGET))
    scale = np.ones(40)
    scale[0] = np.sqrt(lj[0] / li[0])
    for seed in range(50):
        signs = np.random.default_rng(seed).choice([-1, 1], 40)
        other = SOURCE @ (oi[:, ::-1] * scale * signs) @ oj[:, ::-1].T
        assert best <= np.square(other - SOURCE).sum() * (1 + 1e-12)


def twins(n: int, seed: int) -> np.ndarray:
    """Counts whose second moments have equal eigenvalues: gene pairs that mirror each other, and silent genes."""
    half = counts(n, 8, seed)
    a = np.hstack([half, np.zeros_like(half), np.zeros((n, 4))])
    return np.vstack([a, np.roll(a[:, :16], 8, axis=1) @ np.eye(16, 20)])


def scrambled(matrix: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Another eigendecomposition of the same matrix: random signs, random bases of equal eigenvalues."""
    rng = np.random.default_rng(seed)
    values, vectors = np.linalg.eigh(matrix)
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1].copy()
    start = 0
    for stop in range(1, len(values) + 1):
        if stop == len(values) or values[stop - 1] - values[stop] > 1e-9 * values[0]:
            turn = np.linalg.qr(rng.normal(size=(stop - start, stop - start)))[0]
            vectors[:, start:stop] = vectors[:, start:stop] @ turn
            start = stop
    return values, vectors


@pytest.mark.parametrize("top_k", [1, 2, None])
@pytest.mark.parametrize("pair", ["plain", "ties in source", "ties in both", "disjoint"])
def test_scm_ignores_signs_and_bases(pair: str, top_k: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = {
        "plain": (SOURCE, TARGET),
        "ties in source": (twins(200, 1), counts(150, 20, 5)),
        "ties in both": (twins(200, 1), twins(300, 2)),
        "disjoint": (np.eye(6)[np.r_[0, 0, 0, 1, 1, 2]] * 2, np.eye(6)[np.r_[3, 3, 3, 4, 4, 5]]),
    }[pair]
    ci, cj = second(source), second(target)
    reference = _scm.matching_map(ci, cj, top_k=top_k)
    for seed in range(6):
        monkeypatch.setattr(_scm, "eigh_descending", lambda m, s=seed: scrambled(m, s))
        np.testing.assert_allclose(_scm.matching_map(ci, cj, top_k=top_k), reference, atol=2e-6)


def test_a_full_match_holds_whatever_counts_as_a_tie() -> None:
    ci, cj = second(SOURCE), second(TARGET)
    for tie in (1e-12, 1e-3, 0.05):
        m = editing.matching_map(ci, cj, top_k=None, tie=tie)
        assert relative(m.T @ ci @ m, cj) < 1e-10
    np.testing.assert_allclose(
        editing.matching_map(ci, cj, top_k=None, tie=1.0), editing.transport_map(ci, cj), atol=1e-6
    )


@pytest.mark.parametrize("operator", [SCM(), SCM(top_k=None), OT(), OT(centered=True), Mean(), Quantile()])
def test_order_of_cells_and_threads_do_not_matter(operator: editing.Operator) -> None:
    rng = np.random.default_rng(0)
    with threadpool_limits(1):
        reference = operator.fit(SOURCE, TARGET).apply(SOURCE)
    with threadpool_limits(2):
        shuffled = operator.fit(SOURCE[rng.permutation(400)], TARGET[rng.permutation(300)]).apply(SOURCE)
    np.testing.assert_allclose(shuffled, reference, atol=2e-5)


def test_leading_eigenvectors_do_not_flip_everything_to_zero() -> None:
    edited = SCM().fit(SOURCE, TARGET).apply(SOURCE)
    assert edited.sum() > 0.5 * TARGET.sum() * len(SOURCE) / len(TARGET)


def test_moments_are_exact_and_stream() -> None:
    X = sp.csr_matrix(SOURCE)
    whole = Moments.of(SOURCE)
    np.testing.assert_array_equal(whole.products, SOURCE.T @ SOURCE)
    for batch_size in (1, 7, 400):
        part = Moments.of(X, batch_size=batch_size)
        np.testing.assert_array_equal(part.products, whole.products)
        np.testing.assert_array_equal(part.total, whole.total)
    both = Moments.of(X[:100]) + Moments.of(X[100:])
    np.testing.assert_array_equal(both.products, whole.products)
    big = SOURCE * 1000  # too large for float32: float64 is used
    np.testing.assert_array_equal(Moments.of(big).products, big.T @ big)
    np.testing.assert_allclose(Moments.of(SOURCE / 3).second, second(SOURCE / 3), rtol=1e-12)


def test_mean_modes() -> None:
    for mode in ("shift", "scale", "standardize"):
        edited = Mean(mode=mode).fit(SOURCE, TARGET).apply(SOURCE, clip=False, dtype=np.float64)
        np.testing.assert_allclose(edited.mean(0), TARGET.mean(0), rtol=1e-9)
    np.testing.assert_allclose(edited.std(0), TARGET.std(0), rtol=1e-9)
    with pytest.raises(ValueError, match="mode='median'"):
        Mean(mode="median")


def test_quantile_matches_distributions() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(5, 1, (500, 2)), rng.gamma(2, 3, (500, 2))
    edited = Quantile().fit(a, b).apply(a, dtype=np.float64)
    np.testing.assert_allclose(np.sort(edited, axis=0), np.sort(b, axis=0), rtol=1e-6)  # same sizes, no ties: exact
    np.testing.assert_array_equal(np.argsort(edited, axis=0), np.argsort(a, axis=0))
    discrete = Quantile().fit(sp.csr_matrix(SOURCE), sp.csr_matrix(TARGET)).apply(SOURCE, dtype=np.float64)
    np.testing.assert_allclose(discrete.mean(0), TARGET.mean(0), rtol=1e-9)
    # slow, obvious reference for one gene: the mean of the target's sorted values over the tie's quantiles
    u = (np.arange(60000) + 0.5) / 60000
    source, target = np.sort(SOURCE[:, 0])[(u * 400).astype(int)], np.sort(TARGET[:, 0])[(u * 300).astype(int)]
    for v in np.unique(SOURCE[:, 0]):
        np.testing.assert_allclose(discrete[SOURCE[:, 0] == v, 0][0], target[source == v].mean(), atol=1e-3)


def test_quantile_outside_what_was_seen() -> None:
    fitted = Quantile().fit(np.array([[0.0], [1.0], [3.0]]), np.array([[2.0], [4.0], [8.0]]))
    np.testing.assert_allclose(fitted.apply(np.array([[0.0], [2.0], [3.0], [5.0]])).ravel(), [2, 6, 8, 10])


@pytest.mark.parametrize("form", ["dense", "csr", "csc", "csr_array", "dask", "dask_csr", "int"])
@pytest.mark.parametrize("genes", [None, [3], [30, 4, 11], list(range(25))])
@pytest.mark.parametrize("operator", [SCM(), OT(centered=True), Quantile()])
def test_all_forms_give_the_same(form: str, genes: list[int] | None, operator: editing.Operator) -> None:
    fitted = operator.fit(SOURCE, TARGET)
    full = np.maximum(fitted.apply(SOURCE, clip=False, dtype=np.float64), 0)
    expected = SOURCE.copy()
    chosen = slice(None) if genes is None else genes
    expected[:, chosen] = full[:, chosen]
    X = {
        "dense": lambda: SOURCE,
        "csr": lambda: sp.csr_matrix(SOURCE),
        "csc": lambda: sp.csc_matrix(SOURCE),
        "csr_array": lambda: sp.csr_array(SOURCE),
        "dask": lambda: da.from_array(SOURCE, chunks=(150, 13)),
        "dask_csr": lambda: da.from_array(sp.csr_matrix(SOURCE), chunks=(150, 40)),
        "int": lambda: sp.csr_matrix(SOURCE.astype(np.int32)),
    }[form]()
    edited = fitted.apply(X, genes=genes, batch_size=64)
    if form.startswith("dask"):
        assert isinstance(edited, da.Array)
        assert edited.dtype == np.float32
        edited = edited.compute()
    if form in {"csr", "csc", "csr_array", "int", "dask_csr"}:
        assert edited.format == "csr"
        assert edited.has_sorted_indices
        assert edited.nnz == edited.count_nonzero()
        edited = edited.toarray()
    assert edited.dtype == np.float32
    np.testing.assert_allclose(edited, expected, atol=1e-4)
    if genes is not None:
        others = np.setdiff1d(np.arange(40), genes)
        np.testing.assert_array_equal(edited[:, others], SOURCE[:, others].astype(np.float32))


def test_strength_is_a_straight_path() -> None:
    fitted = OT().fit(SOURCE, TARGET)
    full = fitted.apply(SOURCE, dtype=np.float64)
    np.testing.assert_array_equal(fitted.apply(SOURCE, strength=0.0, dtype=np.float64), SOURCE)
    half = fitted.apply(SOURCE, strength=0.5, dtype=np.float64)
    np.testing.assert_allclose(half, (SOURCE + full) / 2)
    assert fitted.apply(SOURCE, strength=2.0).min() >= 0


def test_cells_without_an_edit_keep_their_values() -> None:
    fitted = [OT().fit(SOURCE, TARGET), Knockout()]
    assign = np.tile([0, -1, 1, -1], 100)
    for X in (SOURCE, sp.csr_matrix(SOURCE), da.from_array(SOURCE, chunks=(90, 40))):
        out = editing.apply(X, fitted, assign, genes=[1, 2], batch_size=33)
        out = out.compute() if hasattr(out, "compute") else out
        out = out.toarray() if sp.issparse(out) else out
        np.testing.assert_array_equal(out[assign == -1], SOURCE[assign == -1].astype(np.float32))
        assert (out[assign == 1][:, [1, 2]] == 0).all()
        np.testing.assert_allclose(out[assign == 0], fitted[0].apply(SOURCE[assign == 0], genes=[1, 2]), atol=1e-5)


def test_stats_count_what_was_clipped_and_moved() -> None:
    fitted = SCM().fit(SOURCE, TARGET)
    raw = fitted.apply(SOURCE, clip=False, dtype=np.float64)
    edited, stats = fitted.apply_with_stats(SOURCE, dtype=np.float64, batch_size=50)
    summary = stats.summary()
    assert summary["n_cells"] == 400
    np.testing.assert_allclose(summary["clipped_share"], (raw < 0).mean())
    np.testing.assert_allclose(summary["clipped_mass"], -raw[raw < 0].sum() / 400)
    np.testing.assert_allclose(summary["displacement_rms"], np.sqrt(np.square(edited - SOURCE).sum(1).mean()))
    np.testing.assert_allclose(stats.total_after, edited.sum(0))
    np.testing.assert_allclose(stats.total_before, SOURCE.sum(0))


def test_input_is_left_alone() -> None:
    for X in (SOURCE.astype(np.float32), sp.csr_matrix(SOURCE.astype(np.float32))):
        before = X.copy()
        for operator in (SCM(), Knockout(), Scale(1.0), editing.FromLayer(X)):
            for genes in (None, [2, 5]):
                out = operator.fit(SOURCE, TARGET).apply(X, genes=genes)
                if sp.issparse(out):
                    out.data += 1
                else:
                    out += 1
        assert (before != X).sum() == 0


def test_prescribed_edits() -> None:
    X = sp.csr_matrix(SOURCE)
    assert Knockout().apply(X, genes=[4])[:, [4]].nnz == 0
    assert (SetTo(7).apply(X, genes=[4])[:, [4]].toarray() == 7).all()
    np.testing.assert_array_equal(Scale(3).apply(X, genes=[4]).toarray()[:, 4], SOURCE[:, 4] * 3)
    factor = np.arange(40.0)
    np.testing.assert_array_equal(Scale(factor).apply(SOURCE, genes=[4, 9])[:, 9], SOURCE[:, 9] * 9)
    for bad in (-1.0, np.nan):
        with pytest.raises(ValueError, match=r"finite numbers >= 0"):
            SetTo(bad)


def test_another_methods_counterfactual() -> None:
    theirs = counts(400, 40, 8)
    for matrix in (theirs, sp.csr_matrix(theirs)):
        out = editing.FromLayer(matrix).apply(SOURCE, genes=[0, 3], batch_size=33)
        np.testing.assert_array_equal(out[:, [0, 3]], theirs[:, [0, 3]].astype(np.float32))
        np.testing.assert_array_equal(out[:, 1], SOURCE[:, 1].astype(np.float32))
    theirs[3, 3] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        editing.FromLayer(theirs).apply(SOURCE)


def test_errors_name_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="source has 1 cell: at least 2"):
        SCM().fit(SOURCE[:1], TARGET)
    with pytest.raises(ValueError, match="target has 0 cells"):
        Quantile().fit(SOURCE, TARGET[:0])
    with pytest.raises(ValueError, match="source has 40 genes, target 39"):
        OT().fit(SOURCE, TARGET[:, :39])
    with pytest.raises(ValueError, match="top_k=-1"):
        SCM(top_k=-1)
    with pytest.raises(ValueError, match=r"method='smc' is not known.*'scm'"):
        editing.get_operator("smc")
    with pytest.raises(TypeError, match="method=3"):
        editing.get_operator(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs value="):
        editing.get_operator("set")
    with pytest.raises(ValueError, match="genes"):
        SCM().fit(SOURCE, TARGET).apply(SOURCE, genes=[40])
    bad = SOURCE.copy()
    bad[0, 2], bad[1, 3] = np.nan, -1
    for X in (bad, sp.csr_matrix(bad)):
        with pytest.raises(ValueError, match=r"NaN or infinite values in \['g2'\]"):
            editing.check_counts(X, [f"g{i}" for i in range(40)])
    with pytest.raises(ValueError, match=r"negative values in \['column 3'\]"):
        editing.check_counts(bad[1:])


def test_silent_genes_are_no_trouble() -> None:
    source, target = SOURCE.copy(), TARGET.copy()
    source[:, 5] = 0
    target[:, 7] = 0
    for operator in (SCM(), SCM(top_k=None), OT(), OT(centered=True), Mean(mode="scale"), Quantile()):
        edited = operator.fit(source, target).apply(source)
        assert np.isfinite(edited).all()
    # 39 directions hold cells, so the target's 40th cannot be reached, and nothing blows up
    edited = OT().fit(source, TARGET).apply(source, clip=False, dtype=np.float64)
    assert relative(second(edited), second(TARGET)) < 0.1


def test_gene_sets(tmp_path) -> None:
    names = ["A", "B", "C", "D"]
    gmt = tmp_path / "sets.gmt"
    gmt.write_text("one\tnote\tA\tZ\ntwo\t\tB\tC\n")
    assert editing.read_gmt(gmt) == {"one": ["A", "Z"], "two": ["B", "C"]}
    assert editing.resolve_genes(gmt, names) == ["A", "B", "C"]
    assert editing.resolve_genes(f"{gmt}:two", names) == ["B", "C"]
    assert editing.resolve_genes("D", names) == ["D"]
    assert editing.resolve_genes({"x": ["C", "A"], "y": ["A"]}, names) == ["C", "A"]
    assert editing.resolve_genes(None, names) is None
    with pytest.raises(KeyError, match="'three'"):
        editing.resolve_genes(f"{gmt}:three", names)
    with pytest.raises(KeyError, match="'Q'"):
        editing.resolve_genes(["A", "Q"], names)
    with pytest.raises(KeyError, match="set 'x'"):
        editing.resolve_genes({"x": ["Q"]}, names)
    gmt.write_text("one\n")
    with pytest.raises(ValueError, match="line 1"):
        editing.read_gmt(gmt)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tiled_product(dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    X = sp.random(700, 33, density=0.2, format="csr", random_state=0, dtype=dtype)
    X[5] = 0
    X.eliminate_zeros()
    for k in (1, 7, 256, 300, 512):
        matrix = rng.normal(size=(33, k))
        tiles = _product.tiles_of(matrix, dtype)
        results = []
        for threads in (1, 3):
            monkeypatch.setattr(_product, "_threads", lambda n=threads: n)
            results.append(_product.sparse_product(X, tiles, k))
        np.testing.assert_array_equal(*results)  # not a bit differs
        np.testing.assert_allclose(results[0], X.toarray() @ matrix, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(_product.sparse_product(X[100:101], tiles, k), results[0][100:101])


def test_sparse_counts_with_few_entries_give_the_same() -> None:
    few = SOURCE * (np.random.default_rng(0).random(SOURCE.shape) < 0.15)
    assert (few > 0).mean() < _product.SPARSE_BELOW
    fitted = OT(centered=True).fit(few, TARGET)
    for genes in (None, [3, 8]):
        np.testing.assert_allclose(
            fitted.apply(sp.csr_matrix(few), genes=genes).toarray(), fitted.apply(few, genes=genes), atol=1e-4
        )


@pytest.mark.parametrize("genes", [None, [3, 7, 20]])
@pytest.mark.parametrize("order", ["dense first", "sparse first", "empty first"])
def test_csr_result_grows_as_needed(genes: list[int] | None, order: str) -> None:
    """Blocks much fuller or emptier than the first: the same as the blocks, and no room left over."""
    X = SOURCE[:200].copy()
    X[:100] *= np.random.default_rng(5).random((100, 40)) < 0.1
    X = {"dense first": X[::-1], "sparse first": X, "empty first": np.vstack([np.zeros((20, 40)), X])}[order]
    fitted = [OT().fit(SOURCE, TARGET)]
    blocks = [block for _, block in editing.stream(sp.csr_matrix(X), fitted, genes=genes, batch_size=7)]
    got = editing.apply(sp.csr_matrix(X), fitted, genes=genes, batch_size=7)
    assert isinstance(got, sp.csr_matrix)
    expected = sp.vstack(blocks).toarray()
    assert got.nnz == len(got.data) == len(got.indices) == np.count_nonzero(expected)
    assert got.data.base is None  # nothing left over behind it
    assert got.indices.dtype == got.indptr.dtype == np.int32
    assert got.has_canonical_format
    got.check_format(full_check=True)
    np.testing.assert_array_equal(got.toarray(), expected)
    np.testing.assert_allclose(got.toarray(), editing.apply(X, fitted, genes=genes), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("genes", [None, [3, 7, 20]])
@pytest.mark.parametrize("form", ["csr", "csr_array", "dask"])
def test_dense_result_of_sparse_counts(genes: list[int] | None, form: str) -> None:
    fitted = [OT().fit(SOURCE, TARGET)]
    kind = sp.csr_array if form == "csr_array" else sp.csr_matrix
    X = kind(SOURCE)
    whole = editing.apply(X, fitted, genes=genes)
    assert isinstance(whole, kind)
    given = da.from_array(SOURCE, chunks=(150, 40)).map_blocks(sp.csr_matrix) if form == "dask" else X
    got = editing.apply(given, fitted, genes=genes, batch_size=64, sparse_out=False)
    got = got.compute() if form == "dask" else got
    assert isinstance(got, np.ndarray)
    np.testing.assert_allclose(got, whole.toarray(), rtol=1e-5, atol=1e-4)
    assert editing.apply(X[:0], fitted, sparse_out=False).shape == (0, 40)
