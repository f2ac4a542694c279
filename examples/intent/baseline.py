"""What the network has to beat: TF-IDF of words and character n-grams with a linear support vector machine."""

from __future__ import annotations

from .data import Corpus


def linear_svm(corpus: Corpus) -> float:
    """Fit it to train, and give the accuracy on test."""
    from sklearn.feature_extraction.text import TfidfVectorizer  # takes half a second, which predictions need not wait
    from sklearn.pipeline import make_pipeline, make_union
    from sklearn.svm import LinearSVC

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    characters = TfidfVectorizer(analyzer="char", ngram_range=(1, 4), sublinear_tf=True)
    pipeline = make_pipeline(make_union(words, characters), LinearSVC())
    texts, labels = zip(*((e.text, e.label) for e in corpus.train), strict=True)
    pipeline.fit(texts, labels)
    return float(pipeline.score([e.text for e in corpus.test], [e.label for e in corpus.test]))
