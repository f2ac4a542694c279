"""What the network has to beat: TF-IDF of words and character n-grams with a linear support vector machine."""

from __future__ import annotations

import re

from .data import Corpus

WORD = r"(?u)\b\w+\b"


def linear_svm(corpus: Corpus) -> float:
    """Fit it to train, and return the accuracy on test; without words (emoji alone) it has the characters' n-grams."""
    from sklearn.feature_extraction.text import TfidfVectorizer  # takes half a second, which predictions need not wait
    from sklearn.pipeline import make_pipeline, make_union
    from sklearn.svm import LinearSVC

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=WORD)
    characters = TfidfVectorizer(analyzer="char", ngram_range=(1, 4), sublinear_tf=True)
    texts, labels = zip(*((e.text, e.label) for e in corpus.train), strict=True)
    union = make_union(words, characters) if any(re.search(WORD, text) for text in texts) else characters
    pipeline = make_pipeline(union, LinearSVC())
    pipeline.fit(texts, labels)
    return float(pipeline.score([e.text for e in corpus.test], [e.label for e in corpus.test]))
