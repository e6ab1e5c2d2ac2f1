"""FAISS's exact indexes and its k-means."""

import time

import faiss
import numpy as np

from peer_numpy import COLS, uniform

PARTNERS = 10


class Search:
    """The ten nearest of every vector, itself among them."""

    def __init__(self, settings):
        self.threads = int(settings["threads"])
        x = uniform(int(settings["pages"]))
        if settings["index"] == "binary":
            self.x = np.packbits(x > 0, axis=1)
            self.index = faiss.IndexBinaryFlat(COLS)
        else:
            self.x = x / np.linalg.norm(x, axis=1, keepdims=True)
            self.index = faiss.IndexFlatIP(COLS)
        self.index.add(self.x)
        self.facts = {"pairs": len(self.x) ** 2}

    def turn(self):
        faiss.omp_set_num_threads(self.threads)
        start = time.perf_counter()
        self.index.search(self.x, PARTNERS)
        return time.perf_counter() - start


class KMeans:
    def __init__(self, settings):
        self.threads = int(settings["threads"])
        self.x = uniform(int(settings["pages"]))
        self.k, self.iterations = int(settings["k"]), int(settings["iterations"])
        self.facts, self.found = {}, {}

    def turn(self):
        faiss.omp_set_num_threads(self.threads)
        kmeans = faiss.Kmeans(COLS, self.k, niter=self.iterations, seed=1, min_points_per_centroid=1,
                              max_points_per_centroid=len(self.x))
        start = time.perf_counter()
        kmeans.train(self.x)
        seconds = time.perf_counter() - start
        self.found["inertia"] = float(kmeans.index.search(self.x, 1)[0].sum(dtype=np.float64))
        return seconds


OPERATIONS = {"search": Search, "kmeans": KMeans}
