"""The analysis on vectors of 1,024 numbers, beside BLAS (NumPy), FAISS and scikit-learn."""


def scenes(_threads, _quick):
    return []
