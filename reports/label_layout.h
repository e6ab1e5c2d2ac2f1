// Where the names of points go so that they can be read: beside their points, over nothing else.
#pragma once

#include <vector>

namespace kva {

// In pixels, y downwards.
struct LabelBox {
  double left = 0;
  double top = 0;
  double right = 0;
  double bottom = 0;
};

struct LabelledPoint {
  double x = 0;
  double y = 0;
  double width = 0;  // of the text
  double height = 0;
};

struct PlacedLabel {
  LabelBox box;       // of the text
  int side = 0;       // of the point: 1 right of it, -1 left, 0 above or below
  double line_x = 0;  // a line from the point to here joins them
  double line_y = 0;
  bool joined = false;  // whether the label is so far off that it needs the line
};

// A place for each label, in the points' order: the nearest of eight directions and growing distances at
// which neither text nor line touches a point, an earlier label or line, or one of the `taken` boxes; the
// least bad one where there is none. All boxes are inside `area` if a label fits into it. The page's scripts
// do the same.
std::vector<PlacedLabel> place_labels(const std::vector<LabelledPoint>& points, const LabelBox& area,
                                      const std::vector<LabelBox>& taken);

}  // namespace kva
