"""Does a balanced draw make a better training set? Long-tailed labelled data, and accuracy on a balanced test set.

    python benchmarks/probe.py --only digits --seeds 10 --json benchmarks/results/probe_digits.json    # a minute
    python benchmarks/probe.py --only words --json benchmarks/results/probe_words.json                 # some minutes
    python benchmarks/probe.py --only texts --json benchmarks/results/probe_texts.json                 # some minutes

Digits: scikit-learn's 1,797 images, 64 pixels. Words: the most frequent of 30 languages out of the package `wordfreq`
(extra `bench`), as 128 leading components of their character n-grams, found on the pool alone; a single word tells
little of its language. Texts: 8 such words in a row, drawn with their frequencies, embedded likewise. The pool is made
long-tailed, class i with a share proportional to i^-a in a random order of the classes, so that the largest class is
`ratio` times the smallest; test rows, as many of each class, are set aside first. The labels are never shown to the
curation. A classifier is then trained on everything, on a random subset, on a balanced draw from the clusters of one
flat k-means, and on a balanced draw from the hierarchy, subsets of the same size: logistic regression, and the nearest
5 by cosine. Mean accuracy over the seeds (pool, test rows and draw all change with it) and half the width of a 95 %
interval (Student's t); and the share of seeds whose hierarchical draw beats the random one. A second table tells how
even the classes of each subset are: their effective number, the exponential of the entropy of their shares.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from reporting import conclude, parser, table

import streamcurate as sc

# Two-sided 95 % quantiles of Student's t for 2 to 19 degrees of freedom.
_STUDENT = (4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120)
SUBSETS = ("everything", "random", "flat k-means", "hierarchical")
PROBES = ("linear", "5 nearest")
_ROWS_A_LANGUAGE = 4_000
# Of three scripts; each has enough words of four letters and more.
_LANGUAGES = [
    *("bg", "ca", "cs", "da", "de", "el", "en", "es", "fi", "fil", "fr", "hu", "id", "is", "it"),
    *("lt", "lv", "mk", "nb", "nl", "pl", "pt", "ro", "ru", "sh", "sk", "sl", "sv", "tr", "uk"),
]


class Pool(NamedTuple):
    """Rows with labels, to train on and to test on."""

    rows: NDArray[np.float32]
    labels: NDArray[np.int64]
    test_rows: NDArray[np.float32]
    test_labels: NDArray[np.int64]


class Case(NamedTuple):
    """A long-tailed pool, and how it is curated."""

    name: str
    pool: Callable[[int], Pool]
    size: int
    levels: tuple[tuple[int, int], ...]  # clusters, rows a cluster kept by resampling


def long_tailed(labels: NDArray[np.int64], test: int, largest: int, ratio: float, seed: int) -> tuple[Any, Any]:
    """Numbers of the rows to train on and of those to test on."""
    random = np.random.default_rng(seed)
    classes = random.permutation(np.unique(labels))
    decay = np.log(ratio) / np.log(len(classes))
    training, testing = [], []
    for rank, one in enumerate(classes, start=1):
        members = random.permutation(np.flatnonzero(labels == one))
        testing.append(members[:test])
        training.append(members[test : test + max(round(largest * rank**-decay), 1)])
    return np.sort(np.concatenate(training)), np.concatenate(testing)


def digits(ratio: float) -> Callable[[int], Pool]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    rows = (images / 16).astype(np.float32)

    def make(seed: int) -> Pool:
        training, testing = long_tailed(labels.astype(np.int64), 40, 130, ratio, seed)
        return Pool(rows[training], labels[training], rows[testing], labels[testing])

    return make


def frequent_words(language: str) -> list[str]:
    import wordfreq

    found = [word for word in wordfreq.top_n_list(language, 20_000) if word.isalpha() and len(word) >= 4]
    return found[:_ROWS_A_LANGUAGE]


def random_texts(language: str) -> list[str]:
    import wordfreq

    found = frequent_words(language)
    shares = np.array([wordfreq.word_frequency(word, language) for word in found])
    drawn = np.random.default_rng(len(found)).choice(len(found), (_ROWS_A_LANGUAGE, 8), p=shares / shares.sum())
    return [" ".join(found[place] for place in text) for text in drawn]


def languages(rows_of: Callable[[str], list[str]], ratio: float) -> Callable[[int], Pool]:
    listed = [rows_of(language) for language in _LANGUAGES]
    labels = np.repeat(np.arange(len(listed)), [len(rows) for rows in listed])
    texts = np.array([text for rows in listed for text in rows], dtype=object)

    def make(seed: int) -> Pool:
        training, testing = long_tailed(labels, 200, _ROWS_A_LANGUAGE - 200, ratio, seed)
        rows, test_rows = embedded(texts[training], texts[testing])
        return Pool(rows, labels[training], test_rows, labels[testing])

    return make


def embedded(training: NDArray[Any], testing: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Unit vectors of words: their n-grams of characters, weighed and reduced as the pool alone tells."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import Normalizer

    model = make_pipeline(
        HashingVectorizer(analyzer="char_wb", ngram_range=(1, 4), n_features=1 << 16, norm=None, alternate_sign=False),
        TfidfTransformer(sublinear_tf=True),
        TruncatedSVD(128, random_state=0),
        Normalizer(),
    )
    return model.fit_transform(training).astype(np.float32), model.transform(testing).astype(np.float32)


def chosen(case: Case, rows: NDArray[np.float32], subset: str, seed: int) -> NDArray[np.int64]:
    """Rows to train on."""
    if subset == "everything":
        return np.arange(len(rows))
    if subset == "random":
        return np.random.default_rng([seed, 1]).choice(len(rows), case.size, replace=False)
    levels = [
        sc.Level(clusters, resampling=sc.Resampling(9, kept)) if kept else sc.Level(clusters)
        for clusters, kept in (case.levels if subset == "hierarchical" else ((case.levels[0][0], 0),))
    ]
    return sc.cluster(rows, levels=levels, seed=seed).sample(case.size, seed=seed).rows


def accuracy(pool: Pool, own: NDArray[np.int64]) -> dict[str, float]:
    """Of both classifiers on the test rows."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200, tol=1e-3))
    nearest = KNeighborsClassifier(5, metric="cosine", algorithm="brute")
    return {
        name: float(model.fit(pool.rows[own], pool.labels[own]).score(pool.test_rows, pool.test_labels))
        for name, model in zip(PROBES, (linear, nearest), strict=True)
    }


