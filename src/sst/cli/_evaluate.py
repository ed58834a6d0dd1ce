"""``python -m sst evaluate``: the paper's evaluation of trained models on a prepared object, as tables and a report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sst._settings import logger

from ._evaluate_plan import say_plan
from ._objects import read_object
from ._options import add_config
from ._plan import add_dry_run

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData

    from sst.report import Section, Verdict

_NAMES = {"frechet": "Fréchet distance", "kid": "Kernel distance (KID)"}
_SHOWN = 1000  # held-out cells of each group that the report's figures of single cells draw on


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register the subcommand."""
    parser = subparsers.add_parser(
        "evaluate",
        help="measure what edits change, with controls and floors, and write a report",
        description="{generated, reconstructed, this cell} x {chosen, all genes} x {all cells, subset}, both directions, "
        "on held-out cells. Run again with the same settings to take up where it stopped.",
    )
    add_config(parser)
    parser.add_argument("object", type=Path, help="AnnData, .zarr or .h5ad")
    parser.add_argument(
        "--model",
        type=Path,
        action="append",
        required=True,
        help="folder of an image model (GAN, editor, inversion, rival); repeat for several",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the tables, figures and report.html")
    parser.add_argument("--genes", nargs="+", metavar="GENE", help="the chosen genes (default: only the edit of all)")
    parser.add_argument("--subset", metavar="QUERY", help="the subtype, an obs query such as \"cellType == 'tumor_1'\"")
    parser.add_argument("--groupby", help="obs column of the groups (default: the model's)")
    parser.add_argument(
        "--target", help="group that all others are edited toward; to be named where there are more than two"
    )
    parser.add_argument("--method", default="ot", help="of the edit; the paper's is scm (default: %(default)s)")
    parser.add_argument(
        "--batch-key", help="obs column of the donors (slides): edits donor by donor, intervals over donors"
    )
    parser.add_argument(
        "--features", default="auto", help="auto, clip, inception, inception:PATH, pixel-pca, morphology"
    )
    parser.add_argument(
        "--rival",
        default="morph_lasso",
        help="kind of a rival that is fitted on the same cells and measured beside the models, or none (default: %(default)s)",
    )
    parser.add_argument("--clip", type=Path, help="folder of a CLIP: its image encoder is the feature space")
    parser.add_argument("--n-max", type=int, default=50_000, help="most cells in a sample (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=4, help="samples that a distance is measured on")
    parser.add_argument("--lpips-weights", help="AlexNet's weights for LPIPS: a path, or 'download'")
    parser.add_argument("--device", help="torch device, such as cuda or cpu (default: a GPU if there is one)")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers")
    add_dry_run(parser)
    parser.set_defaults(func=_main)


def _main(args: argparse.Namespace) -> int:
    import sst

    adata = read_object(args.object)
    if args.dry_run:
        return say_plan(args, adata)
    report = run_evaluation(
        adata,
        [sst.models.load(folder) for folder in args.model] + _rivals(adata, args),
        out=args.out,
        genes=args.genes,
        subset=args.subset,
        groupby=args.groupby,
        target=args.target,
        method=args.method,
        batch_key=args.batch_key,
        features=args.features if args.clip is None else sst.models.load(args.clip),
        n_max=args.n_max,
        repeats=args.repeats,
        lpips_weights=args.lpips_weights,
        device=args.device,
        seed=args.seed,
    )
    logger.info("wrote %s", report)
    return 0


def _rivals(adata: AnnData, args: argparse.Namespace) -> list[Any]:
    """The rival to be measured beside the models; where it cannot be fitted, none, and it is said why."""
    import sst

    if args.rival == "none":
        return []
    try:
        return [sst.tl.fit_rival(adata, args.rival, groupby=args.groupby, seed=args.seed)]
    except (KeyError, ValueError) as error:
        logger.warning("no rival %s beside the models: %s", args.rival, error)
        return []


def run_evaluation(
    adata: AnnData,
    models: Sequence[Any],
    *,
    out: Path,
    genes: Sequence[str] | None,
    subset: Any = None,
    groupby: str | None = None,
    target: str | None = None,
    method: str = "ot",
    batch_key: str | None = None,
    features: Any = "auto",
    n_max: int = 50_000,
    repeats: int = 4,
    lpips_weights: str | None = None,
    device: str | None = None,
    seed: int = 0,
    title: str = "Evaluation",
) -> Path:
    """Evaluate, draw, and write ``out/report.html``, ``out/figures`` and the tables; returns the report's path."""
    import matplotlib.pyplot as plt

    import sst
    from sst.report import write_report

    with plt.rc_context({"backend": "Agg"}):
        sst.tl.evaluate(
            adata,
            model=list(models),
            genes=genes,
            subset=subset,
            groupby=groupby,
            target=target,
            method=method,
            batch_key=batch_key,
            features=features,
            n_max=n_max,
            repeats=repeats,
            lpips_weights=lpips_weights,
            out=out,
            device=device,
            seed=seed,
        )
        entry = adata.uns["evaluation"]
        groupby = str(entry["params"]["groupby"])
        sections = [_distance_section(adata, entry), _gap_section(adata, entry)]
        if "reconstruction" in entry:
            sections.append(_reconstruction_section(entry))
        sections += [_cells_section(adata, model, genes, groupby, target, method, seed) for model in models]
        path = write_report(
            out / "report.html",
            title=title,
            lead="Held-out cells, edited toward the other group: do their images come nearer to that group's real cells, and do the "
            "controls stay where they are?",
            sections=sections,
            verdicts=_verdicts(entry),
            settings={k: v for k, v in entry["params"].items() if not isinstance(v, dict)}
            | _flat(entry["params"])
            | {f"{m.registry.kind}: {topic}": note for m in models for topic, note in m.registry.notes.items()},
        )
        figures = out / "figures"
        figures.mkdir(exist_ok=True)
        for section in sections:
            for number, figure in enumerate(section.figures.values()):
                figure.savefig(figures / f"{section.title.lower().replace(' ', '-').replace(':', '')}-{number + 1}.pdf")
        plt.close("all")
    return path


def _flat(params: dict[str, Any]) -> dict[str, str]:
    return {
        f"{name}: {key}": ", ".join(map(str, value)) if isinstance(value, (list, tuple, np.ndarray)) else str(value)
        for name, entry in params.items()
        if isinstance(entry, dict)
        for key, value in entry.items()
    }


def _toward(entry: Any, metric: str) -> pd.DataFrame:
    """Distances to the group that cells are edited toward."""
    table = entry["distances"]
    rows = table[(table["relation"].astype(str) == "other") & (table["metric"].astype(str) == metric)]
    target = entry["params"].get("target")
    return rows if target is None else rows[rows["reference"].astype(str) == str(target)]


def _distance_section(adata: AnnData, entry: Any) -> Section:
    import sst
    from sst.report import Section

    table = entry["distances"]
    metrics = list(dict.fromkeys(table["metric"].astype(str)))
    other = _toward(entry, metrics[0])
    columns = [
        "images",
        "cells",
        "source",
        "reference",
        "edit",
        "mean",
        "sd",
        "floor",
        "change",
        "change_low",
        "change_high",
        "n",
    ]
    return Section(
        "Distances",
        text="Distance of the images to each group's real cells. An edit succeeds where the distance to the other group falls. The "
        "dotted line is the floor: real cells of that group against others of it, at the same number of cells. Hatched bars are "
        "controls: as many random genes of like expression, and the inversion's fade without an edit.",
        figures={
            _NAMES[m]: sst.pl.evaluation(adata, "distances", metric=m, return_fig=True) for m in metrics if m in _NAMES
        },
        tables={f"Distance to the other group ({metrics[0]})": other[columns].round(4).reset_index(drop=True)},
        code="sst.tl.evaluate(adata, model=models, genes=genes)\nsst.pl.evaluation(adata)",
    )


def _gap_section(adata: AnnData, entry: Any) -> Section:
    import sst
    from sst.report import Section

    table = entry["morphology"]
    keep = table["feature"].astype(str)
    main = table[(keep == "nucleus_area") | keep.str.endswith("_window_mean")]
    columns = [
        "images",
        "cells",
        "source",
        "target",
        "edit",
        "feature",
        "before",
        "after",
        "real_target",
        "gap_closed",
        "hedges_g",
        "q",
    ]
    return Section(
        "What changed",
        text="Change of each cell feature by the edit, as a share of the gap between the groups' real cells, with "
        "intervals over fields of view; q is the P of the fields' means, corrected for all rows: 0 changes nothing, 1 (dashed) closes the gap.",
        figures={"Share of the gap closed": sst.pl.evaluation(adata, "gap", return_fig=True)},
        tables={"Nuclear area and window intensities": main[columns].round(4).reset_index(drop=True)},
    )


def _reconstruction_section(entry: Any) -> Section:
    from sst.report import Section

    return Section(
        "Reconstruction",
        text="Unedited reconstructions against the real crops: PSNR in decibels, SSIM with a Gaussian window of 7 pixels.",
        tables={"Means with bootstrap intervals": entry["reconstruction"].round(4)},
    )


def _cells_section(
    adata: AnnData, model: Any, genes: Sequence[str] | None, groupby: str, target: str | None, method: str, seed: int
) -> Section:
    """Single cells of one model: gallery, gene shift, features, and the gene against its marker."""
    import sst
    from sst.report import Section

    held = _edited_sample(adata, model, genes, groupby, target, method, seed)
    for key in dict.fromkeys(("crops", sst.models.image_before(model.registry.kind), "edited")):
        sst.tl.morphology(held, key=key)
    options: dict[str, Any] = {"groupby": groupby, "return_fig": True}
    figures = {
        "Real cells, the model's images of them, and their edits": sst.pl.gallery(held, seed=seed, **options),
        "Features before and after": sst.pl.morphology(held, **options),
        "Genes before and after": sst.pl.expression_shift(held, n_genes=8, **options),
    }
    if genes:
        figures["Gene and marker within groups"] = sst.pl.gene_marker(held, list(genes)[:3], **options)
    return Section(
        f"Cells: {model.images}",
        text=f"{held.n_obs} held-out cells; the edit is learnt from training cells.",
        figures=figures,
        tables=_axioms(adata, held, model, groupby, seed),
    )


def _axioms(adata: AnnData, held: AnnData, model: Any, groupby: str, seed: int) -> dict[str, Any]:
    """What must hold of counterfactuals; nothing where too few training cells have a nucleus to expect anything from."""
    import sst

    try:
        expect: Any = sst.tl.fit_rival(adata, "ridge", groupby=groupby, seed=seed)
    except ValueError as error:
        logger.warning("the axioms of counterfactuals are not measured: %s", error)
        return {}
    sst.tl.counterfactual_axioms(held, model=model, regression=expect, groupby=groupby, clip=None, seed=seed)
    return {"What must hold of a counterfactual": held.uns["counterfactual_axioms"]["table"].round(3)}


def _edited_sample(
    adata: AnnData, model: Any, genes: Sequence[str] | None, groupby: str, target: str | None, method: str, seed: int
) -> AnnData:
    """A sample of held-out cells with their images, before and after the edit."""
    import sst
    from sst.tl._measuring import held_out, without_slots

    mask, labels = held_out(adata), adata.obs[groupby].astype(str).to_numpy()
    rng = np.random.default_rng(seed)
    rows = []
    for group in dict.fromkeys(labels):
        own = np.flatnonzero(mask & (labels == group))
        rows.append(rng.choice(own, min(_SHOWN, len(own)), replace=False))
    chosen = np.zeros(adata.n_obs, bool)
    chosen[np.concatenate(rows)] = True
    light = without_slots(adata)
    light.uns |= {k: v for k, v in adata.uns.items() if k == f"{groupby}_colors"}
    sst.tl.edit(light, genes, groupby, target=target, method=method, subset=chosen, model=None, seed=seed)
    held, before = light[chosen].copy(), sst.models.image_before(model.registry.kind)
    for key, layer, fade in ((before, None, 0.0), ("edited", "edited", 1.0)):
        if key != "crops":
            options = sst.models.draw_options(model, source_layer=None, fade=fade)
            held.obsm[key] = model.generate(held, layer=layer, seed=seed, **options)
            held.uns.setdefault(key, {"params": {}})["params"]["model_kind"] = str(model.registry.kind)
    return held


def _verdicts(entry: Any) -> list[Verdict]:
    from sst.report import Verdict

    table = entry["distances"]
    metric = str(table["metric"].iloc[0])
    rows = _toward(entry, metric)
    after, control = (rows[rows["role"].astype(str) == role] for role in ("after", "control"))
    fell = after["change_high"].fillna(after["change"]) < 0
    out = [
        Verdict(
            "Conditions in which the edit brings cells nearer to the other group",
            f"{int(fell.sum())} of {len(after)}",
            f"{metric}, interval of the change below 0",
            bool(fell.all()),
        )
    ]
    if len(control) and after["change"].mean() != 0:
        share = float(control["change"].mean() / after["change"].mean())
        out.append(
            Verdict(
                "Controls' change relative to the edits'", f"{share:.2f}", "near 0: it is the genes", abs(share) < 0.25
            )
        )
    table = entry["morphology"]
    chosen = table[(table["edit"].astype(str) != "random") & (table["edit"].astype(str) != "fade")]
    for feature in [
        f for f in dict.fromkeys(chosen["feature"].astype(str)) if f == "nucleus_area" or f.endswith("_window_mean")
    ][:3]:
        values = chosen.loc[chosen["feature"].astype(str) == feature, "gap_closed"].astype(float)
        out.append(
            Verdict(
                f"Gap closed: {feature.replace('_', ' ')}",
                f"{values.median():.2f}",
                "median over conditions and directions",
            )
        )
    return out
