#include "reports/label_layout.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace kva {
namespace {

constexpr double kMarker = 10;    // half of a marker's box
constexpr double kGap = 2;        // between texts
constexpr double kNear = 21;      // up to here a label needs no line
constexpr double kLineStep = 4;   // a line is looked at in so many pixels
constexpr double kOutside = 1e4;  // what a pixel outside the area costs
constexpr std::array<double, 11> kDistances = {14, 20, 30, 44, 60, 80, 104, 132, 164, 200, 240};
struct Direction {
  double x;
  double y;
};
constexpr double kDiagonal = 0.71;
constexpr std::array<Direction, 8> kDirections = {Direction{1, 0},
                                                  {-1, 0},
                                                  {kDiagonal, -kDiagonal},
                                                  {-kDiagonal, -kDiagonal},
                                                  {kDiagonal, kDiagonal},
                                                  {-kDiagonal, kDiagonal},
                                                  {0, -1},
                                                  {0, 1}};

double overlap(const LabelBox& a, const LabelBox& b) {
  const double width = std::min(a.right, b.right) - std::max(a.left, b.left);
  const double height = std::min(a.bottom, b.bottom) - std::max(a.top, b.top);
  return width > 0 && height > 0 ? width * height : 0;
}

LabelBox around(double x, double y, double half) { return {x - half, y - half, x + half, y + half}; }

// The text's edge nearest to the point lies at the end of the line.
PlacedLabel candidate(const LabelledPoint& point, const Direction& direction, double distance) {
  PlacedLabel label;
  label.line_x = point.x + direction.x * distance;
  label.line_y = point.y + direction.y * distance;
  label.joined = distance > kNear;
  label.side = direction.x > 0 ? 1 : direction.x < 0 ? -1 : 0;
  const double left = direction.x > 0   ? label.line_x
                      : direction.x < 0 ? label.line_x - point.width
                                        : label.line_x - point.width / 2;
  const double top = direction.x != 0  ? label.line_y - point.height / 2
                     : direction.y < 0 ? label.line_y - point.height
                                       : label.line_y;
  label.box = {left, top, left + point.width, top + point.height};
  return label;
}

double outside(const LabelBox& box, const LabelBox& area) {
  return std::max(0.0, area.left - box.left) + std::max(0.0, box.right - area.right) +
         std::max(0.0, area.top - box.top) + std::max(0.0, box.bottom - area.bottom);
}

// Small boxes along the line from a point to its label.
std::vector<LabelBox> line_boxes(const LabelledPoint& point, const PlacedLabel& label) {
  std::vector<LabelBox> boxes;
  const double length = std::hypot(label.line_x - point.x, label.line_y - point.y);
  for (double at = kMarker + kLineStep; at < length - 1; at += kLineStep)
    boxes.push_back(around(point.x + (label.line_x - point.x) * at / length,
                           point.y + (label.line_y - point.y) * at / length, 1));
  return boxes;
}

double cost_of(const LabelledPoint& point, const PlacedLabel& label, const std::vector<LabelBox>& taken,
               const LabelBox& area) {
  const LabelBox padded = {label.box.left - kGap, label.box.top - kGap, label.box.right + kGap,
                           label.box.bottom + kGap};
  double cost = kOutside * outside(label.box, area);
  for (const LabelBox& box : taken) cost += overlap(padded, box);
  for (const LabelBox& step : line_boxes(point, label))
    for (const LabelBox& box : taken) cost += overlap(step, box);
  return cost;
}

}  // namespace

std::vector<PlacedLabel> place_labels(const std::vector<LabelledPoint>& points, const LabelBox& area,
                                      const std::vector<LabelBox>& taken) {
  std::vector<LabelBox> used = taken;
  for (const LabelledPoint& point : points) used.push_back(around(point.x, point.y, kMarker));
  std::vector<PlacedLabel> labels;
  for (const LabelledPoint& point : points) {
    PlacedLabel best;
    double least = std::numeric_limits<double>::infinity();
    for (const double distance : kDistances) {
      for (const Direction& direction : kDirections) {
        const PlacedLabel label = candidate(point, direction, distance);
        const double cost = cost_of(point, label, used, area);
        if (cost >= least) continue;
        least = cost;
        best = label;
      }
      if (least <= 0) break;
    }
    used.push_back(best.box);
    for (const LabelBox& step : line_boxes(point, best)) used.push_back(step);
    labels.push_back(best);
  }
  return labels;
}

}  // namespace kva