def effective_classes(labels: NDArray[np.int64]) -> float:
    """The exponential of the entropy of the classes' shares."""
    counts = np.bincount(labels)
    shares = counts[counts > 0] / len(labels)
    return float(np.exp(-(shares * np.log(shares)).sum()))


def interval(values: list[float]) -> float:
    """Half the width of the 95 % interval of the mean."""
    freedom = len(values) - 1
    student = _STUDENT[min(freedom, len(_STUDENT) + 1) - 2]
    return student * statistics.stdev(values) / len(values) ** 0.5


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--seeds", type=int, default=5, help="at least three (default 5)")
    made.add_argument("--only", choices=["digits", "words", "texts"])
    options = made.parse_args()
    cases = []
    if options.only in (None, "digits"):
        cases += [Case(f"digits, ratio {ratio}", digits(ratio), 100, ((60, 3), (20, 2))) for ratio in (10, 30, 100)]
    for name, rows_of in (("words", frequent_words), ("texts", random_texts)):
        if options.only in (None, name):
            levels = ((2_000, 3), (400, 3), (80, 2))
            cases += [Case(f"{name}, ratio {ratio}", languages(rows_of, ratio), 2_000, levels) for ratio in (30, 300)]
    lines, evenness, results, wins = [], [], [], []
    even: dict[str, dict[str, list[float]]] = {}
    for case in cases:
        found: dict[str, dict[str, list[float]]] = {probe: {one: [] for one in SUBSETS} for probe in PROBES}
        classes: dict[str, list[float]] = {one: [] for one in SUBSETS}
        sizes = []
        for seed in range(options.seeds):
            pool = case.pool(seed)
            sizes.append(len(pool.rows))
            for subset in SUBSETS:
                own = chosen(case, pool.rows, subset, seed)
                classes[subset].append(effective_classes(pool.labels[own]))
                for probe, value in accuracy(pool, own).items():
                    found[probe][subset].append(value)
        shown = [f"{statistics.mean(one):.1f} ± {interval(one):.1f}" for one in classes.values()]
        evenness.append([case.name, len(np.unique(pool.test_labels)), *shown])
        even[case.name] = classes
        for probe, by_subset in found.items():
            better = [a > b for a, b in zip(by_subset["hierarchical"], by_subset["random"], strict=True)]
            wins.append(statistics.mean(by_subset["hierarchical"]) > statistics.mean(by_subset["random"]))
            shown = [f"{statistics.mean(one):.3f} ± {interval(one):.3f}" for one in by_subset.values()]
            lines.append([f"{case.name}, {probe}", f"{round(statistics.mean(sizes)):,} → {case.size:,}", *shown])
            lines[-1].append(f"{statistics.mean(better):.0%}")
            results.append({"case": case.name, "probe": probe, "pool": sizes, "size": case.size, "accuracy": by_subset})
        print(f"{case.name}: done", flush=True)
    print("\n" + table(["accuracy", "rows", *SUBSETS, "beats random"], lines))
    print("\n" + table(["effective classes", "of", *SUBSETS], evenness))
    goals = {"the hierarchical subset's mean is above the random one's everywhere": all(wins)}
    conclude("probe", {"seeds": options.seeds, "results": results, "effective_classes": even}, goals, options.json)


if __name__ == "__main__":
    main()
