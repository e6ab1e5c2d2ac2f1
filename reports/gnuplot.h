// Drawing through gnuplot: a run of the program, and the parts that all our scripts share.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace kva {

// One PNG: what it shows, and the gnuplot commands that draw it.
struct Figure {
  std::string file;  // plain name, "growth.png"
  std::string title;
  std::string caption;  // one sentence: how to read it
  std::string script;
};

// Whether there is a gnuplot on the PATH.
bool gnuplot_available();

// Draws the figures in one gnuplot process, whose current folder is `folder`. Returns "" or one line that
// says what went wrong; files that are not there or are empty were not drawn. Throws Interrupted after
// Ctrl-C; ends gnuplot after timeout_s.
std::string run_gnuplot(const std::vector<const Figure*>& figures, const std::string& folder,
                        double timeout_s);

// Colours of the written forms: kinds of pages, prompt sets, thresholds, recipes. The page's scripts have the
// same.
std::string series_color(std::string_view slug);
std::string set_color(std::size_t index);
std::string threshold_color(std::size_t index, std::size_t count);
std::string part_color(std::size_t part);   // of bytes held: payload, scales, side data, tables, slack
std::string recipe_color(std::size_t row);  // of an A/B report; the first row is the baseline
inline constexpr const char* kControlColor = "#6b7280";
inline constexpr const char* kDashed = "lw 2.2 dt (11,6)";
inline constexpr const char* kDotted = "lw 2.4 dt (4,10)";

// A figure under construction: a grid of panels with a title above and one legend below.
class FigureScript {
 public:
  // Width and height in pixels; rows x columns of panels.
  FigureScript(const std::string& file, int width, int height, int rows, int columns);
  void title(const std::string& title, const std::string& subtitle);
  // Begins a panel. Its commands follow with add().
  void panel(int row, int column, const std::string& title, const std::string& x_label,
             const std::string& y_label);
  // A block of numbers that the script can plot: its name, "$d3". Each inner vector is a line; NaN is written
  // so.
  std::string data(const std::vector<std::vector<double>>& rows);
  void add(const std::string& commands) { script_ += commands + "\n"; }
  // Draws the panel from the parts of a plot command ("$d0 using 1:2 with lines").
  void plot(const std::vector<std::string>& parts);
  // One entry of the legend below, in the order given; `style` as in a plot command.
  void legend(const std::string& label, const std::string& style);
  // Space between panels, as shares of the figure.
  void gaps(double horizontal, double vertical);
  // Where the panels begin and end: room for labels on the left and a colour scale on the right.
  void sides(double left, double right) {
    left_ = left;
    right_ = right;
  }
  // Of one panel, in pixels.
  double panel_width() const { return width_ * (right_ - left_ - gap_x_ * (columns_ - 1)) / columns_; }
  double panel_height() const;
  std::string finish();

 private:
  std::string blocks_;
  std::string script_;
  std::vector<std::pair<std::string, std::string>> legend_;
  int width_;
  int height_;
  int rows_;
  int columns_;
  int panels_ = 0;
  int data_count_ = 0;
  double gap_x_ = 0.055;
  double gap_y_ = 0.125;
  double left_ = 0.065;
  double right_ = 0.985;
  std::string head_;
  std::string title_;
};

// A colour scale that runs like viridis: readable in grey and by colour-blind readers.
inline constexpr const char* kPalette =
    "set palette defined (0 '#440154', 0.125 '#482878', 0.25 '#3e4a89', 0.375 '#31688e', 0.5 '#26828e', "
    "0.625 '#1f9e89', 0.75 '#35b779', 0.875 '#6ece58', 0.95 '#b5de2b', 1 '#fde725')";

}  // namespace kva
