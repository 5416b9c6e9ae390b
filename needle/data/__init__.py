"""Data: datasets of items, transforms of images, and the loader that makes batches of tensors of them."""

from needle.data.dataset import Dataset, ImageDataset, NDArrayDataset
from needle.data.digits import DigitsDataset
from needle.data.idx import IDXDataset, MNISTDataset, idx_files, read_idx
from needle.data.loader import DataLoader
from needle.data.transforms import RandomCrop, RandomFlipHorizontal

__all__ = [
    "DataLoader",
    "Dataset",
    "DigitsDataset",
    "IDXDataset",
    "ImageDataset",
    "MNISTDataset",
    "NDArrayDataset",
    "RandomCrop",
    "RandomFlipHorizontal",
    "idx_files",
    "read_idx",
]
