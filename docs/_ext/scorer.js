// The order of search results: guides before reference and benchmarks, otherwise Sphinx's own scores.
var Scorer = {
  score: ([page, , , , score]) => score + (/^(getting|guide|coming)/.test(page) ? 8 : /^benchmark/.test(page) ? -8 : 0),
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
