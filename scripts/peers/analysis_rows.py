"""The analysis on vectors of 1,024 numbers, beside BLAS (NumPy), FAISS and scikit-learn. Rates of all pairs count the
whole N x N matrix, whoever computes only half of it."""

from turns import Row, Session

KMEANS = {"pages": 16384, "k": 256, "iterations": 20}
SAME = 0.01  # inertias and energies may differ by so much and count as equal


def scenes(threads, quick):
    for pages in (4096,) if quick else (4096, 16384):
        yield all_pairs(pages, threads)
    yield bits(4096, threads)
    yield kmeans(threads)
    yield svd(threads)
    yield page_svds(threads)


def session(program, operation, threads, **settings):
    return Session(program, operation, {"threads": threads, **settings})


def rate(name, fact, scale=1.0):
    return lambda seconds, facts: facts[name][fact] / seconds[name] / scale


def per_second(name):
    return lambda seconds, facts: 1.0 / seconds[name]


def unequal(fact, *names):
    def complaint(facts):
        values = [facts[name][fact] for name in names]
        if max(values) - min(values) <= SAME * max(values):
            return None
        return "unequal work: " + ", ".join(f"{fact} {facts[name][fact]:.6g} ({name})" for name in names)
    return complaint


def all_pairs(pages, threads):
    sessions = {"ours": session("turns", "all_pairs", threads, pages=pages),
                "cosine": session("turns", "all_pairs", threads, pages=pages, metric="cosine"),
                "bf16": session("turns", "all_pairs", threads, pages=pages, metric="cosine", dtype="bf16"),
                "BLAS": session("peer_numpy", "gemm", threads, pages=pages),
                "FAISS": session("peer_faiss", "search", threads, pages=pages, index="inner product"),
                "bf16 probe": session("turns", "product", threads, type="bf16"),
                "probe": session("turns", "product", threads, type="f32")}

    def limit_of(probe):
        return lambda seconds, facts: (rate(probe, "flops")(seconds, facts) / facts["ours"]["flops"] *
                                       facts["ours"]["pairs"] / 1e6)

    common = {"unit": "Mpairs/s", "threads": threads, "limit": limit_of("probe"), "probe": "probe"}
    five, cosine, bf16 = (rate(name, "pairs", 1e6) for name in ("ours", "cosine", "bf16"))
    blas, faiss = (rate(name, "pairs", 1e6) for name in ("BLAS", "FAISS"))
    what = f"all pairs of {pages:,}"
    return sessions, [
        Row(f"{what}, cosine, histogram and top 10 / BLAS product", ours=cosine, peer=blas, must=0.9, **common),
        Row(f"{what}, cosine, histogram and top 10 / FAISS IndexFlatIP", ours=cosine, peer=faiss, must=1.2, **common),
        Row(f"{what}, cosine in bf16, histogram and top 10 / our f32", ours=bf16, peer=cosine,
            **{**common, "limit": limit_of("bf16 probe"), "must": 5.0}),
        Row(f"{what}, five metrics / BLAS product", ours=five, peer=blas, **common)]


def bits(pages, threads):
    def ours(metric):
        return session("turns", "all_pairs", threads, pages=pages, metric=metric)

    sessions = {"hamming": ours("hamming"), "jaccard": ours("jaccard"),
                "FAISS": session("peer_faiss", "search", threads, pages=pages, index="binary"),
                "probe": session("turns", "popcount", threads)}

    def limit(seconds, facts):  # the probe has one thread; a pair is 16 words, and ours compares each pair once
        return threads * rate("probe", "words")(seconds, facts) / 16 / 1e6

    common = {"unit": "Mpairs/s", "threads": threads, "limit": limit, "probe": "probe"}
    hamming, jaccard, faiss = (rate(name, "pairs", 1e6) for name in ("hamming", "jaccard", "FAISS"))
    what = f"of {pages:,}, 1,024 bits, with histogram"
    return sessions, [
        Row(f"Hamming {what} / popcount probe", ours=hamming, peer=limit, must=0.5, **common),
        Row(f"Jaccard {what} / our Hamming", ours=jaccard, peer=hamming, must=0.8, **common),
        Row(f"Hamming {what} / FAISS IndexBinaryFlat, top 10", ours=hamming, peer=faiss, **common)]


def kmeans(threads):
    sessions = {"ours": session("turns", "kmeans", threads, **KMEANS),
                "FAISS": session("peer_faiss", "kmeans", threads, **KMEANS),
                "scikit-learn": session("peer_sklearn", "kmeans", threads, **KMEANS),
                "probe": session("turns", "product", threads, type="f32")}

    def limit(seconds, facts):  # the distances of all iterations
        flops = 2.0 * KMEANS["pages"] * KMEANS["k"] * 1024 * KMEANS["iterations"]
        return rate("probe", "flops")(seconds, facts) / flops

    return sessions, [Row(f"k-means 16,384 x 1,024, k=256 / {peer}", "runs/s", threads, per_second("ours"),
                          per_second(peer), limit=limit, probe="probe", must=must,
                          unequal=unequal("inertia", "ours", peer))
                      for peer, must in (("FAISS", 1.5), ("scikit-learn", 1.0))]


def svd(threads):
    asked = {"rows": 4096, "rank": 64}
    sessions = {"ours": session("turns", "svd", threads, **asked),
                "scikit-learn": session("peer_sklearn", "svd", threads, **asked),
                "probe": session("turns", "product", threads, type="f32")}
    return sessions, [Row("truncated SVD, 64 of 4,096 x 1,024 / scikit-learn randomized_svd", "runs/s", threads,
                          per_second("ours"), per_second("scikit-learn"), probe="probe", must=1.0,
                          unequal=unequal("energy", "ours", "scikit-learn"))]


def page_svds(threads):
    sessions = {"ours": session("turns", "page_svds", threads, pages=256),
                "LAPACK": session("peer_numpy", "page_svds", threads, pages=256),
                "probe": session("turns", "product", threads, type="f32")}
    return sessions, [Row("SVD of 256 pages of 256 x 64 / LAPACK gesdd", "pages/s", threads, rate("ours", "pages"),
                          rate("LAPACK", "pages"), probe="probe", must=1.5)]
