#include "reports/dashboard.h"

#include "reports/dashboard_forms.h"
#include "reports/plotly.h"
#include "reports/report_folder.h"
#include "reports/strategy_comparison.h"
#include "runtime/error.h"
#include "runtime/interrupt.h"
#include "runtime/io/file.h"

namespace kva {

std::vector<std::string> write_dashboard(const std::filesystem::path& results_folder,
                                         const DashboardOptions& options) {
  const TrialRows trials = load_trials(results_folder);
  const std::string plotly = load_plotly(options.plotly_path);
  ReportFolder target(results_folder.string());
  const std::string plot_folder = target.staging() + "/plots";
  PlotSet plots;
  if (options.plots) {
    make_directories(plot_folder);
    std::vector<Figure> figures = dashboard_figures(group_trials(trials.rows));
    plots = draw_figures(figures, plot_folder, "kvanalyze dashboard FOLDER");
  } else {
    plots.notes.push_back("plots: left out as asked (--no-plots)");
  }
  throw_if_interrupted();
  std::map<std::string, std::string> pngs;
  if (plotly.empty())
    for (const Plot& plot : plots.plots)
      pngs[plot.file] = read_text_file(plot_folder + "/" + plot.file, int64_t{64} << 20);
  write_text_file(target.staging() + "/dashboard.html", dashboard_html(trials, plots, pngs, plotly));
  write_text_file(target.staging() + "/dashboard.csv", dashboard_csv(trials.rows));
  write_text_file(target.staging() + "/comparison.md", comparison_markdown(trials, plots));
  throw_if_interrupted();
  target.publish();
  std::vector<std::string> notes = trials.notes;
  if (options.plots) notes.insert(notes.end(), plots.notes.begin(), plots.notes.end());
  if (plotly.empty())
    notes.push_back(
        "dashboard.html: charts are pictures, since plotly.min.js is not in the cache; "
        "scripts/fetch_plotly.py "
        "puts it there");
  return notes;
}

}  // namespace kva
