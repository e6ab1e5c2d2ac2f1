#include "runtime/model/stop_finder.h"

#include <algorithm>
#include <utility>

namespace kva {

StopFinder::StopFinder(std::vector<std::string> stops) : stops_(std::move(stops)) { std::erase(stops_, ""); }

std::string StopFinder::push(std::string_view piece) {
  if (found_) return "";
  held_ += piece;
  std::size_t end = std::string::npos;
  for (const std::string& stop : stops_) end = std::min(end, held_.find(stop));
  if (end != std::string::npos) {
    found_ = true;
    held_.resize(end);
    return std::exchange(held_, "");
  }
  std::size_t keep = 0;  // the longest end that begins a stop string
  for (const std::string& stop : stops_)
    for (std::size_t size = std::min(stop.size() - 1, held_.size()); size > keep; --size)
      if (std::string_view(held_).ends_with(std::string_view(stop).substr(0, size))) keep = size;
  std::string shown = held_.substr(0, held_.size() - keep);
  held_.erase(0, shown.size());
  return shown;
}

std::string StopFinder::finish() { return std::exchange(held_, ""); }

}  // namespace kva
