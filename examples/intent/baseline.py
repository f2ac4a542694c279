"""The baseline: a linear support vector machine on TF-IDF features of words and character n-grams."""

from __future__ import annotations

import re

from .data import Corpus

WORD = r"(?u)\b\w+\b"


def linear_svm(corpus: Corpus) -> float:
    """Fit the baseline to train and return its accuracy on test. A corpus without words has character n-grams only."""
    from sklearn.feature_extraction.text import TfidfVectorizer  # here, since the import takes half a second
    from sklearn.pipeline import make_pipeline, make_union
    from sklearn.svm import LinearSVC

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=WORD)
    characters = TfidfVectorizer(analyzer="char", ngram_range=(1, 4), sublinear_tf=True)
    texts, labels = zip(*((e.text, e.label) for e in corpus.train), strict=True)
    union = make_union(words, characters) if any(re.search(WORD, text) for text in texts) else characters
    pipeline = make_pipeline(union, LinearSVC())
    pipeline.fit(texts, labels)
    return float(pipeline.score([e.text for e in corpus.test], [e.label for e in corpus.test]))
