#include "runtime/kv/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <unordered_map>
#include <utility>

#include "kernels/check.h"

namespace kva {
namespace {

PageRef& ref_at(const TableLookup& tables, const PageAddress& at) {
  PageTable& table = tables(at.sequence, at.layer, at.kv_head);
  const auto count = static_cast<int64_t>(table.pages.size()) - (table.open ? 1 : 0);
  KVA_CHECK(at.page >= 0 && at.page < count, "a plan changes full pages only");
  return table.pages[static_cast<std::size_t>(at.page)];
}

SideId& side_of(PageRef& ref, Side side) { return side == Side::kKey ? ref.k : ref.v; }

// The plan's sides in the store; each with one reference, which goes with this object.
class AddedSides {
 public:
  AddedSides(const Plan& plan, PageStore& store, const SourceCoder& code) : store_(store) {
    try {
      bool coded_here = false;
      for (const NewSide& side : plan.sides) {
        coded_here |= !side.sources.empty();
        const SideId base = side.base < 0 ? kNoSide : at(side.base);
        sides.push_back(side.sources.empty()
                            ? store.add(side.codec, side.lane, side.tokens, side.width, side.payload, base)
                            : store.add_uncoded(side.codec, side.lane, side.tokens, side.width, base));
      }
      if (coded_here) code(plan, sides);
      for (const PlanRewrite& rewrite : plan.rewrites)
        places.push_back(rewrite.positions.empty()
                             ? kNoSide
                             : store.add_places(packed_places(rewrite.positions, rewrite.biases)));
    } catch (...) {
      drop();
      throw;
    }
  }
  ~AddedSides() { drop(); }
  AddedSides(const AddedSides&) = delete;
  AddedSides& operator=(const AddedSides&) = delete;

  SideId at(int index) const {
    KVA_CHECK(index >= 0 && static_cast<std::size_t>(index) < sides.size(), "no such new side");
    return sides[static_cast<std::size_t>(index)];
  }

  std::vector<SideId> sides;
  std::vector<SideId> places;

