#include "reports/redundancy_definitions.h"

#include <fmt/format.h>

#include "analyzer/redundancy/assignment.h"

namespace kva {
namespace {

std::vector<Definition> metric_definitions(const RedundancyOptions& options) {
  return {
      {"cosine", "x·y / (‖x‖‖y‖) of two pages as long vectors; 0 where a page is all zeros."},
      {"cosine_centered",
       "The cosine after removing each channel's mean over all captured tokens of the layer, which otherwise "
       "makes keys look alike; a page whose centred norm is below 1e-6 of its norm counts as zeros."},
      {"l2_similarity",
       "1 - ‖x - y‖ / max(‖x‖, ‖y‖), so 1 for equal pages (two pages of zeros included) and negative for "
       "opposed ones; l2_mean is the mean of ‖x - y‖ itself."},
      {"hamming",
       "1 - (differing sign bits) / (bits), a number's sign taken against its channel's mean over all "
       "captured "
       "tokens of the layer; 0.5 is what unrelated signs give."},
      {"jaccard",
       fmt::format("|A∩B| / |A∪B|, A and B the indices of the {:g}% largest magnitudes of each page, lower "
                   "indices first among equals.",
                   options.jaccard_share * 100.0)},
  };
}

std::vector<Definition> group_definitions(const RedundancyOptions& options) {
  return {
      {"page", "page_size consecutive tokens of one layer and side; only full pages are compared."},
      {"scope", "\"layer\": the KV heads of a page joined into one vector; \"head\": one KV head alone."},
      {"basis",
       "Keys after RoPE (rotated) or before it (plain); what was not stored is computed from the stored "
       "values. "
       "Values have no basis."},
      {"group", "\"all\": every pair of pages; a set's name: pairs of two pages of that set."},
      {"products",
       "What numbers are rounded to before two pages are multiplied, summed in f32: cosines, l2_similarity, "
       "partners and covers follow from that. error: by how much a similarity can be off at most, from the "
       "rounding that was measured (null: by less than is reported). Nearly equal pages, clusters and the "
       "random control are computed from the numbers themselves."},
      {"share_over", "Share of the pairs strictly over the threshold."},
      {"redundancy",
       "Share of the pages with at least one partner in the group strictly over the threshold."},
      {"percentiles",
       "From a histogram of 4,000 bins, linear within a bin, so exact to 0.0005 (hamming and jaccard: "
       "0.00025)."},
      {"random",
       fmt::format("Control: each page against one other page of the group drawn at random (seed {}); its "
                   "redundancy is that of one partner.",
                   options.seed)},
      {"shuffled",
       "Control: pages made of the group's tokens in random order, the same order for all layers and heads; "
       "between "
       "layers an independent order for each of the two."},
  };
}

std::vector<Definition> finding_definitions(const RedundancyOptions& options) {
  return {
      {"adjacent_layers",
       "The same page in two neighbouring layers, KV head by KV head, each layer centred by itself."},
      {"layer_matrix",
       "Mean cosine_centered of the same page in two layers, over all pages, KV heads joined."},
      {"heatmap",
       "Mean cosine_centered of the page pairs in each cell, pages in the order of the capture, a page with "
       "itself "
       "left out; int8 -128 marks a cell without a pair."},
      {"duplicates",
       "Pages of one KV head whose stored bytes equal an earlier page's of the same layer and side, any KV "
       "head; "
       "found by XXH3, confirmed byte by byte."},
      {"clusters",
       fmt::format(
           "FAISS k-means of a layer's pages (heads joined, L2, at most {} iterations, seed {}, all pages "
           "used, nearest centroids by {}); explained = 1 - inertia / total variance. Sharing keeps one "
           "centroid a cluster in the "
           "pages' type and a 4-byte index a page; relative_error is the Frobenius error of doing so.",
           options.cluster_iterations, options.seed,
           nearest_search_name(nearest_search(options.device.get())))},
      {"opportunity",
       "Pages freed by a cover, KV head by KV head: in the order of the pages, a page is freed when a kept "
       "page "
       "before it is strictly over the threshold. Bytes are those of the freed pages as stored; no index is "
       "charged."},
      {"growth",
       "Share of the pages so far, over all layers and prompts of the set, with an earlier page of the same "
       "prompt "
       "over the threshold."},
      {"set_differences",
       fmt::format(
           "Difference of two sets' means over prompts (pairs within a prompt, averaged over the layers), "
           "with a 95% percentile bootstrap interval over prompts ({} resamples, all layers of a prompt "
           "drawn together), not corrected for the number of comparisons; sets with fewer than two prompts "
           "of two pages are left out.",
           options.bootstrap_resamples)},
      {"norms",
       fmt::format(
           "Mean norm of a token's vector in one KV head; outlier channels have a root mean square over {:g} "
           "times the layer's median channel (keys as stored).",
           options.outlier_factor)},
  };
}

}  // namespace

std::vector<Definition> redundancy_definitions(const RedundancyOptions& options) {
  std::vector<Definition> definitions = metric_definitions(options);
  for (const auto& part : {group_definitions(options), finding_definitions(options)})
    definitions.insert(definitions.end(), part.begin(), part.end());
  return definitions;
}

}  // namespace kva
