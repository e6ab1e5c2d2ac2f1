"""scikit-learn's k-means and randomized SVD, in f32."""

import time
import warnings

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.extmath import randomized_svd
from threadpoolctl import threadpool_limits

from peer_numpy import uniform

warnings.simplefilter("ignore", ConvergenceWarning)


class Lloyd:
    """From centroids drawn among the points, all iterations made."""

    def __init__(self, settings):
        self.threads = int(settings["threads"])
        self.x = uniform(int(settings["pages"]))
        chosen = np.random.default_rng(2).choice(len(self.x), int(settings["k"]), replace=False)
        self.kmeans = KMeans(len(chosen), init=self.x[chosen], n_init=1, max_iter=int(settings["iterations"]), tol=0,
                             algorithm="lloyd", copy_x=False)
        self.facts, self.found = {}, {}

    def turn(self):
        with threadpool_limits(self.threads):
            start = time.perf_counter()
            self.kmeans.fit(self.x)
            seconds = time.perf_counter() - start
        self.found["inertia"] = float(self.kmeans.inertia_)
        return seconds


class RandomizedSvd:
    """With as many power iterations and further directions as ours (compressors/subspace.h)."""

    def __init__(self, settings):
        self.threads = int(settings["threads"])
        self.x = uniform(int(settings["rows"]))
        self.rank = int(settings["rank"])
        self.facts, self.found = {}, {}

    def turn(self):
        with threadpool_limits(self.threads):
            start = time.perf_counter()
            _, values, _ = randomized_svd(self.x, self.rank, n_oversamples=8, n_iter=3, random_state=1)
            seconds = time.perf_counter() - start
        self.found["energy"] = float((values.astype(np.float64) ** 2).sum() / (self.x.astype(np.float64) ** 2).sum())
        return seconds


OPERATIONS = {"kmeans": Lloyd, "svd": RandomizedSvd}
