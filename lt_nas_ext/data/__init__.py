"""Data: data sets in memory, batched augmentation, splits, batches, manifests."""

from __future__ import annotations

from lt_nas_ext.data.augment import AUGMENTATIONS, augment
from lt_nas_ext.data.check import FolderCheck, check_folder
from lt_nas_ext.data.datasets import Dataset, ImageSet
from lt_nas_ext.data.geometry import cutout
from lt_nas_ext.data.images import read_images
from lt_nas_ext.data.loaders import Batches
from lt_nas_ext.data.loading import DATA, from_dataset, from_manifest, load
from lt_nas_ext.data.manifest import ManifestRow
from lt_nas_ext.data.split import split
from lt_nas_ext.data.views import VIEWS, DigitView, PhotoView, TwoViews, normalize, two_views

__all__ = [
    "AUGMENTATIONS",
    "DATA",
    "VIEWS",
    "Batches",
    "Dataset",
    "DigitView",
    "FolderCheck",
    "ImageSet",
    "ManifestRow",
    "PhotoView",
    "TwoViews",
    "augment",
    "check_folder",
    "cutout",
    "from_dataset",
    "from_manifest",
    "load",
    "normalize",
    "read_images",
    "split",
    "two_views",
]
