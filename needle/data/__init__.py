"""Data: datasets of items, transforms of images, text as word ids, and the loader that makes batches of tensors."""

from needle.data.cifar import CIFAR10Dataset
from needle.data.dataset import Dataset, ImageDataset, NDArrayDataset
from needle.data.digits import DigitsDataset
from needle.data.idx import IDXDataset, MNISTDataset, idx_files, read_idx
from needle.data.loader import DataLoader
from needle.data.ptb import Corpus, Dictionary, batchify, get_batch
from needle.data.transforms import RandomCrop, RandomFlipHorizontal

__all__ = [
    "CIFAR10Dataset",
    "Corpus",
    "DataLoader",
    "Dataset",
    "Dictionary",
    "DigitsDataset",
    "IDXDataset",
    "ImageDataset",
    "MNISTDataset",
    "NDArrayDataset",
    "RandomCrop",
    "RandomFlipHorizontal",
    "batchify",
    "get_batch",
    "idx_files",
    "read_idx",
]
