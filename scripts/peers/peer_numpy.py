"""BLAS and LAPACK through NumPy, with as many threads of BLAS as asked for."""

import concurrent.futures
import time

import numpy as np
from threadpoolctl import threadpool_limits

COLS = 1024


def uniform(rows, cols=COLS):
    return np.random.default_rng(1).uniform(-1, 1, (rows, cols)).astype(np.float32)


class Gemm:
    """The whole product X Y', stored: what all pairs cost who knows no symmetry and does nothing with the result."""

    def __init__(self, settings):
        self.threads = int(settings["threads"])
        self.x = uniform(int(settings["pages"]))
        self.y = self.x.copy()  # NumPy would take X X' for a symmetric product and mirror it
        self.out = np.empty((len(self.x), len(self.x)), dtype=np.float32)
        self.facts = {"pairs": len(self.x) ** 2}

    def turn(self):
        with threadpool_limits(self.threads):
            start = time.perf_counter()
            np.matmul(self.x, self.y.T, out=self.out)
            return time.perf_counter() - start


class PageSvds:
    """gesdd of each page, the pages shared out over threads, BLAS with one thread in each."""

    ROWS, WIDTH = 256, 64

    def __init__(self, settings):
        pages, threads = int(settings["pages"]), int(settings["threads"])
        self.parts = np.array_split(uniform(pages * self.ROWS, self.WIDTH).reshape(pages, self.ROWS, self.WIDTH), threads)
        self.pool = concurrent.futures.ThreadPoolExecutor(threads)
        self.facts = {"pages": pages}

    def turn(self):
        with threadpool_limits(1):
            start = time.perf_counter()
            list(self.pool.map(lambda part: np.linalg.svd(part, full_matrices=False), self.parts))
            return time.perf_counter() - start


OPERATIONS = {"gemm": Gemm, "page_svds": PageSvds}