 private:
  void drop() {
    for (const SideId id : sides) store_.release(id);
    for (const SideId id : places)
      if (id != kNoSide) store_.release(id);
  }
  PageStore& store_;
};

// The page that a rewrite makes, each of its sides retained; without sides where it drops all tokens.
PageRef rewritten_page(const PlanRewrite& rewrite, const AddedSides& added, SideId places, PageStore& store) {
  if (rewrite.positions.empty()) return {};
  const PageRef page{.k = rewrite.k >= 0 ? added.at(rewrite.k) : rewrite.alias_k,
                     .v = rewrite.v >= 0 ? added.at(rewrite.v) : rewrite.alias_v,
                     .where = places,
                     .tokens = static_cast<int32_t>(rewrite.positions.size()),
                     .start = rewrite.positions.front()};
  for (const SideId id : {page.k, page.v})
    KVA_CHECK(store.tokens(id) == page.tokens, "sides of as many tokens as positions");
  for (const SideId id : {page.k, page.v, page.where}) store.retain(id);
  return page;
}

// The rewrites of one table, by index.
struct TableRewrites {
  PageTable* table = nullptr;
  std::vector<std::size_t> rewrites;
};

std::vector<TableRewrites> rewrites_by_table(const Plan& plan, const TableLookup& tables) {
  std::vector<TableRewrites> result;
  std::unordered_map<const PageTable*, std::size_t> known;
  for (std::size_t i = 0; i < plan.rewrites.size(); ++i) {
    const PlanRewrite& rewrite = plan.rewrites[i];
    PageTable& table = tables(rewrite.sequence, rewrite.layer, rewrite.kv_head);
    const auto [at, added] = known.try_emplace(&table, result.size());
    if (added) result.push_back({.table = &table});
    result[at->second].rewrites.push_back(i);
  }
  return result;
}

// Room for the pages that the table will have, so that nothing runs out of memory half way.
void reserve_pages(const Plan& plan, const TableRewrites& of) {
  auto count = static_cast<int64_t>(of.table->pages.size());
  for (const std::size_t i : of.rewrites)
    count += (plan.rewrites[i].positions.empty() ? 0 : 1) - plan.rewrites[i].pages;
  reserve_up_to(of.table->pages, static_cast<std::size_t>(std::max<int64_t>(count, 0)));
}

void replace_pages(const Plan& plan, const TableRewrites& of, const std::vector<PageRef>& by,
                   PageStore& store) {
  CountedVector<PageRef>& pages = of.table->pages;
  const auto full = static_cast<int64_t>(pages.size()) - (of.table->open ? 1 : 0);
  const int64_t first = plan.rewrites[of.rewrites.front()].first_page;
  std::vector<PageRef> rest;  // what the pages from `first` on become
  int64_t next = first;
  for (const std::size_t i : of.rewrites) {
    const PlanRewrite& rewrite = plan.rewrites[i];
    const int64_t end = rewrite.first_page + rewrite.pages;
    KVA_CHECK(rewrite.first_page >= std::max<int64_t>(next, 0) && rewrite.pages >= 0 && end <= full,
              "a plan rewrites full pages only, in order");
    KVA_CHECK(rewrite.pages > 0 || by[i].tokens > 0, "an inserted page holds tokens");
    rest.insert(rest.end(), pages.begin() + next, pages.begin() + rewrite.first_page);
    for (int64_t page = rewrite.first_page; page < end; ++page) {
      const PageRef& gone = pages[static_cast<std::size_t>(page)];
      for (const SideId id : {gone.k, gone.v, gone.where})
        if (id != kNoSide) store.release(id);
    }
    if (by[i].tokens > 0) rest.push_back(by[i]);
    next = end;
  }
  rest.insert(rest.end(), pages.begin() + next, pages.end());
  pages.resize(static_cast<std::size_t>(first) + rest.size());
  std::copy(rest.begin(), rest.end(), pages.begin() + first);
  of.table->changed(first);
}

}  // namespace

std::string side_name(int layer, int kv_head, Side side) {
  return fmt::format("layer {}, KV head {}, {}", layer, kv_head, side == Side::kKey ? "K" : "V");
}

void apply_plan(const Plan& plan, PageStore& store, const TableLookup& tables, const SourceCoder& code) {
  const AddedSides added(plan, store, code);
  const std::vector<TableRewrites> rewritten = rewrites_by_table(plan, tables);
  for (const TableRewrites& of : rewritten) reserve_pages(plan, of);
  std::vector<SideId> targets;
  for (const PlanEdit& edit : plan.edits) {
    const SideId target = edit.new_side >= 0 ? added.at(edit.new_side) : edit.alias;
    KVA_CHECK(store.tokens(target) == ref_at(tables, edit.at).tokens, "a side of as many tokens as the page");
    store.retain(target);
    targets.push_back(target);
  }
  std::vector<PageRef> pages;
  for (std::size_t i = 0; i < plan.rewrites.size(); ++i)
    pages.push_back(rewritten_page(plan.rewrites[i], added, added.places[i], store));
  for (std::size_t i = 0; i < targets.size(); ++i) {
    const PageAddress& at = plan.edits[i].at;
    SideId& side = side_of(ref_at(tables, at), at.side);
    store.release(side);
    side = targets[i];
    tables(at.sequence, at.layer, at.kv_head).changed(at.page);
  }
  for (const TableRewrites& of : rewritten) replace_pages(plan, of, pages, store);
}

int64_t predicted_bytes(const Plan& plan, const PageStore& store, const TableLookup& tables) {
  std::unordered_map<SideId, int64_t> dropped;  // references that live sides lose, less those they gain
  std::vector<int64_t> used(plan.sides.size(), 0);
  const auto use = [&](int index) {
    for (; index >= 0 && used[static_cast<std::size_t>(index)]++ == 0;)
      index = plan.sides[static_cast<std::size_t>(index)].base;
  };
  for (const PlanEdit& edit : plan.edits) {
    ++dropped[side_of(ref_at(tables, edit.at), edit.at.side)];
    if (edit.new_side >= 0)
      use(edit.new_side);
    else
      --dropped[edit.alias];
  }
  for (const PlanRewrite& rewrite : plan.rewrites) {
    const auto& pages = tables(rewrite.sequence, rewrite.layer, rewrite.kv_head).pages;
    for (int64_t page = rewrite.first_page; page < rewrite.first_page + rewrite.pages; ++page)
      for (const SideId id :
           {pages[static_cast<std::size_t>(page)].k, pages[static_cast<std::size_t>(page)].v})
        ++dropped[id];
    if (rewrite.positions.empty()) continue;
    for (const auto& [index, alias] :
         {std::pair{rewrite.k, rewrite.alias_k}, std::pair{rewrite.v, rewrite.alias_v}}) {
      if (index >= 0)
        use(index);
      else
        --dropped[alias];
    }
  }
  int64_t bytes = 0;
  for (std::size_t i = 0; i < plan.sides.size(); ++i)
    if (used[i] > 0) bytes += plan.sides[i].bytes();
  std::vector<SideId> freed;
  const auto drop = [&](SideId id, int64_t count) {
    if (count == store.references(id)) freed.push_back(id);
  };
  for (const auto& [id, count] : dropped) drop(id, count);
  for (std::size_t i = 0; i < freed.size(); ++i) {
    bytes -= store.bytes(freed[i]);
    if (const SideId base = store.base(freed[i]); base != kNoSide) drop(base, ++dropped[base]);
  }
  return bytes;
}

}  // namespace kva
