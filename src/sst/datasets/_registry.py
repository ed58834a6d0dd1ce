"""The public data: where they are, and what they are."""

from __future__ import annotations

from dataclasses import dataclass

_NANOSTRING = "https://smi-public.objects.liquidweb.services"
_XENIUM = "xenium/1.3.0"


@dataclass(frozen=True, kw_only=True)
class PublicFile:
    """One file of a public data set.

    Attributes
    ----------
    url
        Where it is.
    about
        What it is.
    sha256
        Its hash, if its publisher gives one; else the hash of the first download is kept and holds from then on.
    """

    url: str
    about: str
    sha256: str = ""

    @property
    def file_name(self) -> str:
        """The last part of the URL."""
        return self.url.rsplit("/", 1)[-1]


REGISTRY: dict[str, PublicFile] = {
    "cosmx_liver_normal": PublicFile(
        url=f"{_NANOSTRING}/NormalLiverFiles.zip", about="CosMx, normal human liver: pictures of 304 fields of view"
    ),
    "cosmx_liver_tumor": PublicFile(
        url=f"{_NANOSTRING}/LiverCancerFiles.zip",
        about="CosMx, hepatocellular carcinoma: pictures of 383 fields of view",
    ),
    "cosmx_liver_expression": PublicFile(
        url=f"{_NANOSTRING}/LiverDataReleaseTileDB.zip",
        about="CosMx liver, both slides: cells, counts and transcripts, TileDB-SOMA (format before 1.0)",
    ),
    "xenium_lung_normal": PublicFile(
        url=f"https://cf.10xgenomics.com/samples/{_XENIUM}/Xenium_Preview_Human_Non_diseased_Lung_With_Add_on_FFPE/"
        "Xenium_Preview_Human_Non_diseased_Lung_With_Add_on_FFPE_outs.zip",
        about="Xenium bundle, non-diseased human lung, 392 genes",
    ),
    "xenium_lung_tumor": PublicFile(
        url=f"https://s3-us-west-2.amazonaws.com/10x.files/samples/{_XENIUM}/Xenium_Preview_Human_Lung_Cancer_With_Add_on_2_FFPE/"
        "Xenium_Preview_Human_Lung_Cancer_With_Add_on_2_FFPE_outs.zip",
        about="Xenium bundle, human lung adenocarcinoma, 392 genes",
    ),
}
"""Name -> file. All are free and need no registration; each has some to tens of GB."""
