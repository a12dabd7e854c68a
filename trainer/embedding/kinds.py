"""Which class of embeddings a model's name stands for."""

from __future__ import annotations

from trainer.embedding.blend import BlendEmbeddings
from trainer.embedding.embeddings import Embeddings
from trainer.embedding.gcn import GcnEmbeddings

KINDS: dict[str, type[Embeddings]] = {
    "blend": BlendEmbeddings,
    "lightgcn": BlendEmbeddings,
    "gcn": GcnEmbeddings,
}
